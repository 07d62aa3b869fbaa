"""Every statistic of the reference, against numbers worked out by hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sightline import reference
from sightline.reference_statistics import see
from sightline.see import Received, See
from test_reference import KEYS, VALUES, column

if TYPE_CHECKING:
    from sightline.reference import Steps

WEIGHTS = np.array([[1, 0, 0], [1 / 3, 2 / 3, 0], [1 / 6, 2 / 6, 3 / 6]])


@pytest.fixture
def steps() -> Steps:
    """Three queries and three keys, causal, with the weights above."""
    return reference.attention(column(1, 1, 1), KEYS, VALUES, causal=True)


def test_nothing_unless_asked(steps: Steps) -> None:
    seen = see(steps, See())
    assert [getattr(seen, name) for name in seen.__slots__] == [None] * len(seen.__slots__)


def test_lse_and_max_score(steps: Steps) -> None:
    seen = see(steps, See(lse=True, max_score=True))
    assert seen.lse == pytest.approx(np.log([1, 3, 6]))
    assert seen.max_score == pytest.approx(np.log([1, 2, 3]))


def test_entropy(steps: Steps) -> None:
    two = math.log(3) - 2 / 3 * math.log(2)
    three = math.log(6) - 2 / 6 * math.log(2) - 3 / 6 * math.log(3)
    assert see(steps, See(entropy=True)).entropy == pytest.approx(np.array([0, two, three]))


def test_entropy_of_equal_weights_is_the_logarithm_of_their_number() -> None:
    steps = reference.attention(column(0), column(*range(7)), column(*range(7)))
    assert see(steps, See(entropy=True)).entropy == pytest.approx(np.log([7]))


def test_entropy_with_a_sink_is_over_the_keys_alone() -> None:
    steps = reference.attention(column(0), column(0), column(0), sinks=np.array([0.0]))  # a weight of ½
    assert see(steps, See(entropy=True)).entropy == pytest.approx(np.array([0.5 * math.log(2)]))


def test_distance(steps: Steps) -> None:
    assert see(steps, See(distance=True)).distance == pytest.approx(np.array([0, 1 / 3, 2 / 6 + 2 / 6]))


def test_distance_is_from_where_the_query_stands() -> None:
    steps = reference.attention(column(0), column(0, 0), column(0, 0), query_offset=5)
    assert see(steps, See(distance=True)).distance == pytest.approx(np.array([(5 + 4) / 2]))


def test_distance_counts_forwards_too() -> None:
    steps = reference.attention(column(0), column(0, 0, 0), column(0, 0, 0), query_offset=1)
    assert see(steps, See(distance=True)).distance == pytest.approx(np.array([(1 + 0 + 1) / 3]))


def test_received(steps: Steps) -> None:
    everything = see(steps, See(received=True)).received
    assert everything == pytest.approx(WEIGHTS.sum(axis=0))
    last_two = see(steps, See(received=Received(queries=slice(-2, None)))).received
    assert last_two == pytest.approx(np.array([1 / 3 + 1 / 6, 2 / 3 + 2 / 6, 3 / 6]))
    largest = see(steps, See(received=Received(queries=slice(1, None), reduce="max"))).received
    assert largest == pytest.approx(np.array([1 / 3, 2 / 3, 3 / 6]))
    nobody = see(steps, See(received=Received(queries=slice(0), reduce="max"))).received
    assert (nobody == 0).all()


def test_top_keys(steps: Steps) -> None:
    top = see(steps, See(top_keys=2)).top_keys
    assert top is not None
    np.testing.assert_array_equal(top.indices, [[0, -1], [1, 0], [2, 1]])
    assert top.weights == pytest.approx(np.array([[1, 0], [2 / 3, 1 / 3], [3 / 6, 2 / 6]]))


def test_top_keys_beyond_the_keys_there_are(steps: Steps) -> None:
    top = see(steps, See(top_keys=5)).top_keys
    assert top is not None
    np.testing.assert_array_equal(top.indices[2], [2, 1, 0, -1, -1])
    assert top.weights[2] == pytest.approx(np.array([3 / 6, 2 / 6, 1 / 6, 0, 0]))


def test_of_equal_weights_the_first_key_comes_first() -> None:
    steps = reference.attention(column(1), column(1, 2, 1, 2), column(0, 0, 0, 0))
    top = see(steps, See(top_keys=4)).top_keys
    assert top is not None
    np.testing.assert_array_equal(top.indices, [[1, 3, 0, 2]])


def test_a_weight_too_small_for_a_number_still_comes_before_the_unseen() -> None:
    steps = reference.attention(
        column(1), column(0, 0, 5000), column(0, 0, 0), mask=np.array([False, True, True])
    )
    top = see(steps, See(top_keys=3)).top_keys
    assert top is not None
    np.testing.assert_array_equal(top.indices, [[2, 1, -1]])


def test_pooled(steps: Steps) -> None:
    def pool(rows: int, columns: int) -> np.ndarray:
        return np.asarray(see(steps, See(pooled=(rows, columns))).pooled)

    assert pool(3, 3) == pytest.approx(WEIGHTS)
    assert pool(1, 1) == pytest.approx(np.array([[3.0]]))
    assert pool(2, 1) == pytest.approx(np.array([[2.0], [1.0]]))  # queries 0 and 1, then 2
    assert pool(1, 2) == pytest.approx(np.array([[1 + 1 / 3 + 2 / 3 + 1 / 6 + 2 / 6, 3 / 6]]))
    four = reference.attention(column(0, 0, 0, 0), column(0), column(0))
    in_three = see(four, See(pooled=(3, 1))).pooled
    assert in_three == pytest.approx(np.array([[2.0], [1.0], [1.0]]))  # i · 3 // 4 is 0, 0, 1, 2
    spread = np.zeros((3, 6))
    spread[:, [0, 2, 4]] = WEIGHTS
    assert pool(3, 6) == pytest.approx(spread)


def test_rows(steps: Steps) -> None:
    assert see(steps, See(rows=(2, 0, 2))).rows == pytest.approx(WEIGHTS[[2, 0, 2]])
    assert see(steps, See(rows=())).rows.shape == (0, 3)


def test_diagonals() -> None:
    steps = reference.attention(column(1, 1), KEYS, VALUES)  # both rows 1 : 2 : 3
    assert see(steps, See(diagonals=True)).diagonals == pytest.approx(np.array([1, 1 + 2, 2 + 3, 3]) / 6)


EVERYTHING = See(
    lse=True,
    max_score=True,
    entropy=True,
    distance=True,
    received=True,
    top_keys=2,
    pooled=(2, 2),
    rows=(0,),
    diagonals=True,
)


def test_heads_stand_in_front_whatever_the_layout() -> None:
    rng = np.random.default_rng(0)
    query, key = rng.standard_normal((2, 3, 4, 8)), rng.standard_normal((2, 5, 2, 8))
    steps = reference.attention(query, key, key, layout="BLHD", causal=True, query_offset=2)
    stacked = see(steps, EVERYTHING)
    one = see(
        reference.attention(query[1, :, 3], key[1, :, 1], key[1, :, 1], causal=True, query_offset=2),
        EVERYTHING,
    )
    assert stacked.top_keys is not None
    assert one.top_keys is not None
    for name in stacked.__slots__:
        if name == "top_keys":
            np.testing.assert_array_equal(stacked.top_keys.indices[1, 3], one.top_keys.indices)
            np.testing.assert_allclose(stacked.top_keys.weights[1, 3], one.top_keys.weights, rtol=1e-13)
        else:
            np.testing.assert_allclose(
                getattr(stacked, name)[1, 3], getattr(one, name), rtol=1e-13, err_msg=name
            )


def test_a_query_that_sees_nothing_has_zeros() -> None:
    seen = see(reference.attention(column(1), KEYS, VALUES, key_lengths=0), EVERYTHING)
    for name in ("entropy", "distance", "received", "pooled", "rows", "diagonals"):
        assert (getattr(seen, name) == 0).all(), name
    assert seen.top_keys is not None
    assert (seen.top_keys.indices == -1).all()
    assert (seen.top_keys.weights == 0).all()
    assert np.isneginf(seen.lse).all()
    assert np.isneginf(seen.max_score).all()


def test_an_undefined_query_is_nan_where_it_looks_and_nowhere_else() -> None:
    steps = reference.attention(column(1, math.nan, 1), KEYS, VALUES, causal=True)
    seen = see(steps, EVERYTHING)
    np.testing.assert_array_equal(np.isnan(seen.entropy), [False, True, False])
    np.testing.assert_array_equal(np.isnan(seen.distance), [False, True, False])
    np.testing.assert_array_equal(np.isnan(seen.received), [True, True, False])
    np.testing.assert_array_equal(np.isnan(seen.diagonals), [False, True, True, False, False])
    assert seen.top_keys is not None
    np.testing.assert_array_equal(seen.top_keys.indices, [[0, -1], [-1, -1], [2, 1]])
    np.testing.assert_array_equal(np.isnan(seen.top_keys.weights), [[False] * 2, [True] * 2, [False] * 2])


@pytest.mark.parametrize(("queries", "keys"), [(0, 3), (3, 0), (0, 0)])
def test_empty_lengths(queries: int, keys: int) -> None:
    steps = reference.attention(np.ones((2, queries, 1)), np.ones((2, keys, 1)), np.ones((2, keys, 1)))
    seen = see(steps, See(entropy=True, received=True, pooled=(2, 2), diagonals=True, top_keys=2))
    assert seen.entropy.shape == (2, queries)
    assert seen.received.shape == (2, keys)
    assert seen.pooled.shape == (2, 2, 2)
    assert seen.diagonals.shape == (2, max(queries + keys - 1, 0))
    assert seen.top_keys is not None
    assert seen.top_keys.indices.shape == (2, queries, 2)
