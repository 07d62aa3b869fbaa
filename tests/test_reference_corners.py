"""The definition at its corners: nothing to see, NaN and Inf, empty arrays, types and forms."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from sightline import reference
from test_reference import KEYS, LN2, LN3, VALUES, column, flat

# ── Corners ──


def test_a_query_that_sees_nothing() -> None:
    steps = reference.attention(column(1, 1), KEYS, VALUES, mask=np.array([[False] * 3, [True] * 3]))
    assert flat(steps.output)[0] == 0
    assert flat(steps.weights)[:3] == [0, 0, 0]
    assert steps.lse[0] == -math.inf
    assert steps.max_score[0] == -math.inf
    assert flat(steps.output)[1] == pytest.approx(20)


def test_a_query_that_sees_nothing_but_a_sink() -> None:
    steps = reference.attention(column(1), KEYS, VALUES, key_lengths=0, sinks=np.array([1.25]))
    assert flat(steps.output) == [0]
    assert flat(steps.lse) == [1.25]
    assert flat(steps.max_score) == [-math.inf]


def test_a_sink_of_minus_infinity_is_no_sink() -> None:
    steps = reference.attention(column(1), KEYS, VALUES, sinks=np.array([-math.inf]))
    assert flat(steps.output) == pytest.approx([20])


@pytest.mark.parametrize("sink", [math.inf, math.nan])
def test_an_undefined_sink_makes_its_head_undefined(sink: float) -> None:
    two = np.stack([KEYS, KEYS])
    steps = reference.attention(
        two, two, two, sinks=np.array([sink, 0.0]), mask=np.array([False, True, True])
    )
    assert np.isnan(steps.output[0]).all()
    assert np.isnan(steps.lse[0]).all()
    assert np.isnan(steps.max_score[0]).all()
    assert np.isfinite(steps.output[1]).all()
    assert np.isfinite(steps.lse[1]).all()
    empty = reference.attention(two, two, two, sinks=np.array([sink, 0.0]), key_lengths=0)
    assert np.isnan(empty.output[0]).all()
    assert (empty.output[1] == 0).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_a_query_does_not_see_never_reaches_it(bad: float) -> None:
    keys, values = column(0, LN2, bad), column(6, 12, bad)
    for hidden in (
        {"mask": np.array([True, True, False])},
        {"key_lengths": 2},
        {"window": (2, 0), "query_offset": 1},
    ):
        steps = reference.attention(column(1), keys, values, **hidden)
        assert flat(steps.output) == pytest.approx([10])
        assert flat(steps.lse) == pytest.approx([LN3])


def test_a_score_of_minus_infinity_hides_the_value() -> None:
    by_bias = reference.attention(column(1), KEYS, column(6, 12, math.nan), bias=np.array([0, 0, -np.inf]))
    by_product = reference.attention(column(1), column(0, LN2, -math.inf), column(6, 12, math.inf))
    assert flat(by_bias.output) == pytest.approx([10])
    assert flat(by_product.output) == pytest.approx([10])


def test_scores_that_are_all_minus_infinity_are_no_keys_at_all() -> None:
    steps = reference.attention(column(1), KEYS, VALUES, bias=np.full(3, -np.inf))
    assert flat(steps.output) == [0]
    assert flat(steps.lse) == [-math.inf]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_undefined_score_makes_its_row_undefined_and_no_other(bad: float) -> None:
    steps = reference.attention(column(1, 1, 1), column(0, LN2, bad), VALUES, causal=True)
    assert flat(steps.output)[:2] == pytest.approx([6, 10])
    assert math.isnan(steps.output[2, 0])
    assert math.isnan(steps.lse[2])
    assert math.isnan(steps.max_score[2])


def test_a_softcap_makes_infinite_scores_finite() -> None:
    steps = reference.attention(column(1), column(math.inf, -math.inf), column(1, 0), softcap=LN2 / 2)
    assert flat(steps.output) == pytest.approx([2 / 3])


def test_infinite_values_in_sight() -> None:
    values = np.array([[1.0, math.inf, math.inf], [1.0, 2.0, -math.inf], [1.0, math.nan, 1.0]])
    output = reference.attention(column(1, 1, 1), KEYS, values, causal=True).output
    np.testing.assert_array_equal(output[0], [1, math.inf, math.inf])
    np.testing.assert_array_equal(output[1], [1, math.inf, math.nan])
    np.testing.assert_array_equal(output[2], [1, math.nan, math.nan])


def test_scores_too_large_for_exp() -> None:
    steps = reference.attention(column(1), column(5000, 5000 + LN3), column(0, 4), scale=1.0)
    assert flat(steps.output) == pytest.approx([3])
    assert flat(steps.lse) == pytest.approx([5000 + math.log(4)])


@pytest.mark.parametrize(("queries", "keys"), [(0, 3), (3, 0), (0, 0)])
def test_empty_lengths(queries: int, keys: int) -> None:
    steps = reference.attention(np.ones((2, queries, 4)), np.ones((2, keys, 4)), np.ones((2, keys, 5)))
    assert steps.output.shape == (2, queries, 5)
    assert steps.weights.shape == (2, queries, keys)
    assert (steps.output == 0).all()
    assert steps.lse.shape == (2, queries)
    assert np.isneginf(steps.lse).all()


def test_no_sequences() -> None:
    assert reference.attention(*[np.ones((0, 2, 3, 4))] * 3).output.shape == (0, 2, 3, 4)


# ── Forms ──


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_every_type_is_computed_in_float64(dtype: Any) -> None:
    rng = np.random.default_rng(3)
    rounded = [rng.standard_normal((2, 5, 8)).astype(dtype) for _ in range(3)]
    steps = reference.attention(*rounded)
    exact = reference.attention(*(x.astype(np.float64) for x in rounded))
    assert steps.output.dtype == np.float64
    np.testing.assert_array_equal(steps.output, exact.output)


def test_a_plain_array_is_one_head_without_a_head_axis() -> None:
    rng = np.random.default_rng(4)
    query, key, value = rng.standard_normal((3, 4)), rng.standard_normal((6, 4)), rng.standard_normal((6, 2))
    plain = reference.attention(query, key, value)
    headed = reference.attention(query[None], key[None], value[None])
    for name in ("scores", "weights", "output", "lse", "positions"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(headed, name)[0])
    output, lse = reference.output_and_lse(query, key, value, layout="BLHD")
    np.testing.assert_array_equal(output, plain.output)
    np.testing.assert_array_equal(lse, plain.lse)


def test_output_and_lse_are_those_of_the_steps() -> None:
    rng = np.random.default_rng(5)
    query, key = rng.standard_normal((2, 3, 4, 8)), rng.standard_normal((1, 6, 2, 8))
    steps = reference.attention(query, key, key, layout="BLHD", causal=True, query_offset=3)
    output, lse = reference.output_and_lse(query, key, key, layout="BLHD", causal=True, query_offset=3)
    assert steps.output.shape == (2, 3, 4, 8)
    assert steps.weights.shape == (2, 4, 3, 6)
    np.testing.assert_array_equal(output, steps.output)
    np.testing.assert_array_equal(lse, steps.lse)


def test_a_bad_call_is_refused_as_the_door_refuses_it() -> None:
    with pytest.raises(TypeError, match="bias"):
        reference.attention(KEYS, KEYS, KEYS, mask=np.zeros((3, 3)))
    with pytest.raises(ValueError, match="query_offset"):
        reference.attention(column(1), KEYS, VALUES, causal=True)
