"""The softmax's derivative, score by score: from S and dP to P and dS, with all that was done to the scores.

    P = exp(S − lse)                      lse came with the call
    dS = P·(dP − delta)                   delta = Σ_d dO·O − dlse
    dS = dS·(1 − tanh²)·scale             through softcap and scale, for dQ and dK

With dropout dP and, for dV, P are 0 where the forward pass dropped the weight, else 1/(1 − p) times as large.

In powers of two, as in the softmax: P = 2^((S − shift)·c + lift), where shift is the score whose weight would
be 1, rounded, and lift makes good for that, and for the rounding of c. An lse of thousands is itself rounded by
too much: such rows are gone through once before, as the softmax does it with care, for their largest score and
the sum of their weights.

A key that may not be seen has weight and derivative 0; where sums are made with care −0, which no visible key has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu import dropout, formats, packing
from sightline.cpu.arguments import SLOT
from sightline.cpu.kinds import ADDRESS, BOOL, DOUBLE, I16, INFINITY, INT, NEGATIVE_INFINITY, vector
from sightline.cpu.softmax import UNROLL, UNSEEN
from sightline.cpu.statistics import LN_2
from sightline.cpu.values import Table
from sightline.cpu.vmath import LOG2_E, exp2, log2

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.rows import Rows
    from sightline.cpu.values import Pointer, Value

# log2(e), less what the arithmetic's nearest number is.
LOG2_E_REST = {4: 1.9259629911266174e-8, 8: 2.0355273740931e-17}
# From here on, in powers of two, a row's lse is made again …
FAR = {4: 2.0**10, 8: 2.0**30}
# … or from here, where the forward pass may have made its scores on a matrix unit, and this does not …
FAR_FROM_MATRIX_UNIT = 2.0**4
# … unless the call's differs by more than rounding: then it counts keys that are not here.
SAME_LSE = {4: 2.0**-20, 8: 2.0**-48}


def start(k: Kernel, f: Function, a: Pointer, w: Pointer, rows: Rows) -> Value:
    """Shift, lift, dot and delta of each row; nothing is seen yet. Whether some row's lse is far from 0."""
    d_lse = k.address(a, "d_lse")
    has_d_lse = d_lse.address() != 0
    dot, delta, kept = (k.table(w, part) for part in ("dot", "delta", "lse"))
    with f.loop(0, rows.vectors * k.lanes, name="row") as r:
        number = (k.place(w, "see_rows") + r * 8).load(INT, 8)
        exists, at, offset = number >= 0, r * k.element_bytes, number.max(0) * k.element_bytes
        lse = (k.address(a, "lse") + offset).load(k.compute)
        # Of a row that sees nothing: −∞ − (−∞) is NaN. +∞ for a row past the last one, which is to have no weight.
        lse = (lse == NEGATIVE_INFINITY).where(0.0, lse)
        (kept.at + at).store(exists.where(lse, INFINITY))
        total = packing.products(k, f, k.place(w, "outs"), k.place(w, "d_outs"), k.key.value_dim, r)
        (dot.at + at).store(total)
        (delta.at + at).store(total)
        with f.when(has_d_lse):
            (delta.at + at).store(total - (d_lse + offset).load(k.compute))
    far = f.variable(f.value(0, BOOL))
    log2_e, c, rest = f.value(LOG2_E, k.vec), k.number(a, "exponent"), _rest(k, f, a)
    with f.loop(0, rows.vectors, name="start") as g:
        lse = kept[g]
        m = lse * log2_e
        left = lse.fma(log2_e, -m) + lse * LOG2_E_REST[k.element_bytes]  # lse·log2(e) − m
        shift = lse if k.key.scaled else lse / k.number(a, "scale")
        beyond = lse == INFINITY
        k.table(w, "shift")[g] = beyond.where(0.0, shift)
        lift = shift.fma(c, -m) + shift.fma(rest, -left)
        k.table(w, "lift")[g] = beyond.where(NEGATIVE_INFINITY, lift)
        k.table(w, "lean")[g] = f.zeros(k.vec)
        k.table(w, "top_seen")[g] = f.value(NEGATIVE_INFINITY, k.vec)
        far.value = far.value | (_is_far(k, lse) & ~beyond).any()
    return far.value


def _rest(k: Kernel, f: Function, a: Pointer) -> Value:
    """What the exponent lost when it was rounded to the arithmetic's type."""
    exponent, scale = ((a + 8 * SLOT[name]).load(DOUBLE, 8) for name in ("exponent", "scale"))
    if k.element_bytes == 4:
        lost = exponent - exponent.to(k.compute).to(DOUBLE)
    else:
        unit = f.value(1.0, DOUBLE) if k.key.scaled else scale
        lost = unit.fma(LOG2_E, -exponent) + unit * LOG2_E_REST[8]
    return lost.to(k.compute).splat(k.lanes)


def _is_far(k: Kernel, lse: Value) -> Value:
    others = k.key.dtype == "float32" and k.isa.multiplies_tiles and not k.key.terms
    return lse.magnitude() > (FAR_FROM_MATRIX_UNIT if others else FAR[k.element_bytes])


def replace_far(k: Kernel, f: Function, a: Pointer, w: Pointer, vectors: Value) -> None:
    """Shift and lift of the rows whose lse is far from 0, from the largest score and the sum of the weights."""
    unit = k.number(a, "exponent") * LN_2
    with f.loop(0, vectors, name="far") as g:
        lse, top, bits = k.table(w, "lse")[g], k.table(w, "high")[g], log2(k.table(w, "sum")[g])
        more = top.fma(unit, bits * LN_2) - lse
        same = more.magnitude() <= lse.magnitude() * SAME_LSE[k.element_bytes]
        far = _is_far(k, lse) & (lse != INFINITY)
        shift, lift = k.table(w, "shift"), k.table(w, "lift")
        shift[g] = far.where(top, shift[g])
        lift[g] = far.where(same.where(0.0, more * LOG2_E) - bits, lift[g])


def derive(k: Kernel, *, careful: bool, for_bias: bool = False) -> Function:
    """S → P and dP → dS, in place; in pairs of bfloat16 where the products take them.

    For the bias, dS is what it is before softcap and scale. Parameters: arguments, workspace, first key of the
    tile, keys in it, vectors of rows.
    """
    name = f"derive{'.careful' * careful}"
    with k.module.function(name, ADDRESS, ADDRESS, INT, INT, INT) as f:
        a, w, first, n, vectors = f.arguments()
        with f.loop(0, vectors, name="rows") as g:
            scores, d_scores = k.table(w, "scores"), k.table(w, "d_scores")
            for u in range(UNROLL - 1):  # scores past the tile's end, which the last four may reach
                scores[n + u, g] = f.value(NEGATIVE_INFINITY, k.vec)
            one = Row(k, f, a, w, g, careful=careful, for_bias=for_bias)
            with f.loop(0, n, UNROLL, name="keys") as j:
                made = [one.key(j + u, first + j + u) for u in range(UNROLL)]
                if k.key.paired and not careful and not for_bias:
                    _store_pairs(k, w, g, j, made)
                else:
                    for u, (p, ds) in enumerate(made):
                        scores[j + u, g], d_scores[j + u, g] = p, ds
            one.end()
    return f


class Row:
    """One vector of rows; what does not depend on the key is loaded once."""

    def __init__(
        self, k: Kernel, f: Function, a: Pointer, w: Pointer, g: Value, *, careful: bool, for_bias: bool
    ) -> None:
        self.k, self.f, self.w, self.g = k, f, w, g
        self.careful, self.for_bias = careful, for_bias
        self.shift, self.lift, self.delta = (k.table(w, part)[g] for part in ("shift", "lift", "delta"))
        self.c, self.scale = k.number(a, "exponent"), k.number(a, "scale")
        self.drops = k.key.dropout
        if self.drops:
            self.drop, self.keep_scale = dropout.Dropped(k, f, a, w, g), k.number(a, "keep_scale")
        self.leans = "alibi_slopes" in k.key.gradients
        if self.leans:
            self.lean = f.variable(f.zeros(k.vec))
            self.position, self.origin = k.table(w, "position")[g], k.place(w, "origin").load(INT, 8)

    def key(self, j: Value, number: Value) -> tuple[Value, Value]:
        """P and dS of one key."""
        k, g = self.k, self.g
        s, dp = k.table(self.w, "scores")[j, g], k.table(self.w, "d_scores")[j, g]
        unseen = s == NEGATIVE_INFINITY
        p = exp2((s - self.shift).fma(self.c, self.lift), k.key.weight_terms)
        used, unused = p, unseen  # of p, by dV
        if self.drops:
            kept = self.drop.kept(number)
            used, unused = p * self.keep_scale, unseen | ~kept
            dp = kept.where(dp * self.keep_scale, 0.0)
        ds = p * (dp - self.delta)
        if self.leans:
            away = self.position - (number - self.origin).to(k.compute).splat(k.lanes)
            self.lean.value = unseen.where(0.0, ds).fma(away.magnitude(), self.lean.value)
        if not self.for_bias:
            ds = ds * k.table(self.w, "steepness")[j, g] if k.key.softcap else ds
            ds = ds * self.scale
        nothing = UNSEEN if self.careful else 0.0
        return unused.where(nothing, used), unseen.where(nothing, ds + 0.0 if self.careful else ds)

    def end(self) -> None:
        """The tile's sums join the row's."""
        if self.leans:
            lean = self.k.table(self.w, "lean")
            lean[self.g] = lean[self.g] + self.lean.value


def _store_pairs(k: Kernel, w: Pointer, g: Value, j: Value, made: list[tuple[Value, Value]]) -> None:
    """Sums over queries take P and dS as rows of bfloat16; those over keys, two keys' dS side by side."""
    lanes, row = k.lanes, k.row_bytes // 2
    for column, part in enumerate(("scores.pairs", "d_scores.pairs")):
        table = Table(
            k.place(w, part), vector(I16, lanes), row, k.vector_bytes // 2, align=k.vector_bytes // 2
        )
        for u in range(0, UNROLL, 2):
            both = formats.both_rounded(made[u][column], made[u + 1][column])
            for v in range(2):
                table[j + (u + v), g] = both.shuffled(both, range(v * lanes, (v + 1) * lanes))
            if part == "d_scores.pairs":
                k.table(w, "d_scores")[j // 2 + u // 2, g] = formats.side_by_side(both).as_bits_of(k.vec)


def look(k: Kernel, f: Function, w: Pointer, vectors: Value) -> None:
    """Remember which rows have seen something."""
    if "sinks" in k.key.gradients:
        high, top = k.table(w, "top_seen"), k.table(w, "top")
        with f.loop(0, vectors, name="look") as g:
            high[g] = (top[g] == NEGATIVE_INFINITY).where(high[g], top[g])


def finish(k: Kernel, f: Function, a: Pointer, w: Pointer, rows: Rows) -> None:
    """Write what was asked of each row: lean for the slopes, dot for the sinks, 0 if nothing was seen."""
    asked = [part for part, name in (("dot", "sinks"), ("lean", "alibi_slopes")) if name in k.key.gradients]
    if "sinks" in k.key.gradients:
        dot, high = k.table(w, "dot"), k.table(w, "top_seen")
        with f.loop(0, rows.vectors, name="finish") as g:
            dot[g] = (high[g] == NEGATIVE_INFINITY).where(0.0, dot[g])
    with f.loop(0, rows.count if asked else 0, name="row") as r:
        number = (k.place(w, "see_rows") + r * 8).load(INT, 8)
        for part in asked:
            x = (k.place(w, part) + r * k.element_bytes).load(k.compute)
            (k.address(a, part) + number * k.element_bytes).store(x)
