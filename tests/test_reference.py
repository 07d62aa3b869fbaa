"""The definition against examples worked out by hand, and against plain loops over single numbers."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sightline import reference

Array = NDArray[Any]
LN2, LN3 = math.log(2), math.log(3)


def column(*numbers: float) -> Array:
    """(L, 1): queries, keys or values of dimension 1, one head."""
    return np.array(numbers, float)[:, None]


def flat(x: Array) -> list[float]:
    return [float(number) for number in x.ravel()]


# ── Worked by hand: one head, D = 1. Keys 0, ln 2, ln 3 give a query of 1 the weights 1 : 2 : 3 ──

KEYS = column(0.0, LN2, LN3)
VALUES = column(6.0, 12.0, 30.0)


def test_five_steps() -> None:
    steps = reference.attention(column(2.0), KEYS, VALUES, scale=0.5)
    assert flat(steps.scores) == [0.0, 2 * LN2, 2 * LN3]
    assert flat(steps.scaled) == pytest.approx([0.0, LN2, LN3])
    assert flat(steps.masked) == pytest.approx([0.0, LN2, LN3])
    assert flat(steps.weights) == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    assert flat(steps.output) == pytest.approx([(6 + 24 + 90) / 6])
    assert flat(steps.lse) == pytest.approx([math.log(6)])
    assert flat(steps.max_score) == pytest.approx([LN3])


def test_scale_defaults_to_one_over_root_dim() -> None:
    query, key = np.full((1, 4), 3.0), np.full((1, 4), 5.0)
    assert flat(reference.attention(query, key, key).scaled) == [60.0 / 2]


def test_causal_sees_itself_and_the_past() -> None:
    steps = reference.attention(column(1, 1, 1), KEYS, VALUES, causal=True)
    assert steps.weights == pytest.approx(np.array([[1, 0, 0], [1 / 3, 2 / 3, 0], [1 / 6, 2 / 6, 3 / 6]]))
    assert flat(steps.output) == pytest.approx([6, 10, 20])


@pytest.mark.parametrize(
    ("offset", "visible"),
    [(0, ["x..", "xx."]), (1, ["xx.", "xxx"]), (-1, ["...", "x.."]), (7, ["xxx", "xxx"])],
)
def test_causal_offset_moves_the_diagonal(offset: int, visible: list[str]) -> None:
    steps = reference.attention(column(1, 1), KEYS, VALUES, causal=True, query_offset=offset)
    assert picture(steps.seen) == visible


@pytest.mark.parametrize(
    ("window", "visible"),
    [
        ((0, 0), ["x...", ".x..", "..x.", "...x"]),
        ((1, 0), ["x...", "xx..", ".xx.", "..xx"]),
        ((0, 2), ["xxx.", ".xxx", "..xx", "...x"]),
        ((1, None), ["xxxx", "xxxx", ".xxx", "..xx"]),
        ((None, 1), ["xx..", "xxx.", "xxxx", "xxxx"]),
        ((None, None), ["xxxx"] * 4),
    ],
)
def test_window_includes_both_ends(window: tuple[int | None, int | None], visible: list[str]) -> None:
    four = column(1, 2, 3, 4)
    assert picture(reference.attention(four, four, four, window=window).seen) == visible


def test_causal_cuts_the_right_of_a_window() -> None:
    four = column(1, 2, 3, 4)
    steps = reference.attention(four, four, four, window=(1, 3), causal=True)
    assert picture(steps.seen) == ["x...", "xx..", ".xx.", "..xx"]


def picture(seen: Array) -> list[str]:
    return ["".join("x" if one else "." for one in row) for row in seen]


def test_mask_is_true_where_one_may_attend() -> None:
    steps = reference.attention(column(1), KEYS, VALUES, mask=np.array([[True, False, True]]))
    assert flat(steps.weights) == pytest.approx([1 / 4, 0, 3 / 4])
    assert flat(steps.weights)[1] == 0
    assert flat(steps.masked)[1] == -math.inf


def test_bias_is_added_after_scale_and_softcap() -> None:
    steps = reference.attention(
        column(0), KEYS, VALUES, scale=9.0, softcap=2.0, bias=np.array([[LN3, LN2, 0.0]])
    )
    assert flat(steps.weights) == pytest.approx([3 / 6, 2 / 6, 1 / 6])


def test_softcap_bounds_the_scaled_score() -> None:
    steps = reference.attention(column(1), column(0.0, 3.0, -1e6), VALUES, softcap=2.0)
    assert flat(steps.capped) == pytest.approx([0.0, 2 * math.tanh(1.5), -2.0])
    assert flat(steps.scaled) == [0.0, 3.0, -1e6]


def test_sink_takes_weight_and_gives_nothing() -> None:
    steps = reference.attention(column(1), KEYS, VALUES, sinks=np.array([math.log(6)]), scale=1.0)
    assert flat(steps.weights) == pytest.approx([1 / 12, 2 / 12, 3 / 12])
    assert flat(steps.output) == pytest.approx([10])
    assert flat(steps.lse) == pytest.approx([math.log(12)])
    assert flat(steps.max_score) == pytest.approx([LN3])


def test_sink_is_neither_scaled_nor_capped() -> None:
    steps = reference.attention(
        column(0), column(0), column(1), sinks=np.array([LN3]), scale=5.0, softcap=0.1
    )
    assert flat(steps.weights) == pytest.approx([1 / 4])


def test_alibi_takes_slope_times_distance_on_both_sides() -> None:
    steps = reference.attention(
        column(0), column(0, 0, 0, 0), column(1, 2, 3, 4), alibi_slopes=np.array([0.5]), query_offset=2
    )
    assert flat(steps.masked) == [-1.0, -0.5, 0.0, -0.5]


def test_score_mod_comes_after_softcap_and_before_bias() -> None:
    def double(score: Array, batch: int, head: int, p: Array, j: Array) -> Array:
        return 2 * score

    steps = reference.attention(
        column(1), column(1e9), column(1), softcap=3.0, score_mod=double, bias=np.array([[10.0]])
    )
    assert flat(steps.masked) == [16.0]


def test_score_mod_is_told_batch_head_and_positions() -> None:
    def tell(score: Array, batch: int, head: int, p: Array, j: Array) -> Array:
        return 1000.0 * batch + 100.0 * head + 10.0 * p + j

    query = np.zeros((2, 3, 2, 4, 1))  # two axes of batch
    key = np.zeros((2, 3, 1, 5, 1))
    masked = reference.attention(query, key, key, score_mod=tell, query_offset=2).masked
    assert masked[1, 2, 1, 3, 4] == 5000 + 100 + 10 * (2 + 3) + 4
    assert masked[0, 1, 0, 0, 2] == 1000 + 20 + 2


def test_score_mod_can_hide_a_key() -> None:
    steps = reference.attention(
        column(1), KEYS, column(6, math.nan, 30), score_mod=lambda s, b, h, p, j: np.where(j == 1, -np.inf, s)
    )
    assert flat(steps.weights) == pytest.approx([1 / 4, 0, 3 / 4])
    assert flat(steps.output) == pytest.approx([24])


def test_consecutive_query_heads_share_a_key_head() -> None:
    key = np.array([0.0, 1.0, 2.0])[:, None, None]  # Hkv = 3, one key each
    query = np.ones((6, 1, 1))
    assert flat(reference.attention(query, key, key).output) == [0, 0, 1, 1, 2, 2]


# ── Plain loops over single numbers, for all options at once ──


def attend_one(query: list[float], keys: Array, values: Array, modify: Any, may: Any, sink: float) -> Any:
    """One query by scalar arithmetic: output, lse, max_score, weights."""
    scores = {}
    for j in range(len(keys)):
        score = modify(sum(q * float(k) for q, k in zip(query, keys[j], strict=True)), j)
        if may(j) and score != -math.inf:
            scores[j] = score
    total = sum(math.exp(score) for score in scores.values()) + math.exp(sink)
    weights = [math.exp(scores[j]) / total if j in scores else 0.0 for j in range(len(keys))]
    output = [sum(weights[j] * float(values[j, d]) for j in scores) for d in range(values.shape[1])]
    lse = math.log(total) if total else -math.inf
    return output, lse, max(scores.values(), default=-math.inf), weights


@pytest.mark.parametrize("layout", ["BHLD", "BLHD"])
def test_everything_against_plain_loops(layout: str) -> None:
    rng = np.random.default_rng(7)
    batch, heads, kv_heads, queries, keys, dim, value_dim = 3, 4, 2, 3, 6, 5, 2
    query = rng.standard_normal((batch, heads, queries, dim))
    key = rng.standard_normal((batch, kv_heads, keys, dim))
    value = rng.standard_normal((batch, kv_heads, keys, value_dim))
    mask = rng.random((batch, 1, queries, keys)) < 0.7
    bias = np.where(
        rng.random((heads, queries, keys)) < 0.2, -np.inf, rng.standard_normal((heads, queries, keys))
    )
    sinks, slopes = rng.standard_normal(heads), rng.random(heads)
    offsets, lengths = [0, 3, -2], [6, 4, 0]
    left, right, scale, softcap = 3, 1, -0.7, 1.5

    given = [x.swapaxes(1, 2) if layout == "BLHD" else x for x in (query, key, value)]
    steps = reference.attention(
        *given,
        mask=mask,
        bias=bias,
        causal=True,
        window=(left, right),
        query_offset=np.array(offsets),
        key_lengths=lengths,
        scale=scale,
        softcap=softcap,
        sinks=sinks,
        alibi_slopes=slopes,
        score_mod=lambda score, b, h, p, j: score + 0.01 * (b + h) * (p - j),
        layout=layout,
    )
    output = steps.output.swapaxes(1, 2) if layout == "BLHD" else steps.output
    for b, h, i in product(range(batch), range(heads), range(queries)):
        p = offsets[b] + i

        def modify(score: float, j: int, b: int = b, h: int = h, i: int = i, p: int = p) -> float:
            capped = softcap * math.tanh(score * scale / softcap)
            told = capped + 0.01 * (b + h) * (p - j)
            return float(told + bias[h, i, j] - slopes[h] * abs(p - j))

        def may(j: int, b: int = b, i: int = i, p: int = p) -> bool:
            return bool(mask[b, 0, i, j]) and j < lengths[b] and j <= p and p - left <= j <= p + right

        shared = (b, h // 2)
        want = attend_one(list(query[b, h, i]), key[shared], value[shared], modify, may, float(sinks[h]))
        assert flat(output[b, h, i]) == pytest.approx(want[0], abs=1e-14)
        assert steps.lse[b, h, i] == pytest.approx(want[1])
        assert steps.max_score[b, h, i] == pytest.approx(want[2])
        assert flat(steps.weights[b, h, i]) == pytest.approx(want[3])
