"""The online softmax: each row's running maximum m and denominator l, one tile of keys after another.

Everything is in powers of two: weight = 2^(score·c − m), where c = log2(e), times the scale if nothing needed
the scaled score before. That is one fused instruction a score, but m = top·c is rounded: every weight of a row
is off by one common factor, which the division by l takes out, unless it is so large that weights overflow or
vanish. Rows with such scores (beyond 10⁷ in float32), and rows whose output holds a NaN or an Inf, are done
again with care: m stays a score, weight = 2^((score − m)·c), and a key that may not be seen is told from one
whose weight is zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu import dropout, formats, statistics
from sightline.cpu.ahead import fetch_output, fetches_output_late
from sightline.cpu.kinds import ADDRESS, BOOL, INT, NEGATIVE_INFINITY
from sightline.cpu.vmath import exp2

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.values import Pointer, Value, Variable

UNROLL = 4  # divides a tile's keys, and every tile's first key
# Up to here the rounding of m is off by at most 4: no weight over- or underflows for it.
FARTHEST = {4: 2.0**26, 8: 2.0**55}
FARTHEST_FIXED = 2.0**13  # … and up to here it is exact in the fixed point of `halves`
# With care, a key that may be seen weighs at least this, so that an Inf in its value is not lost …
LEAST_WEIGHT = {4: 2.0**-126, 8: 2.0**-1022}
# … and a key that may not be seen weighs −0, which no visible key does …
UNSEEN = -0.0
# … and values shrink by this: a sum of large ones must not overflow before it is divided.
SHRINK = 2.0**-24
LOWEST = {4: -3.4028234663852886e38, 8: -1.7976931348623157e308}


def weights(k: Kernel, *, careful: bool) -> Function:
    """P = 2^(S·c − m) in place; m, l and fade = 2^(m_old − m) brought up to date.

    Parameters: arguments, workspace, first key of the tile, keys in it, vectors of rows.
    """
    name = "weights.careful" if careful else "weights"
    with k.module.function(name, ADDRESS, ADDRESS, INT, INT, INT) as f:
        a, w, first, n, vectors = f.arguments()
        high, top, total, fade = (k.table(w, part) for part in ("high", "top", "sum", "fade"))
        c = k.number(a, "exponent")
        with f.loop(0, vectors, name="rows") as g:
            if fetches_output_late(k.key) and not careful:
                fetch_output(k, f, w, g)
            m_old, largest = high[g], top[g]
            seen = statistics.Tile(k, f, w, g, UNROLL)
            if not careful:  # −inf is kept for rows that have seen nothing
                scaled = (largest * c).max(LOWEST[k.element_bytes])
                largest = (largest == NEGATIVE_INFINITY).where(NEGATIVE_INFINITY, scaled)
            m = largest.max(m_old)
            # A row that has seen nothing yet has m = −inf: subtract 0 instead, −inf − (−inf) is NaN.
            shift = (m == NEGATIVE_INFINITY).where(0.0, m)
            climbed = (m_old - shift) * c if careful else m_old - shift
            faded = exp2(climbed)
            if careful:
                faded = at_least(k, faded, m_old == NEGATIVE_INFINITY, f.zeros(k.vec))
            high[g], fade[g] = m, faded
            seen.rise(top[g], climbed, faded)
            sums = [f.variable(f.zeros(k.vec)) for _ in range(UNROLL)]
            _each_key(k, f, a, w, g, (first, n), c, shift, sums, seen, careful=careful)
            tile_sum = (sums[0].value + sums[1].value) + (sums[2].value + sums[3].value)
            total[g] = total[g].fma(faded, tile_sum)
            seen.end(tile_sum)
    return f


def _each_key(
    k: Kernel, f: Function, a: Pointer, w: Pointer, g: Value, keys: tuple[Value, Value], c: Value, m: Value,
    sums: list[Variable], seen: statistics.Tile, *, careful: bool,
) -> None:  # fmt: skip
    """S[j] → P[j] and the sums of P, four keys at a time; a key always adds to the same sum."""
    (first, n), table, minus_m = keys, k.table(w, "scores"), -m
    drop = dropout.Dropped(k, f, a, w, g) if k.key.dropout else None
    terms = 0 if careful else k.key.weight_terms
    for u in range(UNROLL - 1):  # scores past the tile's end, which the last four may reach
        table[n + u, g] = f.value(NEGATIVE_INFINITY, k.vec)

    def weight(s: Value, chain: int, key: Value) -> Value:
        x = (s - m) * c if careful else s.fma(c, minus_m)
        p = exp2(x, terms)
        if careful:
            p = at_least(k, p, s == NEGATIVE_INFINITY, f.value(UNSEEN, k.vec))
        sums[chain].value = sums[chain].value + p
        seen.add(chain, p, x, key)
        if drop is not None:  # after the sums: l and what is seen are those of all weights
            p = drop.kept(key).where(p, UNSEEN if careful else 0.0)
        return p

    with f.loop(0, n, UNROLL, name="keys") as j:
        p = [weight(table[j + u, g], u, first + j + u) for u in range(UNROLL)]
        if k.key.paired and not careful:
            for u in range(0, UNROLL, 2):
                both = formats.side_by_side(formats.both_rounded(p[u], p[u + 1]))
                table[j // 2 + u // 2, g] = both.as_bits_of(k.vec)
        else:
            for u in range(UNROLL):
                table[j + u, g] = p[u]


def seen_nothing(m: Value) -> Value:
    """Whether a row whose maximum is m has met no key that it may see."""
    return m == NEGATIVE_INFINITY


def at_least(k: Kernel, p: Value, unseen: Value, otherwise: Value | float) -> Value:
    """A weight made with care: LEAST_WEIGHT or more, `otherwise` where nothing is seen."""
    least = LEAST_WEIGHT[k.element_bytes]
    return unseen.where(otherwise, (p < least).where(least, p))


def finish(k: Kernel, f: Function, a: Pointer, w: Pointer, vectors: Value, *, careful: bool) -> None:
    """Sum = l and fade = 1 / l, what the output is divided by; fade = 0 for a row that saw no key."""
    total, fade = (k.table(w, part) for part in ("sum", "fade"))
    with f.loop(0, vectors, name="finish") as g:
        if careful:
            total[g] = total[g] * shrink(k, w).splat(k.lanes)
        if k.key.dropout:
            total[g] = total[g] * k.number(a, "keep")
        fade[g] = (total[g] == 0.0).where(0.0, f.value(1.0, k.vec) / total[g])


def shrink(k: Kernel, w: Pointer) -> Value:
    """What values shrink by, with care: on a matrix unit tiny ones, which it cannot do, must not shrink."""
    return k.place(w, "shrink").load(k.compute) if k.key.terms else w.f.value(SHRINK, k.compute)


def find_bad_rows(k: Kernel, f: Function, w: Pointer, vectors: Value) -> Value:
    """Whether a row has to be done again with care; top = 1 for those that have, 0 for the others."""
    high, top, total, output = (k.table(w, part) for part in ("high", "top", "sum", "output"))
    found = f.variable(f.value(0, BOOL))
    with f.loop(0, vectors, name="rows") as g:
        # 0·O and 0·l are 0 but for NaN and Inf. Four sums: one chain would wait for each multiplication.
        probes = [f.variable(f.zeros(k.vec)) for _ in range(UNROLL)]
        with f.loop(0, k.key.value_dim, UNROLL, name="probe") as d:
            for u, probe in enumerate(probes):
                dim = (d + u).min(k.key.value_dim - 1)
                probe.value = output[dim, g].fma(0.0, probe.value)
        probed = (probes[0].value + probes[1].value) + (probes[2].value + probes[3].value)
        probed = total[g].fma(0.0, probed)
        m, farthest = high[g], FARTHEST_FIXED if k.key.in_halves else FARTHEST[k.element_bytes]
        far = (m > farthest) | ((m < -farthest) & (m > NEGATIVE_INFINITY))
        bad = (probed != 0.0) | far
        top[g] = bad.where(1.0, f.zeros(k.vec))
        found.value = found.value | bad.any()
    return found.value
