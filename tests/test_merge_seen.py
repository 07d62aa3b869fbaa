"""Seen.merge: what was seen of the parts, joined, is what is seen of the whole."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

import sightline
from sightline import Received, See, Seen

Array = np.ndarray[Any, Any]
Edges = list[int]
HEADS, KEY_HEADS, QUERIES, KEYS = 4, 2, 23, 90
OVER_KEYS = See(lse=True, max_score=True, entropy=True, distance=True, top_keys=5, rows=(3, -1, 3))
OVER_QUERIES = replace(OVER_KEYS, received=True, diagonals=True)
CUTS = [[], [1], [30, 30], [7, 60, 89], [0, 90]]


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def inputs(keys: int = KEYS) -> tuple[Array, Array]:
    return 2 * numbers(2, HEADS, QUERIES, 8), numbers(2, KEY_HEADS, keys, 8, seed=1)


def spans(edges: Edges, length: int) -> list[slice]:
    return [slice(a, b) for a, b in zip([0, *edges], [*edges, length], strict=True)]


def of_keys(options: dict[str, Any], span: slice) -> dict[str, Any]:
    """The options of a call over some of the keys: masks and biases cut, positions counted from its first key."""
    made = {name: x for name, x in options.items() if name != "sinks"}
    for name in ("mask", "bias"):
        if name in made:
            made[name] = made[name][..., span]
    if "key_lengths" in made:
        made["key_lengths"] = np.clip(made["key_lengths"] - span.start, 0, span.stop - span.start)
    made["query_offset"] = made.get("query_offset", 0) - span.start
    return made


def over_keys(q: Array, k: Array, see: See, edges: Edges, **options: Any) -> Any:
    cut = spans(edges, k.shape[-2])
    parts = [sightline.look_only(q, k[..., s, :], see=see, **of_keys(options, s)) for s in cut]
    firsts = [s.start for s in cut]
    return Seen.merge(parts, see, over="keys", first_keys=firsts, sinks=options.get("sinks"))


def over_queries(q: Array, k: Array, see: See, edges: Edges, **options: Any) -> Any:
    parts = []
    for span in spans(edges, q.shape[-2]):
        here = options | {"query_offset": options.get("query_offset", 0) + span.start}
        here |= {name: options[name][..., span, :] for name in ("mask", "bias") if name in options}
        parts.append(sightline.look_only(q[..., span, :], k, see=see, **here))
    return Seen.merge(parts, see, over="queries")


def same(got: Seen, expected: Seen, *, exactly: bool = False) -> None:
    """Every field, with NaN and infinities in the same places."""
    for field in fields(Seen):
        mine, theirs = getattr(got, field.name), getattr(expected, field.name)
        assert (mine is None) == (theirs is None), field.name
        if field.name == "top_keys" and mine is not None:
            np.testing.assert_array_equal(mine.indices, theirs.indices)
            assert mine.indices.dtype == theirs.indices.dtype
            mine, theirs = mine.weights, theirs.weights
        if mine is not None:
            assert mine.dtype == theirs.dtype
            bound = 0.0 if exactly else 1e-12
            np.testing.assert_allclose(mine, theirs, rtol=bound, atol=bound, err_msg=field.name)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"causal": True, "query_offset": KEYS - QUERIES},
    "top-left": {"causal": True, "query_offset": 0},
    "window": {"window": (20, 3), "query_offset": 40},
    "positions": {"query_offset": np.array([5, 60]), "causal": True, "key_lengths": np.array([17, 80])},
    "mask": {"mask": numbers(2, HEADS, QUERIES, KEYS, seed=2) > 1, "query_offset": 3},
    "bias": {"bias": 3 * numbers(HEADS, QUERIES, KEYS, seed=3), "softcap": 2.0},
    "nothing": {"mask": np.zeros((QUERIES, KEYS), bool)},
    "alibi": {"alibi_slopes": np.array([0.5, 0.1, 0.0, 1.0]), "query_offset": 12},
    "sinks": {"sinks": np.array([0.0, 5.0, -np.inf, -3.0]), "causal": True, "query_offset": -4},
    "endless-sink": {"sinks": np.array([0.0, np.inf, np.nan, 1.0]), "causal": True, "query_offset": -4},
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
every_cut = pytest.mark.parametrize("edges", CUTS, ids=str)


@every_option
@every_cut
def test_parts_of_the_keys(options: dict[str, Any], edges: Edges) -> None:
    q, k = inputs()
    same(over_keys(q, k, OVER_KEYS, edges, **options), sightline.look_only(q, k, see=OVER_KEYS, **options))


@every_option
@pytest.mark.parametrize("edges", [[], [1], [9, 9], [0, 5, 23]], ids=str)
@pytest.mark.parametrize("reduce", ["sum", "max"])
def test_parts_of_the_queries(options: dict[str, Any], edges: Edges, reduce: Any) -> None:
    """Rows 3 and −1 are each part's own."""
    q, k = inputs()
    see = replace(OVER_QUERIES, rows=None, received=Received(reduce=reduce))
    same(over_queries(q, k, see, edges, **options), sightline.look_only(q, k, see=see, **options))


def test_rows_and_means_of_groups_over_queries() -> None:
    q, k = inputs()
    see = See(rows=(0, -1), received=Received(queries=slice(None, None, 2), per_group=True))
    got = over_queries(q, k, see, [10], causal=True)
    whole = See(rows=(0, 9, 10, 22), received=Received(queries=slice(None, None, 2), per_group=True))
    expected = sightline.look_only(q, k, see=whole, causal=True, query_offset=0)
    same(got, expected)


def test_a_prompt_in_chunks_whose_keys_grow() -> None:
    """Each chunk's keys end where its queries end."""
    q = numbers(HEADS, KEYS, 8)
    k = numbers(KEY_HEADS, KEYS, 8, seed=1)
    see = replace(OVER_QUERIES, rows=(0,))
    cut = spans([13, 13, 50], KEYS)
    cut = [s for s in cut if s.start < s.stop]
    parts = [
        sightline.look_only(q[:, s], k[:, : s.stop], see=see, causal=True, query_offset=s.start) for s in cut
    ]
    expected = sightline.look_only(q, k, causal=True, see=replace(see, rows=tuple(s.start for s in cut)))
    same(Seen.merge(parts, see, over="queries"), expected)


def test_one_part_is_the_whole() -> None:
    q, k = inputs()
    seen = sightline.look_only(q, k, see=OVER_QUERIES)
    same(Seen.merge([seen], OVER_QUERIES, over="queries"), seen, exactly=True)
    given = {name: getattr(seen, name) for name in ("lse", "max_score", "entropy", "distance")}
    given |= {"top_keys": seen.top_keys, "rows": seen.rows}
    merged = Seen.merge([seen], OVER_KEYS, over="keys", first_keys=[0])
    same(merged, Seen(**given), exactly=True)


def test_less_may_be_joined_than_was_seen() -> None:
    q, k = inputs()
    seen = sightline.look_only(q, k, see=replace(OVER_QUERIES, pooled=(3, 3)))
    merged = Seen.merge([seen, seen], ("lse", "distance"), over="keys")
    assert merged.entropy is None
    np.testing.assert_allclose(merged.lse, seen.lse + np.log(2), rtol=0, atol=1e-14)
    np.testing.assert_allclose(merged.distance, seen.distance, rtol=0, atol=1e-13)


@every_cut
def test_chosen_heads_and_all_heads_sinks(edges: Edges) -> None:
    q, k = inputs()
    see = replace(OVER_KEYS, heads=(-1, 0, 2))
    options = OPTIONS["sinks"]
    same(over_keys(q, k, see, edges, **options), sightline.look_only(q, k, see=see, **options))


@pytest.mark.parametrize("sinks", [None, np.array([1.5])])
def test_one_head_without_an_axis(sinks: Array | None) -> None:
    q, k = numbers(QUERIES, 8), numbers(KEYS, 8, seed=1)
    options: dict[str, Any] = {} if sinks is None else {"sinks": sinks}
    expected = sightline.look_only(q, k, see=OVER_KEYS, **options)
    same(over_keys(q, k, OVER_KEYS, [20, 21], **options), expected)
    see = replace(OVER_QUERIES, rows=None)
    same(over_queries(q, k, see, [20, 21]), sightline.look_only(q, k, see=see))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_stays_in_its_row(bad: float) -> None:
    q, k = inputs()
    q, k = abs(q), abs(k)
    k[0, 1, 70] = bad
    mask = np.ones((QUERIES, KEYS), bool)
    mask[::2, 70] = False  # only every second query sees it
    mask[:, 80] = False
    expected = sightline.look_only(q, k, see=OVER_KEYS, mask=mask)
    assert np.isnan(expected.lse).any()
    same(over_keys(q, k, OVER_KEYS, [40, 75], mask=mask), expected)
    see = replace(OVER_QUERIES, rows=None)
    same(over_queries(q, k, see, [3, 8], mask=mask), sightline.look_only(q, k, see=see, mask=mask))


def test_no_keys_at_all() -> None:
    q, k = inputs(keys=0)
    same(over_keys(q, k, OVER_KEYS, [0]), sightline.look_only(q, k, see=OVER_KEYS))
    see = replace(OVER_QUERIES, rows=None)
    same(over_queries(q, k, see, [4]), sightline.look_only(q, k, see=see))
    same(over_queries(q[..., :0, :], k, see, [0]), sightline.look_only(q[..., :0, :], k, see=see))


def test_parts_beyond_what_lse_can_tell_apart() -> None:
    """At 10²⁰ lse + log 2 is lse, and still two equal halves are halves."""
    q, k = numbers(QUERIES, 8), np.tile(numbers(KEYS // 2, 8, seed=1), (2, 1))
    bias = np.full((QUERIES, KEYS), 1e20)
    see = See(lse=True, entropy=True, rows=(0,))
    merged = over_keys(q, k, see, [KEYS // 2], bias=bias)
    np.testing.assert_allclose(merged.rows.sum(), 1)
    np.testing.assert_allclose(merged.entropy, np.log(KEYS), rtol=1e-12)


def test_underflowed_weights_keep_the_order_of_their_scores() -> None:
    q, k = np.ones((1, 1)), np.array([[0.0], [-900.0], [-800.0], [-1000.0], [-850.0]])
    see = See(lse=True, top_keys=4)
    merged = over_keys(q, k, see, [1, 3], scale=1.0)
    np.testing.assert_array_equal(merged.top_keys.indices, [[0, 2, 4, 1]])
    np.testing.assert_array_equal(merged.top_keys.weights, [[1, 0, 0, 0]])


def test_equal_weights_in_two_parts() -> None:
    q, k = np.zeros((2, 8)), numbers(6, 8)
    merged = over_keys(q, k, See(lse=True, top_keys=4), [2, 4])
    np.testing.assert_array_equal(merged.top_keys.indices, [[0, 1, 2, 3]] * 2)


def test_tensors_stay_tensors() -> None:
    torch = pytest.importorskip("torch")
    q, k = (torch.from_numpy(x).to(torch.bfloat16) for x in inputs())
    for see, merged in ((OVER_KEYS, over_keys), (replace(OVER_QUERIES, rows=None), over_queries)):
        got = merged(q, k, see, [10])
        expected: Any = sightline.look_only(q, k, see=see)
        for name in ("lse", "max_score", "entropy", "distance", "received", "rows", "diagonals"):
            mine, theirs = getattr(got, name), getattr(expected, name)
            assert type(mine) is type(theirs), name
            if mine is not None:
                assert mine.dtype == torch.float32
                np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)
        assert got.top_keys.indices.dtype == torch.int64
        np.testing.assert_allclose(got.top_keys.weights, expected.top_keys.weights, rtol=1e-5, atol=1e-6)


# ── What cannot be joined ──

Q, K = inputs()
PART = sightline.look_only(Q, K, see=replace(OVER_QUERIES, pooled=(2, 2)))
SHORT = sightline.look_only(Q[..., :4, :], K, see=replace(OVER_QUERIES, rows=(0,)))


@pytest.mark.parametrize(
    ("parts", "see", "options", "message"),
    [
        ([], ("lse",), {"over": "keys"}, "there are no parts; expected at least one"),
        ([PART, 3], ("lse",), {"over": "keys"}, r"parts\[1\] is int; expected a Seen"),
        ([PART], ("lse",), {"over": "heads"}, 'over is "heads"; expected "keys" or "queries"'),
        ([PART], ("entropy",), {"over": "keys"}, "joining over keys needs every part's lse"),
        ([PART], ("lse", "received"), {"over": "keys"}, "see.received cannot be joined over keys: it adds up"),
        ([PART], See(lse=True, pooled=(2, 2)), {"over": "keys"}, "see.pooled cannot be joined over keys"),
        ([PART], ("lse", "diagonals"), {"over": "keys"}, "see.diagonals cannot be joined over keys"),
        ([PART], See(lse=True, top_keys=5), {"over": "keys"}, "first_keys is None; joining top_keys needs"),
        (
            [PART, PART],
            See(lse=True, top_keys=5),
            {"over": "keys", "first_keys": [0]},
            r"first_keys is \[0\].*expected 2 ints",
        ),
        ([PART, Seen()], ("lse",), {"over": "keys"}, r"parts\[1\] has no lse; expected what `see` asks"),
        ([PART, SHORT], ("lse",), {"over": "keys"}, r"parts\[1\].lse is float64 \(2, 4, 4\) and parts\[0\]'s"),
        ([PART], See(lse=True, rows=(1,)), {"over": "keys"}, r"see.rows is \(1,\) and parts\[0\].rows has 3"),
        ([PART], See(lse=True, rows=(1, 2, 99)), {"over": "keys"}, r"rows of 23 queries"),
        ([PART], ("lse",), {"over": "keys", "sinks": np.ones(3)}, r"sinks has shape \(3,\); expected .*\(4,\)"),
        (
            [PART],
            See(lse=True, heads=(0, 1, 2, 5)),
            {"over": "keys", "sinks": np.ones(4)},
            r"sinks has shape \(4,\)",
        ),
        ([PART], ("lse",), {"over": "queries", "sinks": np.ones(4)}, 'sinks is given with over="queries"'),
        ([PART], ("lse",), {"over": "queries", "first_keys": [0]}, 'first_keys is given with over="queries"'),
        ([PART], See(pooled=(2, 2)), {"over": "queries"}, "see.pooled cannot be joined over queries"),
        (
            [PART],
            See(received=Received(normalize=True)),
            {"over": "queries"},
            "see.received has normalize, after which .* sums, and dividing them",
        ),
        (
            [PART],
            See(received=Received(reduce="max", per_group=True)),
            {"over": "queries"},
            "see.received has per_group with reduce=\"max\"",
        ),
        ([PART], ("diagonals",), {"over": "queries"}, "see.diagonals alone does not tell how many queries"),
    ],
)  # fmt: skip
def test_what_cannot_be_joined_is_said(parts: Any, see: Any, options: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Seen.merge(parts, see, **options)
