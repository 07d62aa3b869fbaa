"""Dropout: the definition's random numbers are good, kernels have the same ones, everywhere, and errors help."""

from __future__ import annotations

from functools import partial
from itertools import cycle, pairwise, product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import sightline
from cases import DTYPES
from sightline import calls, plan, reference
from sightline.cpu import isa, threads
from sightline.reference_dropout import hashes, kept_or_not

if TYPE_CHECKING:
    from collections.abc import Iterator

Array = np.ndarray[Any, Any]
INSTRUCTIONS = [choice.name for choice in isa.runnable()]
SEED = 2**63 + 5


# ── The definition ──


def test_the_numbers_are_these_for_ever() -> None:
    """A seed that somebody wrote down goes on meaning the same."""
    assert hashes(7, 1, 2, 2, 3).tolist() == [
        [137715569, 3450239455, 1738139460],
        [2085001340, 1097336186, 3339193151],
    ]
    assert hashes(2**64 - 1, 0, 0, 1, 2).tolist() == [[4054848659, 3848415162]]


@pytest.mark.parametrize("seed", [0, 1, SEED])
def test_every_byte_is_equally_likely(seed: int) -> None:
    """Chi-square of each byte of the hash, and of how often a row or column is dropped, within 5 deviations."""
    made = hashes(seed, 0, 0, 1024, 1024)
    for shift in (24, 16, 8, 0):
        counts = np.bincount((made >> np.uint32(shift) & np.uint32(255)).ravel(), minlength=256)
        assert abs(chi_square(counts, made.size / 256) - 255) < 5 * np.sqrt(2 * 255)
    for axis in (0, 1):
        counts = (made < 0.1 * 2**32).sum(axis)
        assert abs(chi_square(counts, 102.4) / 0.9 - 1024) < 5 * np.sqrt(2 * 1024)


def chi_square(counts: Array, expected: float) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_neighbours_have_nothing_in_common(p: float) -> None:
    """Mean, and correlation between weights near each other in any direction, within 5 deviations of chance."""
    n = 1024
    x = deviations(3, p, 0, 0, n)
    assert abs(x.mean()) * n < 5
    for distance in (1, 2, 3, 4, 16, 64, 512):
        assert_uncorrelated(x[:, distance:], x[:, :-distance])
        assert_uncorrelated(x[distance:], x[:-distance])
        assert_uncorrelated(x[distance:, distance:], x[:-distance, :-distance])
    for other in ((4, 0, 0), (2, 0, 0), (3, 1, 0), (3, 0, 1), (2**32 + 3, 0, 0)):
        assert_uncorrelated(x, deviations(other[0], p, *other[1:], n))
    assert_uncorrelated(x[:, 2:] * x[:, 1:-1], x[:, :-2])
    assert_uncorrelated(deviations(3, p, 1, 0, n), deviations(3, p, 0, 1, n))


def deviations(seed: int, p: float, sequence: int, head: int, n: int) -> Array:
    """Whether a weight is dropped, as a random variable of mean 0 and variance 1."""
    dropped = kept_or_not(seed, p, sequence, head, n, n) == 0
    made: Array = (dropped - p) / np.sqrt(p * (1 - p))
    return made


def assert_uncorrelated(x: Array, y: Array) -> None:
    assert abs((x * y).mean()) * np.sqrt(x.size) < 5


def test_what_is_dropped_for_one_probability_is_dropped_for_a_larger_one() -> None:
    kept = [kept_or_not(1, p, 0, 0, 50, 50) for p in (2.0**-40, 0.25, 0.5, 1 - 2.0**-40, 1.0)]
    assert [float(x.max()) for x in kept] == [1 / (1 - 2.0**-40), 4 / 3, 2.0, 0.0, 0.0]
    for less, more in pairwise(kept):
        assert ((less > 0) >= (more > 0)).all()


# ── Kernels ──


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Threads for the smallest call."""
    monkeypatch.setattr(plan, "THREAD_FLOPS", 1.0)
    yield monkeypatch
    threads._Setting.threads = None


def mask_of(queries: int, keys: int, p: float) -> Array:
    """What the definition keeps: (2, 2, Lq, Lk)."""
    made = [[kept_or_not(SEED, p, b, h, queries, keys) > 0 for h in range(2)] for b in range(2)]
    return np.array(made)


TURNS = [*zip(DTYPES, cycle(INSTRUCTIONS), strict=False)]
WAYS = [*product(DTYPES, INSTRUCTIONS, [70]), *((*turn, 2) for turn in TURNS)]


@pytest.mark.parametrize(("dtype", "instructions", "queries"), WAYS)
def test_kernels_drop_what_the_definition_drops(
    dtype: str, instructions: str, queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All scores 0 and one value for each key: what is not 0 is kept. With 2 queries, the engine for few rows.

    Then with a NaN beside key 5's value: rows are done again with care, and those that keep it have it.
    """
    monkeypatch.setenv("SIGHTLINE_ISA", instructions)
    keys, kind = 130, DTYPES[dtype]
    query, key = (np.zeros((2, 2, n, 32), kind) for n in (queries, keys))
    value = np.eye(keys, keys + 2, dtype=kind)
    want = mask_of(queries, keys, 0.4)
    for special in (0.0, np.nan):
        value[5, keys] = special
        given = (query, key, np.broadcast_to(value, (2, 2, *value.shape)))
        output, seen = sightline.attention(*given, dropout_p=0.4, seed=SEED, see=("lse",))
        np.testing.assert_array_equal(output[..., :keys] != 0, want)
        got = output[..., :keys].astype(float)
        np.testing.assert_allclose(got, want / (0.6 * keys), rtol=0.01 if dtype == "bfloat16" else 1e-3)
        np.testing.assert_allclose(seen.lse, np.log(keys), rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(output[..., keys]), want[..., 5])


@pytest.mark.parametrize(("dtype", "instructions"), TURNS)
def test_backward_drops_what_forward_dropped(
    dtype: str, instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All scores 0 and one gradient for each query: what reaches a key's value is kept. NaN as above."""
    monkeypatch.setenv("SIGHTLINE_ISA", instructions)
    queries, keys, kind = 70, 130, DTYPES[dtype]
    query, key = (np.zeros((2, 2, n, 32), kind) for n in (queries, keys))
    value = np.ones((2, 2, keys, queries + 2), kind)
    options: dict[str, Any] = {"dropout_p": 0.4, "seed": SEED}
    output, seen = sightline.attention(query, key, value, **options, see=("lse",))
    d_output = np.eye(queries, queries + 2, dtype=kind)
    want = mask_of(queries, keys, 0.4).swapaxes(-2, -1)
    for special in (0.0, np.nan):
        d_output[3, queries] = special
        made = np.broadcast_to(d_output, output.shape)
        got = sightline.attention_vjp(query, key, value, output, seen.lse, made, **options).value
        np.testing.assert_array_equal(got[..., :queries] != 0, want)
    np.testing.assert_array_equal(np.isnan(got[..., queries]), want[..., 3])


@pytest.mark.parametrize("instructions", INSTRUCTIONS)
def test_any_number_of_threads_drops_the_same(instructions: str, small: pytest.MonkeyPatch) -> None:
    """Also where the keys of few rows are shared among threads, and gradients take two passes."""
    small.setenv("SIGHTLINE_ISA", instructions)
    rng = np.random.default_rng(0)
    options: dict[str, Any] = {"dropout_p": 0.2, "seed": 9}
    query = rng.standard_normal((1, 4, 20, 32), np.float32)
    key, value = rng.standard_normal((2, 1, 2, 2100, 32), np.float32)
    results = []
    for count in (1, 2, 5):
        sightline.set_num_threads(count)
        output, seen = sightline.attention(query, key, value, **options, see=("lse",))
        grads = sightline.attention_vjp(query, key, value, output, seen.lse, output, **options)
        results.append(b"".join(x.tobytes() for x in (output, grads.query, grads.key, grads.value)))
    assert results[0] == results[1] == results[2]
    want = reference.attention(query, key, value, **options).output
    np.testing.assert_allclose(output, want, rtol=1e-4, atol=1e-5)


def test_another_seed_is_no_other_kernel_and_no_other_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_ready", {})
    x = np.random.default_rng(0).standard_normal((1, 2, 7, 16))
    outputs = [sightline.attention(x, x, x, dropout_p=0.5, seed=seed) for seed in (0, 1, SEED)]
    assert len({output.tobytes() for output in outputs}) == 3
    assert [made.problem.dropout_p for made in calls._ready.values() if isinstance(made, calls.Ready)] == [
        0.5
    ]


def test_the_mean_over_seeds_is_attention_without() -> None:
    rng = np.random.default_rng(1)
    query, key, value = rng.standard_normal((3, 1, 2, 5, 16))
    drawn = [sightline.attention(query, key, value, dropout_p=0.3, seed=seed) for seed in range(400)]
    want, steps = sightline.attention(query, key, value), sightline.explain(query, key, value)
    deviation = np.sqrt(0.3 / 0.7 * steps.weights**2 @ value**2 / len(drawn))
    assert (abs(np.mean(drawn, axis=0) - want) < 5 * deviation).all()
    assert sum((x == drawn[0]).all() for x in drawn) == 1


def test_none_and_all() -> None:
    """Nothing dropped is the same kernel as ever; all dropped is zeros, and gradients of 0."""
    query, key, value = np.random.default_rng(2).standard_normal((3, 2, 9, 16))
    plain = sightline.attention(query, key, value)
    assert sightline.attention(query, key, value, dropout_p=0, seed=4).tobytes() == plain.tobytes()
    options: dict[str, Any] = {"dropout_p": 1.0, "seed": 4}
    value[0, 0, 0] = np.nan
    output, seen = sightline.attention(query, key, value, **options, see=("lse",))
    assert not output.any()
    assert np.isfinite(seen.lse).all()
    grads = sightline.attention_vjp(query, key, value, output, seen.lse, plain, **options)
    assert not any(x.any() for x in (grads.query, grads.key, grads.value))


def test_explain_shows_what_is_dropped() -> None:
    words = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    steps = sightline.explain(words, words, words, dropout_p=0.5, seed=3)
    np.testing.assert_array_equal(steps.kept, kept_or_not(3, 0.5, 0, 0, 3, 3))
    np.testing.assert_allclose(steps.output, (steps.weights * steps.kept) @ words)
    text = str(steps)
    assert "scale 0.7071, dropout 0.5" in text
    left = text.partition("dropout: weights / (1 − dropout_p), · where dropped\n")[2].splitlines()
    assert [line.count("·") for line in left[1:4]] == (steps.kept == 0).sum(axis=1).tolist()
    assert f"{(steps.weights * steps.kept)[1, 0]:.3f}" in left[2]


# ── What is refused ──


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"dropout_p": -0.1, "seed": 0}, ValueError, r"dropout_p is -0\.1; expected a number from 0 to 1"),
        ({"dropout_p": 10, "seed": 0}, ValueError, r"dropout_p is 10; .*; try dropout_p=0\.1"),
        ({"dropout_p": float("nan"), "seed": 0}, ValueError, "dropout_p is nan"),
        ({"dropout_p": "0.1"}, TypeError, r"dropout_p is '0\.1' \(str\); expected a number from 0 to 1"),
        ({"dropout_p": True, "seed": 0}, TypeError, r"dropout_p is True \(bool\)"),
        ({"dropout_p": 0.1}, ValueError, r"dropout_p is 0\.1 and seed is None; .*; try seed=0"),
        ({"dropout_p": 0.1, "seed": 0.5}, TypeError, r"seed is 0\.5 \(float\); expected an int from 0"),
        ({"dropout_p": 0.1, "seed": -1}, ValueError, r"seed is -1; .*; try seed=18446744073709551615"),
        ({"dropout_p": 0.0, "seed": 2**64}, ValueError, "seed is 18446744073709551616; expected an int"),
    ],
)
def test_refusals(options: dict[str, Any], error: type[Exception], words: str) -> None:
    x = np.zeros((1, 2, 3, 4))
    for door in (
        sightline.attention,
        sightline.explain,
        partial(sightline.attention_vjp, output=x, lse=np.zeros((1, 2, 3)), grad_output=x),
    ):
        with pytest.raises(error, match=words):
            door(x, x, x, **options)
