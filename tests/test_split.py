"""Keys shared among several work items: the same bits as in one go, for any number of threads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

import sightline
from sightline import calls, plan, reference
from sightline.arrays import view
from sightline.cpu import isa, threads
from sightline.problem import Problem
from sightline.see import PER_QUERY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Array = np.ndarray[Any, Any]
KEYS = 2500  # three periods of 1024 keys, the last one not whole


@pytest.fixture(autouse=True, params=[choice.name for choice in isa.runnable()])
def instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SIGHTLINE_ISA", request.param)
    monkeypatch.setattr(plan, "THREAD_FLOPS", 1.0)  # threads, and pieces, for the smallest call
    monkeypatch.setattr(calls, "_ready", {})
    yield
    threads._Setting.threads = None


def three(queries: int, dtype: Any = np.float32, keys: int = KEYS) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(queries)
    shapes = (2, 4, queries, 16), (2, 2, keys, 16), (2, 2, keys, 24)
    q, k, v = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    return q, k, v


def every_way(monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any]) -> list[bytes]:
    """The bytes of a call's results: in one go, in pieces of one period or two, by one thread or three."""
    found = []
    for blocks, items, count in ((0, 1, 1), (64, 1000, 1), (64, 1000, 3), (64, 6, 3)):
        monkeypatch.setattr(plan, "FEW_BLOCKS", blocks)
        monkeypatch.setattr(plan, "MANY_ITEMS", items)
        calls._ready.clear()
        sightline.set_num_threads(count)
        found.append(b"".join(np.ascontiguousarray(x).tobytes() for x in call()))
    return found


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("queries", [1, 70])
def test_pieces_and_threads_do_not_change_a_bit(
    dtype: Any, queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = every_way(monkeypatch, lambda: [sightline.attention(*three(queries, dtype))])
    assert others == [first] * 3


OPTIONS: dict[str, dict[str, Any]] = {
    "lengths": {"key_lengths": [0, 1030]},
    "window": {"window": (200, 0), "query_offset": 2300},
    "causal": {"causal": True, "query_offset": 1022},
    "sinks": {"sinks": np.array([50.0, -1.0, 0.0, np.inf])},
    "modified": {"softcap": 5.0, "alibi_slopes": np.full(4, 0.01)},
    "mask": {"mask": np.arange(KEYS) >= 1500},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_and_statistics_do_not_either(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = three(3)

    def call() -> list[Array]:
        out, seen = sightline.attention(q, k, v, **OPTIONS[name], see=PER_QUERY)
        return [out, *(getattr(seen, field) for field in PER_QUERY)]

    first, *others = every_way(monkeypatch, call)
    assert others == [first] * 3
    expected = reference.attention(q, k, v, **OPTIONS[name])
    np.testing.assert_allclose(call()[0], expected.output, rtol=0, atol=2e-6)


def test_scores_that_lie_far_apart_and_values_that_are_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    """Periods whose maxima differ by more than exp can tell, NaN behind a mask, Inf in sight."""
    q, k, v = three(2)
    k[0, 0, 1100] *= 1e9
    k[0, 1, 30] *= 1e4
    v[1, 0, 5], v[1, 1, 2100] = np.nan, np.inf
    mask = np.arange(KEYS) != 5
    first, *others = every_way(monkeypatch, lambda: [sightline.attention(q, k, v, mask=mask)])
    assert others == [first] * 3
    out = sightline.attention(q, k, v, mask=mask)
    expected = reference.attention(q, k, v, mask=mask).output
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_the_last_query_of_many_is_the_query_of_a_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few queries in pieces, with an engine of their own, or many in one go: the same bits."""
    if isa.chosen().multiplies_tiles:
        pytest.skip("a matrix unit leaves few queries to other instructions, whose sums have other last bits")
    q, k, v = three(200)
    many = sightline.attention(q, k, v, causal=True, query_offset=KEYS - 200)
    one = sightline.attention(q[:, :, -1:], k, v, causal=True, query_offset=KEYS - 1)
    assert one.tobytes() == np.ascontiguousarray(many[:, :, -1:]).tobytes()


def test_longer_sequences_in_the_batch_do_not_change_a_shorter_one() -> None:
    q, k, v = three(1)
    together = sightline.attention(q, k, v, key_lengths=[700, KEYS])
    alone = sightline.attention(q[:1], k[:1, :, :700], v[:1, :, :700])
    assert together[:1].tobytes() == alone.tobytes()


def test_callers_at_once_have_shelves_of_their_own() -> None:
    cases = [three(1, keys=KEYS + i) for i in range(4)]
    expected = [sightline.attention(*case).tobytes() for case in cases]
    sightline.set_num_threads(2)
    wrong: list[int] = []

    def caller(i: int) -> None:
        made = {sightline.attention(*cases[i]).tobytes() for _ in range(20)}
        if made != {expected[i]}:
            wrong.append(i)

    callers = [threading.Thread(target=caller, args=(i,)) for i in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert not wrong


def test_the_plan_shares_long_keys_of_few_blocks() -> None:
    def made(queries: int, keys: int, batch: int = 1) -> plan.Plan:
        q, k = np.zeros((batch, 4, queries, 16), np.float32), np.zeros((batch, 2, keys, 16), np.float32)
        problem = Problem.of(*(view(x, "x").spec for x in (q, k, k)))
        return plan.plan(problem, isa.target("avx512"))

    assert not made(1, 1024).kernel.split, "one period"
    assert not made(1, 5000, batch=40).kernel.split, "items enough"
    assert (made(1, 5000).pieces, made(1, 5000).items) == (5, 10)
    assert made(64, 5000).pieces == 5, "4 heads of one block each"
    long = made(1, 1 << 20)
    assert (long.periods, long.pieces, long.piece_periods) == (1024, 64, 16)
    assert long.items == plan.MANY_ITEMS
    assert "× 64 pieces of the keys" in str(long)
