"""What can be asked of the weights: how to ask, what comes back, and that it is right where rounding rules."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import sightline
from sightline import calls, plan, reference
from sightline.cpu import isa, threads
from sightline.kernel_choice import MATRIX_FEW
from sightline.reference_statistics import see
from sightline.see import PER_QUERY, Received, See, Seen, requested

if TYPE_CHECKING:
    from collections.abc import Iterator

Array = np.ndarray[Any, Any]
every_isa = pytest.mark.parametrize("instructions", [choice.name for choice in isa.runnable()])


def numbers(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Array:
    made: Array = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    return made


def three(*shape: int, dtype: Any = np.float32) -> tuple[Array, Array, Array]:
    q, k, v = numbers(3, *shape, dtype=dtype)
    return q, k, v


def names_of(seen: Seen) -> tuple[str, ...]:
    """What was answered."""
    return tuple(field.name for field in fields(Seen) if getattr(seen, field.name) is not None)


def stacked(seen: Seen) -> Array:
    """The four statistics, one after the other."""
    return np.stack([np.asarray(getattr(seen, name)) for name in PER_QUERY])


def seen_by(q: Any, k: Any, v: Any, **options: Any) -> Array:
    """The four statistics of a call."""
    return stacked(sightline.attention(q, k, v, see=PER_QUERY, **options)[1])


def defined(q: Array, k: Array, v: Array, **options: Any) -> Array:
    """The four statistics by the definition."""
    return stacked(see(reference.attention(q, k, v, **options), requested(PER_QUERY)))


def same_bits(got: Array, want: Array) -> None:
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(
        np.ascontiguousarray(got).view(np.uint8), np.ascontiguousarray(want).view(np.uint8)
    )


# ── Questions and answers ──


def test_each_question_has_its_answer_under_the_same_name() -> None:
    assert [field.name for field in fields(See) if field.name != "heads"] == [f.name for f in fields(Seen)]


def test_nothing_is_asked_and_nothing_is_answered_unless_said() -> None:
    assert not any(getattr(See(), field.name) for field in fields(See))
    assert all(getattr(Seen(), field.name) is None for field in fields(Seen))


def test_received_counts_all_queries_unless_said() -> None:
    assert (Received().queries, Received().reduce) == (None, "sum")


def test_a_request_is_a_see_or_names_of_its_fields() -> None:
    assert requested(None) == See()
    assert requested(()) == See()
    whole = See(entropy=True, pooled=(3, 4))
    assert requested(whole) is whole
    assert (
        requested(("entropy", "lse")) == requested(["lse", "entropy", "lse"]) == See(lse=True, entropy=True)
    )
    assert requested(name for name in ["received", "diagonals"]) == See(received=True, diagonals=True)


@pytest.mark.parametrize(
    ("request_", "error", "text"),
    [
        ("lse", TypeError, r"see is 'lse'; expected a See or names of its fields; try see=\(\"lse\""),
        (True, TypeError, "see is True; expected a See or names"),
        (("lse", "entrpy"), ValueError, "see has 'entrpy'; expected names among lse, max_score, entropy"),
        ((1,), ValueError, "see has 1; expected names among"),
        (["top_keys"], ValueError, r"'top_keys', which needs a value; try see=See\(top_keys=…\)"),
        (["pooled"], ValueError, r"'pooled', which needs a value; try see=See\(pooled=…\)"),
        (["heads"], ValueError, r"'heads', which needs a value"),
        (["rows"], ValueError, r"'rows', which needs a value; try see=See\(rows=…\)"),
    ],
)
def test_a_wrong_request_is_told_by_the_door_too(request_: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        requested(request_)
    with pytest.raises(error, match=text):
        sightline.attention(*three(4, 8), see=request_)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: See(lse=1), TypeError, "see.lse is 1; expected True or False"),  # type: ignore[arg-type]
        (lambda: See(received="sum"), TypeError, "see.received is 'sum'; expected True, False or a Received"),  # type: ignore[arg-type]
        (lambda: See(top_keys=-1), ValueError, "see.top_keys is -1; expected how many, an int ≥ 0"),
        (lambda: See(top_keys=True), ValueError, "see.top_keys is True"),
        (lambda: See(pooled=(3,)), ValueError, r"see.pooled is \(3,\); expected two ints ≥ 1"),  # type: ignore[arg-type]
        (lambda: See(pooled=(3, 0)), ValueError, "expected two ints ≥ 1"),
        (lambda: See(pooled=3), TypeError, "see.pooled is 3; expected a sequence of ints"),  # type: ignore[arg-type]
        (lambda: See(rows=(0.5,)), TypeError, "see.rows has 0.5; expected ints"),  # type: ignore[arg-type]
        (lambda: See(heads="03"), TypeError, "see.heads is '03'; expected a sequence of ints"),  # type: ignore[arg-type]
        (lambda: Received(slice("a", None)), ValueError, "expected a slice of ints"),
        (lambda: Received(slice(0, 4, 0)), ValueError, "expected a slice of ints"),
        (lambda: Received(reduce="mean"), ValueError, "received.reduce is 'mean'"),  # type: ignore[arg-type]
        (lambda: Received(reduce="max", normalize=True), ValueError, "normalize divides sums"),
    ],
)  # fmt: skip
def test_a_request_that_makes_no_sense_is_refused_when_it_is_made(
    make: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (See(rows=(0, 9)), "see.rows has 9; expected ints from -9 to 8"),
        (See(rows=(-10,)), "see.rows has -10"),
        (See(heads=(0, 4)), "see.heads has 4; expected ints from -4 to 3"),
        (See(received=Received(per_group=True), heads=(0, 2)), r"heads is \(0, 2\) with received.per_group"),
        (See(received=Received(per_group=True), heads=(1, 0)), "expected whole groups of 2 heads"),
    ],
)
def test_rows_and_heads_exist(request_: See, text: str) -> None:
    q, k = numbers(4, 9, 8), numbers(2, 9, 8, seed=1)
    with pytest.raises(ValueError, match=text):
        sightline.attention(q, k, k, see=request_)
    with pytest.raises(ValueError, match=text):
        sightline.look_only(q, k, see=request_)


def test_a_plain_call_has_no_heads_to_choose_from() -> None:
    with pytest.raises(ValueError, match=r"see.heads is given; expected None, for arrays \(L, D\)"):
        sightline.look_only(numbers(9, 8), numbers(9, 8), see=See(lse=True, heads=(0,)))


def test_requests_are_equal_and_hashed_by_what_they_ask() -> None:
    """A slice has no hash of its own before Python 3.12."""
    one, two = (See(received=Received(slice(-4, None)), rows=rows) for rows in ((1, 2), [1, 2]))  # type: ignore[arg-type]
    assert one == two
    assert hash(one) == hash(two)
    assert one != See(received=Received(slice(-5, None)), rows=(1, 2))


# ── What the door gives ──


def test_seeing_gives_a_pair_and_what_was_asked_alone() -> None:
    q, k, v = three(2, 3, 9, 8)
    plain = sightline.attention(q, k, v)
    requests: list[Any] = [(), See(), ("entropy",), ("distance", "lse"), See(max_score=True), PER_QUERY]
    for request in requests:
        output, seen = sightline.attention(q, k, v, see=request)
        same_bits(output, plain)
        assert names_of(seen) == tuple(name for name in PER_QUERY if getattr(requested(request), name))


@pytest.mark.parametrize("name", PER_QUERY)
def test_a_statistic_has_the_same_bits_whatever_else_is_seen(name: str) -> None:
    q, k, v = three(2, 70, 24)
    _, alone = sightline.attention(q, k, v, causal=True, see=(name,))
    _, together = sightline.attention(q, k, v, causal=True, see=PER_QUERY)
    same_bits(getattr(alone, name), getattr(together, name))


def test_out_is_written_and_returned_beside_what_is_seen() -> None:
    q, k, v = three(2, 9, 8)
    out = np.empty_like(q)
    output, seen = sightline.attention(q, k, v, see=("lse",), out=out)
    assert output is out
    same_bits(out, sightline.attention(q, k, v))
    assert seen.lse.shape == (2, 9)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_tensors_give_tensors_of_float32_but_for_float64(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    q, k, v = (torch.from_numpy(x).to(getattr(torch, dtype)) for x in three(2, 3, 17, 40))
    output, seen = sightline.attention(q, k, v, see=PER_QUERY)
    assert output.dtype == q.dtype
    for name in PER_QUERY:
        x = getattr(seen, name)
        assert isinstance(x, torch.Tensor)
        assert x.dtype == (torch.float64 if dtype == "float64" else torch.float32)
    # The matrix unit leaves out up to 2^-16 of the products of float16.
    bound = 4e-5 if dtype == "float16" and isa.chosen().multiplies_tiles else 1e-5
    np.testing.assert_allclose(
        stacked(seen), defined(*(x.double().numpy() for x in (q, k, v))), rtol=0, atol=bound
    )


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((7, 8), "BHLD", (7,)),
        ((7, 8), "BLHD", (7,)),
        ((3, 7, 8), "BHLD", (3, 7)),
        ((7, 3, 8), "BLHD", (3, 7)),
        ((2, 3, 7, 8), "BHLD", (2, 3, 7)),
        ((2, 7, 3, 8), "BLHD", (2, 3, 7)),
        ((4, 2, 7, 3, 8), "BLHD", (4, 2, 3, 7)),
    ],
)
def test_heads_come_before_queries_whatever_the_layout(
    shape: tuple[int, ...], layout: str, expected: tuple[int, ...]
) -> None:
    q, k, v = three(*shape)
    got = seen_by(q, k, v, layout=layout)
    assert got.shape == (4, *expected)
    np.testing.assert_allclose(got, defined(q, k, v, layout=layout), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("queries", "keys", "batch"),
    [((2, 0, 8), (2, 5, 8), ()), ((2, 5, 8), (2, 0, 8), ()), ((2, 5, 8), (2, 5, 8), (0,))],
)
def test_no_queries_no_keys_and_no_sequences(
    queries: tuple[int, ...], keys: tuple[int, ...], batch: tuple[int, ...]
) -> None:
    q, k = np.ones((*batch, *queries), np.float32), np.ones((*batch, *keys), np.float32)
    _, seen = sightline.attention(q, k, k, see=PER_QUERY)
    nothing = {"lse": -np.inf, "max_score": -np.inf, "entropy": 0.0, "distance": 0.0}
    for name, value in nothing.items():
        got = getattr(seen, name)
        assert got.shape == (*batch, *queries[:-1])
        assert keys[1] > 0 or (got == value).all()


def test_a_repeated_call_has_arrays_of_its_own_for_what_is_seen() -> None:
    q, k, v = three(2, 9, 8)
    _, first = sightline.attention(q, k, v, see=PER_QUERY)
    before = stacked(first)
    _, second = sightline.attention(q * np.float32(2), k, v, see=PER_QUERY)
    same_bits(stacked(first), before)
    assert (stacked(second)[:3] != before[:3]).any()


# ── Bit for bit the same, however the work is cut ──


@pytest.fixture
def cut_small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(plan, "THREAD_FLOPS", 1.0)  # threads for the smallest call
    monkeypatch.setattr(calls, "_ready", {})
    yield
    threads._Setting.threads = None


@every_isa
@pytest.mark.usefixtures("cut_small")
def test_any_number_of_threads_sees_the_same_bits(instructions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_ISA", instructions)
    q, k, v = (numbers(2, heads, 300, 40, seed=heads) for heads in (4, 2, 2))
    results = []
    for count in (1, 2, 3, 7):
        sightline.set_num_threads(count)
        results.append(seen_by(q, k, v, causal=True))
    for other in results[1:]:
        same_bits(other, results[0])


def by_the_same_engine(queries: int, dtype: Any = np.float32) -> bool:
    """A matrix unit leaves few queries, and float64, to other instructions, whose sums have other last bits."""
    return queries > MATRIX_FEW or dtype == np.float64 or not isa.chosen().multiplies_tiles


@every_isa
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_what_is_seen_of_a_sequence_does_not_depend_on_its_company(
    dtype: Any, instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_ISA", instructions)
    q, k, v = (numbers(5, heads, 77, 24, dtype=dtype, seed=heads) for heads in (6, 2, 3))
    v = v[:, :2]
    together = seen_by(q, k, v, window=(30, 5))
    for index in range(5):
        same_bits(seen_by(q[index], k[index], v[index], window=(30, 5)), together[:, index])
        one = slice(2 * index, 2 * index + 1)
        if by_the_same_engine(1, dtype):
            part = seen_by(q[index, :, one], k[index], v[index], window=(30, 5), query_offset=2 * index)
            same_bits(part, together[:, index, :, one])


@every_isa
@pytest.mark.parametrize("length", [1, 5, 31, 64, 100])
def test_a_group_of_heads_sees_what_its_heads_see_alone(
    length: int, instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few queries: the group's heads share blocks of rows. Many: they do not."""
    monkeypatch.setenv("SIGHTLINE_ISA", instructions)
    if not by_the_same_engine(length):
        pytest.skip("alone, so few queries are not for the matrix unit")
    q, k, v = numbers(2, 8, length, 64), numbers(2, 2, 90, 64, seed=1), numbers(2, 2, 90, 64, seed=2)
    together = seen_by(q, k, v)
    for batch, head in np.ndindex(2, 8):
        group = slice(head // 4, head // 4 + 1)
        alone = seen_by(q[batch, head : head + 1], k[batch, group], v[batch, group])
        same_bits(alone, together[:, batch, head : head + 1])


# ── Where rounding rules: far away, and next to nothing ──


def spread_out(weights: Array) -> Array:
    """−Σ w·log w from the weights themselves: lse − score rounds to nothing beside scores of 10²⁰."""
    shown = np.where(weights > 0, weights, 1.0)
    total: Array = -(shown * np.log(shown)).sum(axis=-1)
    return total


@every_isa
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("far", [-1e20, -1e30, -3e38, 1e20, 1e30])
@pytest.mark.parametrize("keys", [1, 40, 200])
def test_a_row_far_away_is_spread_out_over_all_its_keys(
    dtype: Any, far: float, keys: int, instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_ISA", instructions)
    q, k, v = three(2, keys, 16, dtype=dtype)
    bias = np.zeros((keys, keys), dtype)
    row = keys // 2
    bias[row] = far
    lse, largest, entropy, distance = seen_by(q, k, v, bias=bias)
    far_away = float(np.array(far, dtype))
    np.testing.assert_allclose(lse[:, row], far_away, rtol=1e-6)
    np.testing.assert_allclose(largest[:, row], far_away, rtol=1e-6)
    np.testing.assert_allclose(entropy[:, row], np.log(keys), rtol=0, atol=2e-6)
    np.testing.assert_allclose(distance[:, row], abs(np.arange(keys) - row).mean(), rtol=0, atol=1e-4)
    others = np.arange(keys) != row
    want = defined(q, k, v, bias=bias)
    got = np.stack([lse, largest, entropy, distance])
    np.testing.assert_allclose(got[..., others], want[..., others], rtol=2e-6, atol=1e-5)


@every_isa
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("low", "high"), [(-1e5, 0.0), (-1e38, 0.0), (-3e38, 0.0), (-3e38, 3e38), (-1e6, 1e9)]
)
@pytest.mark.parametrize("first", [1, 64, 130])
def test_tiles_far_below_the_rest_count_for_nothing(
    dtype: Any, low: float, high: float, first: int, instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padding on the left that is pushed down by a bias: the first tiles' maximum is nothing to the last's."""
    monkeypatch.setenv("SIGHTLINE_ISA", instructions)
    q, k, v = three(2, 200, 16, dtype=dtype)
    bias = np.full((200, 200), high, dtype)
    bias[:, :first] = low
    _, _, entropy, distance = seen_by(q, k, v, bias=bias)
    weights = reference.attention(q, k, v, bias=bias).weights
    far = abs(np.arange(200)[:, None] - np.arange(200))
    if high > 1e8:  # all scores are `high` in float32, and not in float64
        weights = np.where(np.arange(200) < first, 0.0, 1.0 / (200 - first)) * np.ones_like(weights)
        if dtype is np.float64 and high < 1e17:
            weights = reference.attention(q, k, v, bias=bias).weights
    np.testing.assert_allclose(entropy, spread_out(weights), rtol=0, atol=1e-5)
    np.testing.assert_allclose(distance, (weights * far).sum(axis=-1), rtol=0, atol=2e-3)


@every_isa
def test_a_query_that_sees_one_key_has_no_entropy(instructions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_ISA", instructions)
    for dtype in (np.float32, np.float64):
        q, k, v = three(3, 300, 32, dtype=dtype)
        entropy, distance = seen_by(q * dtype(9), k, v, window=(0, 0))[2:]
        assert (entropy >= 0).all()
        assert entropy.max() <= 4 * np.finfo(dtype).eps
        assert (distance == 0).all()


@every_isa
def test_an_undefined_row_is_nan_in_all_that_is_seen_and_no_other_row_is(
    instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_ISA", instructions)
    q, k, v = three(1, 100, 32)
    alone = seen_by(q, k, v)
    poisoned, values = q.copy(), v.copy()
    poisoned[0, 20], poisoned[0, 70] = np.nan, np.float32(1e12) * q[0, 70]
    values[0, 3, 5], values[0, 90, 0] = np.nan, np.inf  # a value has no part in what is seen
    got = seen_by(poisoned, k, values)
    assert np.isnan(got[..., 20]).all()
    assert np.isfinite(got[..., 70]).all()
    others = [row for row in range(100) if row not in {20, 70}]
    np.testing.assert_allclose(got[..., others], alone[..., others], rtol=1e-5, atol=1e-5)
    same_bits(seen_by(poisoned, k, v)[..., others], alone[..., others])
