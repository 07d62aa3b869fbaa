"""The online softmax: each row's running maximum m and denominator l, one tile of keys after another.

Everything is in powers of two: weight = 2^(score·c − m), where c = log2(e), times the scale if nothing needed
the scaled score before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu.values import ADDRESS, INT
from sightline.cpu.vmath import LOG2_E, exp2

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.values import Pointer, Value, Variable

NEGATIVE_INFINITY = float("-inf")
UNROLL = 4  # divides a tile's keys, and every tile's first key
# In the careful pass: a key that may be seen weighs at least this, so that an Inf in its value is not lost …
LEAST_WEIGHT = {4: 2.0**-126, 8: 2.0**-1022}
# … and a key that may not be seen weighs −0, which no visible key does.
UNSEEN = -0.0


def start(k: Kernel, f: Function, w: Pointer, vectors: Value) -> None:
    """M = −inf, l = 0; with a sink, m = sink and l = 1: a key that has a weight and no value."""
    high, total, sink = (k.table(w, part) for part in ("high", "sum", "sink"))
    with f.loop(0, vectors, name="start") as g:
        if k.key.sinks:
            s = sink[g] * LOG2_E
            high[g] = s
            total[g] = (s == NEGATIVE_INFINITY).where(0.0, s.fma(0.0, 1.0))  # NaN for a sink of NaN or +inf
        else:
            high[g] = f.value(NEGATIVE_INFINITY, k.vec)
            total[g] = f.zeros(k.vec)


def weights(k: Kernel, *, careful: bool) -> Function:
    """P = 2^(S·c − m) in place; m, l and fade = 2^(m_old − m) brought up to date.

    Parameters: arguments, workspace, keys in the tile, vectors of rows.
    """
    name = "weights.careful" if careful else "weights"
    with k.module.function(name, ADDRESS, ADDRESS, INT, INT) as f:
        a, w, n, vectors = f.arguments()
        high, top, total, fade = (k.table(w, part) for part in ("high", "top", "sum", "fade"))
        c = k.number(a, "exponent")
        with f.loop(0, vectors, name="rows") as g:
            m_old = high[g]
            m = (top[g] * c).max(m_old)
            # A row that has seen nothing yet has m = −inf: subtract 0 instead, −inf − (−inf) is NaN.
            shift = (m == NEGATIVE_INFINITY).where(0.0, m)
            faded = exp2(m_old - shift)
            if careful:
                faded = _at_least(k, faded, m_old == NEGATIVE_INFINITY, f.zeros(k.vec))
            high[g], fade[g] = m, faded
            sums = [f.variable(f.zeros(k.vec)) for _ in range(UNROLL)]
            _each_key(k, f, w, g, n, c, -shift, sums, careful=careful)
            tile_sum = (sums[0].value + sums[1].value) + (sums[2].value + sums[3].value)
            total[g] = total[g].fma(faded, tile_sum)
    return f


def _each_key(
    k: Kernel, f: Function, w: Pointer, g: Value, n: Value, c: Value, minus_m: Value, sums: list[Variable],
    *, careful: bool,
) -> None:  # fmt: skip
    """S[j] → P[j] and the sums of P, four keys at a time."""
    table = k.table(w, "scores")

    def weigh(j: Value, part: Variable) -> None:
        s = table[j, g]
        p = exp2(s.fma(c, minus_m))
        if careful:
            p = _at_least(k, p, s == NEGATIVE_INFINITY, f.value(UNSEEN, k.vec))
        table[j, g] = p
        part.value = part.value + p

    whole = n - n % UNROLL
    with f.loop(0, whole, UNROLL, name="keys") as j:
        for u in range(UNROLL):
            weigh(j + u, sums[u])
    for u in range(UNROLL - 1):  # a key always adds to the same sum, wherever the tile ends
        with f.when(whole + u < n):
            weigh(whole + u, sums[u])


def _at_least(k: Kernel, p: Value, unseen: Value, otherwise: Value) -> Value:
    least = LEAST_WEIGHT[k.element_bytes]
    return unseen.where(otherwise, (p < least).where(least, p))


def finish(k: Kernel, f: Function, w: Pointer, vectors: Value, grow: Value) -> None:
    """Fade = grow / l, what the output is multiplied by; 0 for a row that saw no key."""
    total, fade = (k.table(w, part) for part in ("sum", "fade"))
    with f.loop(0, vectors, name="finish") as g:
        fade[g] = (total[g] == 0.0).where(0.0, grow / total[g])
