"""How much of a call a picture keeps: blocks of its maps, and keys named for each query, within a budget.

Whatever the length, the maps of all heads together and the named keys stay a few dozen megabytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

OVERVIEW = 256  # blocks a side of the map that is seen at once
SIDE = 2048  # … and of the finer one
CELLS = 2**23  # of the finer maps of all heads: 32 MiB
NAMED = 2**20  # keys named in all: 12 MiB
MOST_KEYS = 8  # … for each query


@dataclass(frozen=True, slots=True)
class Sizes:
    """What to ask of a call, so that its picture is sharp where it can be and small where it must be."""

    pooled: tuple[int, int]
    """(R, C) of the overview."""
    fine: tuple[int, int]
    """(R2, C2) of the finer map; the same as `pooled` where there is nothing finer."""
    top_keys: int
    """Keys to name for each query."""


def sizes(heads: int, queries: int, keys: int) -> Sizes:
    """The sizes for a picture of `heads` heads, each of `queries` × `keys` weights."""
    most = min(SIDE, math.isqrt(CELLS // max(heads, 1)))
    pooled = even_blocks(queries, OVERVIEW), even_blocks(keys, OVERVIEW)
    fine = _finer(queries, pooled[0], most), _finer(keys, pooled[1], most)
    named = min(MOST_KEYS, keys, max(1, NAMED // max(heads * queries, 1)))
    return Sizes(pooled, fine, named)


def coarser(blocks: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """Sums of (H, R2, C2) blocks as (H, rows, columns) blocks of the same weights.

    Exact where R2 is the number of queries or a multiple of `rows`, as in `Sizes`: for R2 = m · R,
    ⌊⌊i · mR / L⌋ / m⌋ = ⌊i · R / L⌋.
    """
    _, had_rows, had_columns = blocks.shape
    if not blocks.size:
        return np.zeros((len(blocks), rows, columns), np.float32)
    down = np.add.reduceat(blocks, starts(had_rows, rows), axis=1, dtype=np.float64)
    return np.add.reduceat(down, starts(had_columns, columns), axis=2).astype(np.float32)


def per_block(length: int, blocks: int) -> NDArray[np.int64]:
    """How many of `length` neighbours lie in each block: i lies in block i · blocks // length."""
    return np.diff([*starts(length, blocks), length])


def starts(length: int, blocks: int) -> NDArray[np.int64]:
    """The first i of each block, ⌈b · length / blocks⌉."""
    return -(-np.arange(blocks) * length // max(blocks, 1))


def even_blocks(length: int, most: int) -> int:
    """At most `most` blocks: all of one size if they can be without being half as many, for an even picture."""
    if length <= most:
        return length
    return next((count for count in range(most, most // 2, -1) if length % count == 0), most)


def _finer(length: int, blocks: int, most: int) -> int:
    """Single positions if there is room, else a multiple of `blocks`, again all of one size if they can be."""
    if length <= most:
        return length
    largest = max(1, most // max(blocks, 1))
    even = (m for m in range(largest, largest // 2, -1) if length % (m * blocks) == 0)
    return blocks * next(even, largest)
