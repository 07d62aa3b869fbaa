"""How much of the score matrix a call works on: the tiles that any query sees anything of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sightline.masks import Tile, intervals, tiles

if TYPE_CHECKING:
    from sightline.reference_call import Call

MOST = (
    64  # heads looked at where each has tiles of its own; beyond that many, evenly spread ones stand for all
)


def visible_fraction(call: Call, rows: int, keys: int) -> float:
    """Tiles of `rows` queries × `keys` keys that are not empty, of all; 0 where there is none."""
    problem = call.problem
    every = math.ceil(problem.queries / rows) * math.ceil(problem.keys / keys)
    shape = (*problem.batch, problem.heads)
    count = math.prod(shape)
    if not every or not count:
        return 0.0
    known: dict[object, int] = {}
    found = []
    for number in np.unique(np.linspace(0, count - 1, min(count, MOST)).round().astype(np.int64)):
        index = tuple(int(i) for i in np.unravel_index(number, shape))
        alike = _what_decides(call, index)
        if alike not in known:
            known[alike] = _visible_tiles(call, index, rows, keys)
        found.append(known[alike])
    return float(np.mean(found)) / every


def _what_decides(call: Call, index: tuple[int, ...]) -> object:
    """Equal for two heads whose tiles are equal: offset, key length, and which part of the mask they read."""
    batch = index[:-1]
    where = None
    if call.mask is not None:
        where = sum(i * stride for i, stride in zip(index, call.mask.strides, strict=False))
    return int(call.offsets[batch]), int(call.key_lengths[batch]), where


def _visible_tiles(call: Call, index: tuple[int, ...], rows: int, keys: int) -> int:
    problem, batch = call.problem, index[:-1]
    positions = np.arange(problem.queries) + call.offsets[batch]
    first, end = intervals(problem.band, positions, int(call.key_lengths[batch]))
    mask = None if call.mask is None else call.mask[index]
    kinds = tiles(first, end, rows, keys, mask, key_length=problem.keys)
    return int(np.count_nonzero(kinds != Tile.EMPTY))
