"""What both softmaxes before a matrix unit do alike: weights with m as it is, and a maximum that rises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu import statistics
from sightline.cpu.kinds import NEGATIVE_INFINITY
from sightline.cpu.softmax import UNROLL, seen_nothing
from sightline.cpu.vmath import exp2

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.modify import Allowed
    from sightline.cpu.values import Pointer, Value


def lowered(m: Value) -> Value:
    """M; 0 for a row that has seen nothing yet and has m = −∞, for −∞ − (−∞) is NaN."""
    return seen_nothing(m).where(0.0, m)


class Weighing:
    """P = 2^(S·c − m) of a vector of rows, their sum, and what is seen of them."""

    def __init__(self, k: Kernel, f: Function, a: Pointer, w: Pointer, g: Value) -> None:
        self.k, self.g, self.scores = k, g, k.table(w, "scores")
        self.c, self.minus_m = k.number(a, "exponent"), -lowered(k.table(w, "high")[g])
        self.seen = statistics.Tile(k, f, w, g, UNROLL)
        self.sums = [f.variable(f.zeros(k.vec)) for _ in range(UNROLL)]

    def weight(self, j: Value, u: int, number: Value, allowed: Allowed | None = None) -> Value:
        """P of key j + u of the tile, which has that number in the sequence."""
        x = self.scores[j + u, self.g].fma(self.c, self.minus_m)
        p = exp2(x, self.k.key.terms)
        if allowed is not None:
            p = allowed.choose(u, p, 0.0)
        total = self.sums[u % UNROLL]
        total.value = total.value + p
        self.seen.add(u % UNROLL, p, x, number)
        return p

    def total(self) -> Value:
        """The sum of the tile's weights."""
        first, second, third, fourth = (x.value for x in self.sums)
        return (first + second) + (third + fourth)


def rise(k: Kernel, f: Function, w: Pointer, g: Value, fits: Value, m: Value, columns: int) -> None:
    """High = m in rows that do not fit, if it is more; fade = 2^(m_old − m), and so many columns of O = O·fade."""
    high, output = k.table(w, "high"), k.table(w, "output")
    m_old = high[g]
    m = fits.where(m_old, m.max(m_old))
    climbed = m_old - lowered(m)
    faded = fits.where(1.0, exp2(climbed))
    high[g], k.table(w, "fade")[g] = m, faded
    if k.key.see:
        k.table(w, "climbed")[g] = fits.where(0.0, climbed)
    with f.when((m_old > NEGATIVE_INFINITY).any()), f.loop(0, columns, name="dim") as d:
        output[d, g] = output[d, g] * faded
