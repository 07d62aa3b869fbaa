"""How much a picture keeps, and that its maps' blocks are the definition's."""

from __future__ import annotations

import numpy as np
import pytest

from looks import taken
from sightline import reference_statistics
from sightline.look.sizes import CELLS, MOST_KEYS, NAMED, OVERVIEW, SIDE, coarser, per_block, sizes


@pytest.mark.parametrize("heads", [1, 3, 12, 32, 128])
@pytest.mark.parametrize(
    "length", [1, 2, 8, 255, 256, 257, 470, 499, 1024, 2049, 4096, 100_000, 131_071, 131_072]
)
def test_sizes_keep_their_budget_and_fit_each_other(heads: int, length: int) -> None:
    found = sizes(heads, length, length)
    assert found.pooled[0] == found.pooled[1] <= min(OVERVIEW, length)
    assert found.fine[0] == found.fine[1] <= min(SIDE, length)
    assert found.pooled[0] > min(OVERVIEW / 2, length - 1)  # no coarser than it must be
    assert heads * found.fine[0] * found.fine[1] <= max(CELLS, heads * OVERVIEW**2)
    assert 1 <= found.top_keys <= min(MOST_KEYS, length)
    assert heads * length * found.top_keys <= max(NAMED, heads * length)
    assert found.fine[0] == length or found.fine[0] % found.pooled[0] == 0


def test_blocks_are_of_one_size_where_they_can_be() -> None:
    assert sizes(1, 470, 470).pooled == (235, 235)
    assert sizes(1, 100_000, 131_072) == type(sizes(1, 1, 1))((250, 256), (2000, 2048), 8)
    assert sizes(12, 470, 470).fine == (470, 470)
    assert sizes(32, 131_072, 131_072).fine == (512, 512)
    assert sizes(1, 1, 131_072).fine == (1, 2048)


def test_one_long_head_stays_under_64_mib() -> None:
    found = sizes(1, 131_072, 131_072)
    numbers = 131_072 * (6 * 4 + found.top_keys * 12)
    assert numbers + 4 * (found.fine[0] * found.fine[1] + found.pooled[0] * found.pooled[1]) < 64 << 20


@pytest.mark.parametrize(
    ("queries", "keys", "fine", "pooled"),
    [
        (47, 31, (47, 31), (10, 7)),  # from single positions to anything
        (47, 31, (24, 16), (8, 4)),  # from blocks to blocks of blocks, of unequal sizes
        (48, 32, (12, 8), (12, 8)),
        (5, 3, (5, 3), (1, 1)),
    ],
)
def test_coarser_blocks_are_the_definition(
    queries: int, keys: int, fine: tuple[int, int], pooled: tuple[int, int]
) -> None:
    _, steps = taken(2, queries, keys)
    found = coarser(reference_statistics.pooled(steps, *fine).astype(np.float32), *pooled)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reference_statistics.pooled(steps, *pooled), rtol=1e-6)


@pytest.mark.parametrize(("length", "blocks"), [(10, 3), (7, 7), (131_071, 256), (1, 1)])
def test_per_block_counts_the_positions(length: int, blocks: int) -> None:
    expected = np.bincount(np.arange(length) * blocks // length, minlength=blocks)
    np.testing.assert_array_equal(per_block(length, blocks), expected)
