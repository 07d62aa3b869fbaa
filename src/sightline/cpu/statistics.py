"""What can be seen of each query's weights in the pass that makes the output: lse, max_score, entropy, distance.

Beside m and l, a row carries, all relative to its running maximum m like P and O:

    best   the largest score, in score units                    max_score
    mass   Σ p over the keys (l without the sink)
    heat   Σ p · x, x = score·c − m ≤ 0                         entropy = ln 2 · (log2 l · mass − heat) / l
    reach  Σ p · |position − key|                               distance = reach / l

A plug of the softmax: `softmax.weights` calls it for every vector of rows, for every weight, and at the end.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sightline.cpu.kinds import INFINITY, INT, NEGATIVE_INFINITY
from sightline.cpu.vmath import log2

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.values import Pointer, Value

LN_2 = math.log(2)
# x of a key that may not be seen is −inf, and 0 · −inf is NaN: below this, p is 0 and x does not matter.
COLDEST = {4: -256.0, 8: -2048.0}


def join(k: Kernel, w: Pointer, g: Value, sides: list[tuple[Value, Value]]) -> None:
    """Those at work join the kept ones, each side with its (climbed, faded) as in `Tile.rise`."""
    sums = [_faded(k, w, g, kept, *side) for kept, side in zip(("kept_", ""), sides, strict=True)]
    best = [k.table(w, f"{kept}best")[g] for kept in ("kept_", "")]
    k.table(w, "kept_best")[g] = best[1].max(best[0])
    for part in sums[0]:
        k.table(w, f"kept_{part}")[g] = sums[0][part] + sums[1][part]


def _faded(k: Kernel, w: Pointer, g: Value, kept: str, climbed: Value, faded: Value) -> dict[str, Value]:
    """The sums relative to a maximum that is higher: they weigh `faded` = 2^climbed of what they did."""
    mass, heat, reach = (k.table(w, kept + part)[g] for part in ("mass", "heat", "reach"))
    gone = faded == 0.0  # then also what overflowed, from scores so far below that m's rounding counts
    made = {}
    if "entropy" in k.key.see:
        climbed = climbed.max(COLDEST[k.element_bytes])  # −inf where nothing has been seen: mass is 0
        made["heat"] = gone.where(0.0, faded * climbed.fma(mass, heat))
        made["mass"] = gone.where(0.0, mass * faded)
    if "distance" in k.key.see:
        made["reach"] = gone.where(0.0, reach * faded)
    return made


class Tile:
    """One tile of keys, for one vector of rows."""

    def __init__(self, k: Kernel, f: Function, w: Pointer, g: Value, chains: int) -> None:
        self.k, self.f, self.w, self.g = k, f, w, g
        self.see = k.key.see
        self.heat = [f.variable(f.zeros(k.vec)) for _ in range(chains if "entropy" in self.see else 0)]
        self.reach = [f.variable(f.zeros(k.vec)) for _ in range(chains if "distance" in self.see else 0)]

    def rise(self, top: Value, climbed: Value, faded: Value) -> None:
        """The maximum rises: what was summed before weighs `faded` = 2^climbed of what it did."""
        if not self.see:
            return
        k, w, g = self.k, self.w, self.g
        best = k.table(w, "best")
        best[g] = top.max(best[g])
        for part, value in _faded(k, w, g, "", climbed, faded).items():
            k.table(w, part)[g] = value

    def add(self, chain: int, p: Value, x: Value, key: Value) -> None:
        """One weight p = 2^x of a key."""
        if self.heat:
            x = x.max(COLDEST[self.k.element_bytes])
            self.heat[chain].value = p.fma(x, self.heat[chain].value)
        if self.reach:
            key = key - self.k.place(self.w, "origin").load(INT, 8)
            away = self.k.table(self.w, "position")[self.g] - key.to(self.k.compute).splat(self.k.lanes)
            self.reach[chain].value = p.fma(away.magnitude(), self.reach[chain].value)

    def totals(self) -> dict[str, Value]:
        """The tile's sums."""
        made = {}
        for part, chains in (("heat", self.heat), ("reach", self.reach)):
            if chains:
                made[part] = chains[0].value
                for other in chains[1:]:
                    made[part] = made[part] + other.value
        return made

    def end(self, tile_sum: Value, totals: dict[str, Value] | None = None) -> None:
        """The tile's sums, these or those `totals`, join the row's."""
        totals = self.totals() if totals is None else totals
        if "heat" in totals:
            totals |= {"mass": tile_sum}
        for part, total in totals.items():
            table = self.k.table(self.w, part)
            table[self.g] = table[self.g] + total


def finish(k: Kernel, f: Function, a: Pointer, w: Pointer, vectors: Value, *, careful: bool) -> None:
    """From the sums to what was asked for, written for the rows that have a place for it. Before l is touched."""
    if not k.key.see:
        return
    whole = "seen_sum" if k.key.in_halves and not careful else "sum"
    high, total, best, mass, heat, reach = (
        k.table(w, part) for part in ("high", whole, "best", "mass", "heat", "reach")
    )
    scale, exponent = k.number(a, "scale"), k.number(a, "exponent")
    with f.loop(0, vectors, name="see") as g:
        l, alone = total[g], total[g] == 0.0
        bits = log2(l)
        shift, climb = _above(high[g], best[g], exponent, careful=careful)
        # The largest score and what is more: log₂(e) in m is rounded, by too much for scores of hundreds.
        more = (bits + climb) * LN_2
        lse = alone.where(NEGATIVE_INFINITY, shift + more if k.key.scaled else shift.fma(scale, more))
        largest = best[g] if k.key.scaled else best[g] * scale
        largest = (best[g] == NEGATIVE_INFINITY).where(NEGATIVE_INFINITY, largest)
        entropy = (bits * mass[g] - heat[g]) * LN_2 / l
        made = {
            "lse": lse,
            "max_score": (l == l).where(largest, l),  # noqa: PLR0124 (NaN)
            "entropy": alone.where(0.0, (entropy < 0.0).where(0.0, entropy)),  # −6e-8 for one visible key
            "distance": alone.where(0.0, reach[g] / l),
            **_for_later(l, best[g], shift, bits + climb),
        }
        for name in k.key.see:
            k.table(w, f"see_{name}")[g] = made[name]
    with f.loop(0, vectors * k.lanes, name="row") as r:
        place = (k.place(w, "see_rows") + r * 8).load(INT, 8)
        with f.when(place >= 0):
            for name in k.key.see:
                number = (k.place(w, f"see_{name}") + r * k.element_bytes).load(k.compute)
                (k.address(a, name) + place * k.element_bytes).store(number)


def _above(m: Value, best: Value, c: Value, *, careful: bool) -> tuple[Value, Value]:
    """The largest score, 0 where none is seen, and how far m lies above it in powers of two."""
    shift = (best == NEGATIVE_INFINITY).where(0.0, best)
    # m is rounded unless it was made with care, and a sink may be higher than any score.
    return shift, (m - shift) * c if careful else (-shift).fma(c, m)


def _for_later(l: Value, best: Value, shift: Value, log_sum: Value) -> dict[str, Value]:
    """What the second pass makes weights of, exact however large the scores are: w = 2^((S − shift)·c − log_sum).

    A query that sees no key has log_sum = +∞, and so no weight; an undefined one has NaN.
    """
    dark = (best == NEGATIVE_INFINITY) & (l == l)  # noqa: PLR0124 (NaN)
    return {"shift": shift, "log_sum": dark.where(INFINITY, log_sum)}
