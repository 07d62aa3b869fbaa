"""P and dS as a matrix unit takes them: from the scores and dP of a tile to terms of bfloat16, in three forms.

    Pᵀ, dSᵀ    [16 keys, MATRIX_KEYS rows, term]      left factors of dV = Pᵀ·dO and dK = dSᵀ·Q (terms.row_of)
    dSᵀ        [MATRIX_KEYS keys, 16 rows, term]      the right factor of dQᵀ = Kᵀ·dSᵀ (terms.pair_of)

One pass over the tile: nothing is written but terms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu.amx import whole_tiles
from sightline.cpu.derivative import Row
from sightline.cpu.kinds import ADDRESS, INT
from sightline.cpu.softmax import UNROLL
from sightline.cpu.terms import ROWS, TILES, pair_of, row_of, store_terms, weight_terms

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.values import Pointer, Value


def derive(k: Kernel) -> Function:
    """S and dP → the terms of P and dS, up to whole MATRIX_KEYS, where both are 0.

    Parameters: arguments, workspace, first key of the tile, keys in it, vectors of rows.
    """
    with k.module.function("derive", ADDRESS, ADDRESS, INT, INT, INT) as f:
        a, w, first, n, vectors = f.arguments()
        with f.loop(0, vectors // 2, name="rows") as h:
            rows = [Row(k, f, a, w, h * 2 + v, careful=False, for_bias=False) for v in range(2)]
            with f.loop(0, whole_tiles(n), UNROLL, name="keys") as j:
                for u in range(0, UNROLL, 2):
                    made = [[row.key(j + x, first + j + x) for row in rows] for x in (u, u + 1)]
                    _store(k, w, j + u, h, made)
            for row in rows:
                row.end()
    return f


def _store(k: Kernel, w: Pointer, j: Value, h: Value, made: list[list[tuple[Value, Value]]]) -> None:
    """P and dS of two keys and two vectors of rows, in the forms that the sums asked for need."""
    wanted = k.key.gradients
    if "value" in wanted:
        for x in range(2):
            place = row_of(k, k.place(w, ROWS["scores"]), j + x, h)
            store_terms(k, place, *(weight_terms(k, p) for p, _ in made[x]))
    terms = [[weight_terms(k, ds) for _, ds in row] for row in made]
    if "key" in wanted:
        for x in range(2):
            store_terms(k, row_of(k, k.place(w, ROWS["d_scores"]), j + x, h), *terms[x])
    if "query" in wanted:
        for v in range(2):
            place = pair_of(k, k.place(w, TILES["d_scores"]), j, h * 2 + v)
            store_terms(k, place, terms[0][v], terms[1][v])
