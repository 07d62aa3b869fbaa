"""Who may see whom: intervals, tiles and pictures against the definition, cell by cell."""

import doctest
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.masks import Band, Bools, Ints, Tile, band, draw, intervals, tiles, visible

SEMANTICS = Path(__file__).parent.parent / "docs" / "semantics.md"

reaches = st.none() | st.integers(0, 12)
lengths = st.integers(0, 20)


def allowed(p: int, j: int, key_length: int, *, causal: bool, window: tuple[int | None, int | None]) -> bool:
    """The definition, for one query position and one key."""
    left, right = window
    return (
        j < key_length
        and (not causal or j <= p)
        and (left is None or p - left <= j)
        and (right is None or j <= p + right)
    )


@given(st.booleans(), reaches, reaches, st.integers(-25, 25), lengths, lengths)
def test_intervals_hold_exactly_the_keys_that_the_definition_allows(
    causal: bool, left: int | None, right: int | None, offset: int, queries: int, keys: int
) -> None:
    window = (left, right)
    positions = np.arange(queries) + offset
    first, end = intervals(band(causal, window), positions, keys)
    assert first.dtype == end.dtype == np.int64
    assert first.shape == end.shape == positions.shape
    assert np.all((first >= 0) & (first <= end) & (end <= keys))
    expected = [
        [allowed(p, j, keys, causal=causal, window=window) for j in range(keys)] for p in positions.tolist()
    ]
    np.testing.assert_array_equal(visible(first, end, keys), np.reshape(expected, (queries, keys)))


def test_each_sequence_may_have_its_own_positions_and_key_length() -> None:
    positions = np.array([[0, 1, 2], [5, 6, 7]])
    first, end = intervals(Band(2, 0), positions, np.array([[10], [6]]))
    np.testing.assert_array_equal(first, [[0, 0, 0], [3, 4, 5]])
    np.testing.assert_array_equal(end, [[1, 2, 3], [6, 6, 6]])


def test_positions_at_the_ends_of_what_is_allowed_do_not_overflow() -> None:
    first, end = intervals(Band(2**40 - 1, 2**40 - 1), np.array([-(2**31), 2**31]), 7)
    np.testing.assert_array_equal(first, [0, 0])
    np.testing.assert_array_equal(end, [7, 7])


@pytest.mark.parametrize(
    ("causal", "window", "expected"),
    [
        (False, None, Band(None, None)),
        (True, None, Band(None, 0)),
        (False, (3, 5), Band(3, 5)),
        (True, (3, 5), Band(3, 0)),
        (True, (3, None), Band(3, 0)),
        (True, (None, 0), Band(None, 0)),
    ],
)
def test_causal_closes_the_right_side_of_a_window(
    causal: bool, window: tuple[int | None, int | None] | None, expected: Band
) -> None:
    assert band(causal, window) == expected


def tile_by_cells(seen: Bools, rows: int, keys: int) -> list[list[int]]:
    """Tiles by looking at every cell."""
    queries, key_length = seen.shape

    def kind(block: Bools) -> Tile:
        return Tile.FULL if block.all() else Tile.PARTIAL if block.any() else Tile.EMPTY

    return [
        [kind(seen[i : i + rows, j : j + keys]) for j in range(0, key_length, keys)]
        for i in range(0, queries, rows)
    ]


@st.composite
def pictures(draw: st.DrawFn) -> tuple[Ints, Ints, int]:
    """Any intervals, not only those of a band: (first, end, key_length)."""
    key_length = draw(st.integers(1, 20))
    pairs = draw(st.lists(st.tuples(st.integers(0, key_length), st.integers(0, key_length)), min_size=1))
    first, end = (np.array(side, np.int64) for side in zip(*map(sorted, pairs), strict=True))
    return first, end, key_length


@given(pictures(), st.integers(1, 7), st.integers(1, 7))
def test_tiles_of_intervals_are_those_of_the_cells(
    picture: tuple[Ints, Ints, int], rows: int, keys: int
) -> None:
    first, end, key_length = picture
    found = tiles(first, end, rows, keys, key_length=key_length)
    assert found.tolist() == tile_by_cells(visible(first, end, key_length), rows, keys)


@given(
    pictures(), st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**32), st.sampled_from([0.1, 0.5, 0.97])
)
def test_tiles_of_a_mask_are_those_of_the_cells(
    picture: tuple[Ints, Ints, int], rows: int, keys: int, seed: int, density: float
) -> None:
    first, end, key_length = picture
    mask = np.random.default_rng(seed).random((len(first), key_length)) < density
    found = tiles(first, end, rows, keys, mask)
    assert found.tolist() == tile_by_cells(visible(first, end, key_length, mask), rows, keys)


def test_tiles_reach_to_the_largest_end_where_nothing_says_how_many_keys_there_are() -> None:
    first, end = intervals(band(causal=True, window=None), np.arange(4), 100)
    assert tiles(first, end, 2, 2).tolist() == [[Tile.PARTIAL, Tile.EMPTY], [Tile.FULL, Tile.PARTIAL]]
    assert tiles(first, end, 2, 2, key_length=5).shape == (2, 3)


@pytest.mark.parametrize(("queries", "keys"), [(0, 5), (5, 0), (0, 0)])
def test_no_queries_or_no_keys_make_no_tiles(queries: int, keys: int) -> None:
    first, end = intervals(Band(None, 0), np.arange(queries), keys)
    shape = (-(-queries // 2), -(-keys // 2))
    assert tiles(first, end, 2, 2, key_length=keys).shape == shape
    assert tiles(first, end, 2, 2, np.ones((queries, keys), np.bool_)).shape == shape
    assert draw(first, end, key_length=keys) == f"({queries} queries, {keys} keys: nothing to draw)"


def test_a_small_picture_shows_every_pair() -> None:
    first, end = intervals(Band(2, 0), np.arange(5) + 3, 8)
    mask = np.ones((5, 8), np.bool_)
    mask[:, 5] = False
    assert draw(first, end, mask) == (
        "  key  0       4\n"
        "    0  · █ █ █ · · · ·\n"
        "    1  · · █ █ █ · · ·\n"
        "    2  · · · █ █ · · ·\n"
        "    3  · · · · █ · █ ·\n"
        "    4  · · · · · · █ █"
    )


def test_a_large_picture_shows_square_tiles_of_32_cells_at_most() -> None:
    first, end = intervals(Band(None, 0), np.arange(100), 200)
    lines = draw(first, end, key_length=200).splitlines()
    assert lines[0] == "  key  0       32      64      96      128     160     192"
    assert lines[1] == "    0  ░" + " ·" * 24
    assert lines[2] == "    8  █ ░" + " ·" * 23
    assert lines[13] == "   96  " + "█ " * 12 + "░" + " ·" * 12
    assert lines[14] == "(each cell: 8 queries × 8 keys; █ all seen, ░ some, · none)"
    assert len(lines) == 15


def test_a_picture_may_be_drawn_in_the_blocks_of_a_plan() -> None:
    first, end = intervals(Band(None, 0), np.arange(8), 8)
    assert draw(first, end, rows=2, keys=4).splitlines()[1:] == [
        "    0  ░ ·",
        "    2  ░ ·",
        "    4  █ ░",
        "    6  █ ░",
        "(each cell: 2 queries × 4 keys; █ all seen, ░ some, · none)",
    ]


def test_long_key_numbers_in_a_picture_do_not_run_together() -> None:
    first, end = intervals(Band(None, None), np.arange(1), 3 * 10**7)
    ruler = draw(first, end, key_length=3 * 10**7).splitlines()[0]
    assert ruler.split() == ["key", *(str(cell * 2**20) for cell in range(0, 29, 8))]


def test_the_drawings_in_the_documentation_are_what_draw_draws() -> None:
    examples = doctest.DocTestParser().get_examples(SEMANTICS.read_text(encoding="utf-8"))
    assert sum("█" in example.want for example in examples) >= 6
    failed, tried = doctest.testfile(str(SEMANTICS), module_relative=False, encoding="utf-8")
    assert tried == len(examples)
    assert failed == 0
