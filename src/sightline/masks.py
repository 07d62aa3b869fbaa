"""Who may see whom, as one interval of keys per query row, and as tiles that are empty, full or partial.

Causality, windows and key lengths all say "this query sees the keys from here to there", so one interval per
row holds them exactly, in O(L) memory; only a dense boolean mask needs a matrix. Kernels walk intervals and
skip empty tiles, people look at `draw`. This room knows plain ints and NumPy arrays, nothing about a call.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MOST_CELLS = 32  # a picture with more rows or columns than this is drawn by tiles
CELL_TEXT = ("·", "█", "░")  # indexed by Tile


class Band(NamedTuple):
    """What a query at position p may see: keys p − left ≤ j ≤ p + right, None being unbounded."""

    left: int | None
    right: int | None


class Tile(IntEnum):
    """What a block of queries sees of a block of keys."""

    EMPTY = 0  # no query of the block sees any key of the block
    FULL = 1  # every query sees every key: nothing to mask
    PARTIAL = 2  # something in between: the scores need masking


def band(causal: bool, window: tuple[int | None, int | None] | None) -> Band:  # noqa: FBT001
    """What `causal` and `window` leave together: causal means that nothing right of the query is seen."""
    left, right = (None, None) if window is None else window
    if causal:
        right = 0 if right is None else min(right, 0)
    return Band(left, right)


def intervals(band: Band, positions: Ints, key_length: int | Ints) -> tuple[Ints, Ints]:
    """The keys first ≤ j < end that the query at each position may see.

    Args:
        band: what may be seen around a position.
        positions: p of each query, (…, Lq). Positions may lie before the first key or after the last.
        key_length: how many keys there are; an array broadcasts against the positions.

    Returns:
        first, end: int64, shaped as the positions, 0 ≤ first ≤ end ≤ key_length. A row that sees nothing has
        end == first.
    """
    p = np.asarray(positions, dtype=np.int64)
    first = np.zeros_like(p) if band.left is None else np.maximum(p - band.left, 0)
    end = np.full_like(p, np.iinfo(np.int64).max) if band.right is None else p + band.right + 1
    first, end = np.minimum(first, key_length), np.minimum(end, key_length)
    return first, np.maximum(end, first)


def visible(first: Ints, end: Ints, key_length: int, mask: Bools | None = None) -> Bools:
    """The same as a matrix allowed[…, i, j], with a boolean mask applied if there is one: O(L²) memory."""
    j = np.arange(key_length)
    allowed: Bools = (first[..., None] <= j) & (j < end[..., None])
    return allowed if mask is None else allowed & mask


def tiles(
    first: Ints, end: Ints, rows: int, keys: int, mask: Bools | None = None, *, key_length: int | None = None
) -> NDArray[np.uint8]:
    """What each block of `rows` queries sees of each block of `keys` keys.

    Blocks are aligned at multiples of their size. Cells past the last query or the last key do not count:
    a last block is full when every query and key that exists in it is visible.

    Args:
        first: where each row's interval begins, (Lq,).
        end: where it ends.
        rows: queries in a block.
        keys: keys in a block.
        mask: (Lq, Lk), True where a query may attend.
        key_length: Lk; without it, the mask's width, or else the largest end.

    Returns:
        Tile values, (⌈Lq / rows⌉, ⌈Lk / keys⌉).
    """
    key_length = _width(end, mask, key_length)
    if mask is None:
        touched, covered = _tiles_of_intervals(first, end, rows, keys, key_length)
    else:
        touched, covered = _tiles_of_mask(first, end, rows, keys, mask)
    return np.where(covered, Tile.FULL, np.where(touched, Tile.PARTIAL, Tile.EMPTY)).astype(np.uint8)


def _width(end: Ints, mask: Bools | None, key_length: int | None) -> int:
    """Lk: as said, or else the mask's width, or else the largest end."""
    if key_length is not None:
        return key_length
    return int(end.max(initial=0)) if mask is None else mask.shape[1]


def _tiles_of_intervals(first: Ints, end: Ints, rows: int, keys: int, key_length: int) -> tuple[Bools, Bools]:
    """(touched, covered) in O(Lq + tiles): count the rows that reach, and the rows that fill, each block."""
    down, across = -(-len(first) // rows), -(-key_length // keys)
    row_block = np.arange(len(first)) // rows

    def rows_in(start: Ints, stop: Ints) -> Ints:
        """How many rows of each row block have the key block within start ≤ block < stop."""
        change = np.zeros((down, across + 1), dtype=np.int64)
        some = stop > start
        np.add.at(change, (row_block[some], start[some]), 1)
        np.add.at(change, (row_block[some], stop[some]), -1)
        return change.cumsum(axis=1)[:, :across]

    reached = rows_in(first // keys, np.where(end > first, -(-end // keys), 0))
    filled = rows_in(-(-first // keys), np.where(end >= key_length, across, end // keys))
    return reached > 0, filled == np.bincount(row_block, minlength=down)[:, None]


def _tiles_of_mask(first: Ints, end: Ints, rows: int, keys: int, mask: Bools) -> tuple[Bools, Bools]:
    """(touched, covered) with a dense mask: each cell is read once, a row block at a time to save memory."""
    queries, key_length = mask.shape
    edges = np.arange(0, key_length, keys)
    touched = np.zeros((-(-queries // rows), len(edges)), dtype=np.bool_)
    covered = np.zeros_like(touched)
    for block, i in enumerate(range(0, queries, rows)):
        own = slice(i, i + rows)
        seen = visible(first[own], end[own], key_length, mask[own])
        touched[block] = np.logical_or.reduceat(seen.any(axis=0), edges)
        covered[block] = np.logical_and.reduceat(seen.all(axis=0), edges)
    return touched, covered


def draw(
    first: Ints,
    end: Ints,
    mask: Bools | None = None,
    *,
    key_length: int | None = None,
    rows: int | None = None,
    keys: int | None = None,
) -> str:
    """A text picture, queries downwards and keys to the right: █ seen, · not seen, ░ seen in part.

    Up to 32 queries and keys every pair is a character. Larger cases are drawn by square tiles, or by blocks
    of `rows` × `keys` where those are given (a plan's, for instance), and a last line tells their size.
    """
    key_length = _width(end, mask, key_length)
    if len(first) == 0 or key_length == 0:
        return f"({len(first)} queries, {key_length} keys: nothing to draw)"
    side = 1
    while side * MOST_CELLS < max(len(first), key_length):
        side *= 2
    rows, keys = rows or side, keys or side
    kinds = tiles(first, end, rows, keys, mask, key_length=key_length)
    margin = max(len("query"), len(str(len(first)))) + 2
    lines = ["key".rjust(margin - 2) + "  " + _ruler(kinds.shape[1], keys)]
    for block, row in enumerate(kinds):
        label = str(block * rows).rjust(margin - 2)
        lines.append(label + "  " + " ".join(CELL_TEXT[kind] for kind in row))
    if rows > 1 or keys > 1:
        lines.append(f"(each cell: {rows} queries × {keys} keys; █ all seen, ░ some, · none)")
    return "\n".join(lines)


def _ruler(cells: int, keys: int) -> str:
    """Key numbers above every fourth cell (or eighth, …: as many as the longest number leaves room for)."""
    step = 4
    while 2 * step <= len(str(cells * keys)):
        step *= 2
    return "".join(str(cell * keys).ljust(2 * step) for cell in range(0, cells, step)).rstrip()
