"""Bit for bit the same: for any number of threads, in any company, in any memory, from any thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

import sightline
from sightline import calls, plan
from sightline.cpu import isa, threads
from sightline.kernel_choice import MATRIX_FEW

if TYPE_CHECKING:
    from collections.abc import Iterator

Array = np.ndarray[Any, Any]
DTYPES = (np.float64, np.float32, np.float16, ml_dtypes.bfloat16)


@pytest.fixture(autouse=True, params=[choice.name for choice in isa.runnable()])
def instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SIGHTLINE_ISA", request.param)
    monkeypatch.setattr(plan, "THREAD_FLOPS", 1.0)  # threads for the smallest call
    monkeypatch.setattr(calls, "_ready", {})
    yield
    threads._Setting.threads = None


def numbers(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Array:
    made: Array = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    return made


def same_bits(got: Array, want: Array) -> None:
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got.view(np.uint8), np.ascontiguousarray(want).view(np.uint8))


def attend(q: Array, k: Array, v: Array, **options: Any) -> Array:
    return np.ascontiguousarray(sightline.attention(q, k, v, **options))


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_number_of_threads_gives_the_same_bits(dtype: Any) -> None:
    q, k, v = (numbers(2, heads, 300, 40, dtype=dtype, seed=heads) for heads in (4, 2, 2))
    results = []
    for count in (1, 2, 3, 7):
        sightline.set_num_threads(count)
        results.append(attend(q, k, v, causal=True))
    for other in results[1:]:
        same_bits(other, results[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": (30, 5)}, {"softcap": 3.0}])
def test_a_sequence_does_not_depend_on_its_company(dtype: Any, options: dict[str, Any]) -> None:
    q, k, v = (numbers(5, heads, 77, 24, dtype=dtype, seed=heads) for heads in (6, 2, 3))
    v = v[:, :2]
    together = attend(q, k, v, **options)
    for index in range(5):
        same_bits(attend(q[index], k[index], v[index], **options), together[index])


def test_padding_does_not_change_a_sequence() -> None:
    """Keys beyond a sequence's length, and how many there are, leave its bits alone."""
    q, k, v = (numbers(1, 2, 70, 32, seed=seed) for seed in range(3))
    alone = attend(q, k, v)
    for extra in (1, 13, 200):
        padded = [np.concatenate([x, np.full((1, 2, extra, 32), np.nan, x.dtype)], axis=2) for x in (k, v)]
        same_bits(attend(q, *padded, key_lengths=[70]), alone)


def by_the_same_engine(queries: int) -> bool:
    """A matrix unit leaves few queries to other instructions, whose sums have other last bits."""
    return queries > MATRIX_FEW or not isa.chosen().multiplies_tiles


def test_a_query_does_not_depend_on_the_queries_beside_it() -> None:
    q, k, v = (numbers(1, 200, 64, seed=seed) for seed in range(3))
    options: list[dict[str, Any]] = [{"causal": True}, {"window": (37, 2)}, {"window": (None, 11)}]
    for option in options:
        whole = attend(q, k, v, **option)
        for start in range(0, 200, 9):
            if by_the_same_engine(200 - start):
                part = attend(q[:, start : start + 9], k, v, query_offset=start, **option)
                same_bits(part, whole[:, start : start + 9])


def test_a_group_of_heads_gives_what_its_heads_give_alone() -> None:
    """Few queries: the group's heads share blocks of rows. Many: they do not."""
    for length in filter(by_the_same_engine, (1, 5, 9, 64, 100)):
        q, k, v = numbers(8, length, 64), numbers(2, 90, 64, seed=1), numbers(2, 90, 64, seed=2)
        together = attend(q, k, v)
        for head in range(8):
            group = slice(head // 4, head // 4 + 1)
            same_bits(attend(q[head : head + 1], k[group], v[group]), together[head : head + 1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [40, 33])
def test_strides_do_not_change_the_bits(dtype: Any, dim: int) -> None:
    q, k, v = (numbers(2, 3, 50, dim, dtype=dtype, seed=seed) for seed in range(3))
    plain = attend(q, k, v)
    by_length = [np.ascontiguousarray(x.swapaxes(1, 2)) for x in (q, k, v)]
    same_bits(attend(*by_length, layout="BLHD"), plain.swapaxes(1, 2))
    backwards = [np.ascontiguousarray(x[..., ::-1])[..., ::-1] for x in (q, k, v)]
    same_bits(attend(*backwards), plain)
    spread = [np.repeat(x, 2, axis=-1)[..., ::2] for x in (q, k, v)]
    same_bits(attend(*spread), plain)


def test_many_threads_may_call_at_once() -> None:
    q, k, v = (numbers(4, 150, 64, seed=seed) for seed in range(3))
    want = attend(q, k, v, causal=True)
    failures: list[BaseException] = []

    def caller() -> None:
        try:
            for _ in range(20):
                same_bits(attend(q, k, v, causal=True), want)
        except BaseException as error:  # an assertion in a thread would be lost
            failures.append(error)

    callers = [threading.Thread(target=caller) for _ in range(6)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert not failures, failures[0]
