"""Weights as one bfloat16 term, 32 at a time: 2^t by way of fixed point, in half the instructions.

    t + 127 = exponent and fraction f, 9 bits of it    a fused multiply-add with 2¹⁴, whose last bits these are
    two keys' t side by side                           the pairs that the unit wants
    2^t = t + 127 − bump(f), as a bfloat16's bits      bump(f) = f − (2^f − 1): its mantissa is 2^f − 1, not f
    p = those bits, rounded                            0 where the exponent is 0

`bump` is a cubic in float16, of 2⁻⁶·(1 + f/2), which is the fraction's bits beneath an exponent; the sum comes out
as a subnormal float16, so its bits are an integer. Rounding t costs a quarter of what rounding to bfloat16 does.

m is LIFT more than the largest score of the tile in which it last rose, and p < 2: weights may become 2^16 times
as large before it rises again. What is beyond that, NaN and +∞ show in the upper half of the sum.

l is the sum of the weights as they are multiplied, rounded: a row of ones below Vᵀ makes it, one more row of O. So
a weight that is nearly all of its row is as good as exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu import amx, formats, terms, weighing
from sightline.cpu.kinds import ADDRESS, BOOL, HALF, I16, INT, NEGATIVE_INFINITY, vector
from sightline.cpu.modify import Allowed
from sightline.cpu.softmax import LOWEST, UNROLL, seen_nothing

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.values import Pointer, Value

POINT = 9  # bits after it
ROUND = 2 * 2.0**-POINT  # half of a bfloat16's last bit
ORIGIN = 2.0 ** (23 - POINT)  # where a float32's last bit is the last one after the point
BEYOND = ORIGIN + 2.0 ** (16 - POINT)  # what no longer stands in 16 bits
BIAS = 127.0  # of the exponent
LIFT = 15.0
TOGETHER = 8  # keys at a time

# bump in subnormal float16, of y = 2⁻⁶·(1 + f/2): each one a float16, never negative, rms error 0.33 last bits
# (rounding alone: 0.29). The fraction has ROUND added to it.
_BUMP = (-441.0 * 2.0**-24, 0.0009570121765136719, 0.1248779296875, -5.0234375)
_FRACTION, _EXPONENT = (1 << POINT) - 1, 0x2400


def weights(k: Kernel, flush: Function, mask: Function | None) -> Function:
    """P behind what waits; m and, where it rises, O and the l in it brought up to date.

    Parameters: arguments, workspace, first key of the tile, keys in it, vectors of rows.
    """
    attempt, rise = _attempt(k), _rise(k)
    watch = _watch(k) if k.key.see else None
    with k.module.function("weights", ADDRESS, ADDRESS, INT, INT, INT) as f:
        a, w, first, n, vectors = f.arguments()
        total = k.table(w, "sum")
        misfit = f.variable(f.value(0, BOOL))
        with f.loop(0, vectors, name="rows") as g:
            misfit.value = misfit.value | seen_nothing(k.table(w, "high")[g]).any()
            if k.key.see:
                k.table(w, "climbed")[g], k.table(w, "fade")[g] = f.zeros(k.vec), f.value(1.0, k.vec)
        with f.when(~misfit.value), f.loop(0, vectors, name="rows") as g:
            f.call(attempt, a, w, n, g)
            misfit.value = misfit.value | _misfits(k, w, g).any()
        with f.when(misfit.value):
            f.call(flush, w, vectors)
            if mask is not None:
                f.call(mask, a, w, first, n, vectors)
            with f.loop(0, vectors, name="rows") as g:
                f.call(rise, a, w, n, g)
                f.call(attempt, a, w, n, g)
                total[g] = _misfits(k, w, g).where(float("nan"), total[g])
        if watch is not None:
            with f.loop(0, vectors, name="rows") as g:
                f.call(watch, a, w, first, n, g)
    return f


def _attempt(k: Kernel) -> Function:
    """P with m as it is, 0 for keys past the end; `met`: the bits of all sums together.

    Parameters: arguments, workspace, keys of the tile, vector of rows.
    """
    with k.module.function("attempt", ADDRESS, ADDRESS, INT, INT) as f:
        a, w, n, g = f.arguments()
        c, addend, scores = k.number(a, "exponent"), _addend(k, w, g), k.table(w, "scores")
        tiles, waiting = k.place(w, "weight_tiles"), k.place(w, "waiting").load(INT, 8)
        met = [f.variable(f.zeros(k.integers)) for _ in range(2)]

        def fixed(j: Value, u: int, allowed: Allowed | None) -> Value:
            t = f.value(ORIGIN + ROUND, k.vec).max(scores[j + u, g].fma(c, addend))  # NaN stays
            return (t if allowed is None else allowed.choose(u, t, ORIGIN + ROUND)).bits()

        with f.loop(0, amx.whole_tiles(n), TOGETHER, name="keys") as j:
            place = terms.pair_of(k, tiles, waiting + j, g)
            allowed = Allowed(k, w, g, j) if k.key.masks_weights else None
            for u in range(0, TOGETHER, 2):
                first, second = (fixed(j, v, allowed) for v in (u, u + 1))
                seen = met[u // 2 % 2]
                seen.value = seen.value | first | second
                pair = formats.blended(first, second << 16).as_bits_of(vector(I16, 2 * k.lanes))
                (place + u // 2 * k.vector_bytes).store(_power(pair), k.vector_bytes)
        k.table(w, "tile_sum")[g] = (met[0].value | met[1].value).as_bits_of(k.vec)
    return f


def _power(t: Value) -> Value:
    """2^t as a bfloat16's bits."""
    y = ((t & _FRACTION) | _EXPONENT).as_bits_of(vector(HALF, t.kind.count))
    bump = y.fma(_BUMP[3], _BUMP[2]).fma(y, _BUMP[1]).fma(y, _BUMP[0])
    return (t - bump.bits()) >> (POINT - 7)


def _addend(k: Kernel, w: Pointer, g: Value) -> Value:
    """What turns S·c into the sum."""
    return -(weighing.lowered(k.table(w, "high")[g]) - (ORIGIN + BIAS + ROUND))


def _misfits(k: Kernel, w: Pointer, g: Value) -> Value:
    """Rows with a sum that has no place in 16 bits."""
    return (k.table(w, "tile_sum")[g].bits() & terms.UPPER) != w.f.value(ORIGIN, k.vec).bits()


def _rise(k: Kernel) -> Function:
    """M = the tile's largest score and LIFT, of rows that do not fit; O = O·2^(m_old − m).

    Parameters: arguments, workspace, keys of the tile, vector of rows.
    """
    with k.module.function("rise", ADDRESS, ADDRESS, INT, INT) as f:
        a, w, n, g = f.arguments()
        c, largest = k.number(a, "exponent"), amx.largest_score(k, f, w, n, g)
        fits = ~seen_nothing(k.table(w, "high")[g]) & (largest.fma(c, _addend(k, w, g)) < BEYOND)
        even = 1.5 * ORIGIN  # so that m, too, has no more bits after the point
        scaled = ((largest * c + LIFT).max(LOWEST[k.element_bytes]) + even) - even
        m = seen_nothing(largest).where(NEGATIVE_INFINITY, scaled)
        weighing.rise(k, f, w, g, fits, m, k.key.value_dim + 1)
    return f


def _watch(k: Kernel) -> Function:
    """What is seen of the tile's weights, of the very weights: a rounded one is no exponential of its score.

    Parameters: arguments, workspace, first key of the tile, keys in it, vector of rows.
    """
    with k.module.function("watch", ADDRESS, ADDRESS, INT, INT, INT) as f:
        a, w, first, n, g = f.arguments()
        made = weighing.Weighing(k, f, a, w, g)
        with f.loop(0, amx.whole_tiles(n), UNROLL, name="keys") as j:
            for u in range(UNROLL):
                made.weight(j, u, first + j + u)
        climbed, faded = k.table(w, "climbed")[g], k.table(w, "fade")[g]
        made.seen.rise(k.table(w, "top")[g], climbed, faded)
        made.seen.end(made.total())
        whole = k.table(w, "seen_sum")
        whole[g] = whole[g].fma(faded, made.total())
    return f
