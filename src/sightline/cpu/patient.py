"""The online softmax before a matrix unit: O lies in tiles, so a row's maximum is left alone as long as it will do.

    p = 2^(S·c − m)  with m as it was; Σ p of the tile is needed anyway, and tells
    if Σ p > LIMIT (or NaN, or nothing was seen before): m = the tile's largest, fade = 2^(m_old − m), p once more

So no score is looked at twice, and O hardly ever fades. What a row decides depends on its own scores alone, and p may be
as large as LIMIT: nothing but l and O, both summed from it, takes notice of m.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu import amx, statistics, terms
from sightline.cpu.softmax import LOWEST, UNROLL, seen_nothing
from sightline.cpu.values import ADDRESS, INT, NEGATIVE_INFINITY
from sightline.cpu.vmath import exp2

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.values import Value

LIMIT = 2.0**16
TOGETHER = 2 * UNROLL  # keys at a time


def weights(k: Kernel) -> Function:
    """P in terms; m, l and fade brought up to date.

    Parameters: arguments, workspace, first key of the tile, keys in it, vectors of rows.
    """
    attempt = _attempt(k)
    with k.module.function("weights", ADDRESS, ADDRESS, INT, INT, INT) as f:
        a, w, first, n, vectors = f.arguments()
        high, total, tile_sum, fade = (k.table(w, part) for part in ("high", "sum", "tile_sum", "fade"))
        with f.loop(0, vectors, name="rows") as g:
            m_old = high[g]
            climbed, faded = f.variable(f.zeros(k.vec)), f.variable(f.value(1.0, k.vec))
            f.call(attempt, a, w, first, n, g)
            fits = (tile_sum[g] <= LIMIT) & (m_old > NEGATIVE_INFINITY)
            with f.when((~fits).any()):
                largest = amx.largest_score(k, f, w, n, g)
                scaled = (largest * k.number(a, "exponent")).max(LOWEST[k.element_bytes])
                scaled = seen_nothing(largest).where(NEGATIVE_INFINITY, scaled).max(m_old)
                m = fits.where(m_old, scaled)
                high[g] = m
                climbed.value = m_old - seen_nothing(m).where(0.0, m)
                faded.value = fits.where(1.0, exp2(climbed.value))
                f.call(attempt, a, w, first, n, g)
            fade[g] = faded.value
            total[g] = total[g].fma(faded.value, tile_sum[g])
            seen = statistics.Tile(k, f, w, g, UNROLL)
            if k.key.see:
                seen.rise(k.table(w, "top")[g], climbed.value, faded.value)
                seen.end(tile_sum[g], {part: k.table(w, f"tile_{part}")[g] for part in seen.totals()})
    return f


def _attempt(k: Kernel) -> Function:
    """P in terms and its sums over the tile, with m as it is; P = 0 for keys past the end.

    Parameters: arguments, workspace, first key of the tile, keys in it, vector of rows.
    """
    with k.module.function("attempt", ADDRESS, ADDRESS, INT, INT, INT) as f:
        a, w, first, n, g = f.arguments()
        c, m, scores = k.number(a, "exponent"), k.table(w, "high")[g], k.table(w, "scores")
        # A row that has seen nothing yet has m = −inf: subtract 0 instead, −inf − (−inf) is NaN.
        minus_m = -seen_nothing(m).where(0.0, m)
        seen = statistics.Tile(k, f, w, g, UNROLL)
        sums = [f.variable(f.zeros(k.vec)) for _ in range(UNROLL)]

        def weight(j: Value, u: int) -> Value:
            x = scores[j + u, g].fma(c, minus_m)
            p = exp2(x, k.key.terms)
            sums[u % UNROLL].value = sums[u % UNROLL].value + p
            seen.add(u % UNROLL, p, x, first + j + u)
            return p

        with f.loop(0, amx.whole_tiles(n), TOGETHER, name="keys") as j:
            for u in range(0, TOGETHER, 2):
                terms.store_weights(k, w, g, j, u // 2, weight(j, u), weight(j, u + 1))
        k.table(w, "tile_sum")[g] = (sums[0].value + sums[1].value) + (sums[2].value + sums[3].value)
        for part, total in seen.totals().items():
            k.table(w, f"tile_{part}")[g] = total
    return f
