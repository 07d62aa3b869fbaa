"""Calls on tensors run on PyTorch's own threads: the same bits, all items once, and whatever may come between."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import sightline
from sightline import arrays
from sightline.cpu import team, threads
from sightline.cpu import work as working

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

torch = pytest.importorskip("torch")
quick = pytest.importorskip("sightline.torch")

PATIENCE = 60.0  # seconds until a program that hangs is ended
LIBRARY = arrays.workers(torch.zeros(1)).library  # type: ignore[union-attr]
THEIRS = team.of(LIBRARY)
needs_team = pytest.mark.skipif(THEIRS is None, reason="this PyTorch's threads cannot be called")
GO = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
REGION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
NUMBER = ctypes.CFUNCTYPE(ctypes.c_int)


class Called:
    """Who has run how many calls, and with how many threads."""

    def __init__(self) -> None:
        self.team: list[int] = []
        self.pool: list[int] = []


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Called:
    """A record of the calls from here on."""
    record, of_team, of_pool = Called(), team.Team.run, threads.run

    def by_team(self: team.Team, work: Any, members: int, memory: int) -> None:
        record.team.append(members)
        of_team(self, work, members, memory)

    def by_pool(work: Any, count: int) -> None:
        record.pool.append(count)
        of_pool(work, count)

    monkeypatch.setattr(team.Team, "run", by_team)
    monkeypatch.setattr(threads, "run", by_pool)
    return record


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    monkeypatch.setattr(threads._Setting, "threads", 2)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def inputs(length: int = 300, *, grad: bool = False) -> list[Any]:
    """Query, key and value of four heads."""
    made = torch.Generator().manual_seed(length)
    return [torch.randn(1, 4, length, 40, generator=made, requires_grad=grad) for _ in range(3)]


def trained() -> list[Any]:
    """The gradients of a causal call."""
    given = inputs(grad=True)
    sightline.attention(*given, causal=True).square().sum().backward()
    return [x.grad for x in given]


def seen() -> list[Any]:
    """What a second pass finds."""
    _, found = sightline.attention(*inputs(), causal=True, see=("received", "entropy"))
    return [found.received, found.entropy]


JOBS: dict[str, Callable[[], list[Any]]] = {
    "forward": lambda: [sightline.attention(*inputs(), causal=True)],
    "PyTorch's function": lambda: [quick.scaled_dot_product_attention(*inputs()) for _ in range(2)],
    "backward": trained,
    "second pass": seen,
}


@needs_team
@pytest.mark.parametrize("job", JOBS)
def test_the_same_bits_as_on_threads_of_our_own(
    job: str, called: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = JOBS[job]()
    assert set(called.team) == {2}
    assert not called.pool
    monkeypatch.setattr(team, "of", lambda _: None)
    ours = JOBS[job]()
    assert set(called.pool) == {2}
    for a, b in zip(theirs, ours, strict=True):
        assert torch.equal(a, b)


@needs_team
def test_both_numbers_of_threads_count(called: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    sightline.attention(*inputs())
    assert (called.team, called.pool) == ([], [1])
    torch.set_num_threads(3)  # theirs are not to be ended for a call with fewer
    sightline.attention(*inputs())
    assert (called.team, called.pool) == ([], [1, 2])
    monkeypatch.setattr(threads._Setting, "threads", 5)
    sightline.attention(*inputs())
    assert (called.team, called.pool) == ([3], [1, 2])


def test_arrays_of_numpy_have_threads_of_our_own(called: Called) -> None:
    sightline.attention(*(x.numpy() for x in inputs()))
    assert (called.team, called.pool) == ([], [2])


def test_a_tiny_call_asks_for_no_second_thread(called: Called) -> None:
    sightline.attention(*inputs(length=4))
    assert (called.team, called.pool) == ([], [])


@pytest.mark.parametrize("error", [OSError, AttributeError, TypeError])
def test_without_such_a_runtime_threads_are_our_own(
    error: type[Exception], called: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no such file, or it has no such function, or (Windows) nothing is loaded without a name."""

    def refuse(_: object) -> None:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    monkeypatch.setattr(team, "_found", team._found.__wrapped__)
    sightline.attention(*inputs())
    assert (called.team, called.pool) == ([], [2])


class Alone:
    """A runtime that gives its caller no further thread, and counts the regions it was asked for."""

    def __init__(self) -> None:
        self.regions = 0
        self._kept = REGION(self._region), NUMBER(lambda: 0)
        self.team = team.Team(*(ctypes.cast(f, ctypes.c_void_p).value or 0 for f in self._kept))

    def _region(self, share: int, state: int, members: int, flags: int) -> None:
        self.regions += 1
        assert (members, flags) == (2, 0)
        GO(share)(state)


@pytest.mark.parametrize("job", JOBS)
def test_a_runtime_that_gives_fewer_threads(job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does inside of a region of its own, or at its limit."""
    theirs, alone = JOBS[job](), Alone()
    monkeypatch.setattr(team, "of", lambda _: alone.team)
    for a, b in zip(theirs, JOBS[job](), strict=True):
        assert torch.equal(a, b)
    assert alone.regions > 0


def test_a_long_call_is_told_in_several_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two of them Python hears of Ctrl-C."""
    alone = Alone()
    monkeypatch.setattr(team, "of", lambda _: alone.team)
    given = inputs(length=2500)
    expected = sightline.attention(*(x.numpy() for x in given))
    monkeypatch.setattr(team, "SLICES", 1)
    monkeypatch.setattr(working.Work, "slice", lambda *_: False)  # no item is done outside of the share
    got = sightline.attention(*given)
    np.testing.assert_array_equal(got.numpy(), expected)
    assert alone.regions > 1


def output(program: str) -> str:
    """What a program prints, which neither fails nor hangs."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


COMMON = """
import os, signal
import torch, sightline
from sightline.cpu import team
torch.set_num_threads(2)
sightline.set_num_threads(2)
q = torch.randn(1, 4, 500, 32)
first = sightline.attention(q, q, q)
assert team.of(sightline.arrays.workers(q).library) is not None
"""


@needs_team
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_threads_of_our_own() -> None:
    program = """
child = os.fork()
if child == 0:  # the runtime's threads are the parent's
    # (PyTorch's own operations would wait for the parent's threads for ever)
    same = (first.numpy() == sightline.attention(q, q, q).numpy()).all()
    os._exit(0 if same else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert output(COMMON + program) == "0\n"


@needs_team
def test_ctrl_c_ends_a_long_call() -> None:
    program = """
long = torch.randn(1, 8, 30000, 64)
out = torch.full_like(long, float("nan"))
sightline.attention(*[long[:, :, :300]] * 3)  # so that the kernel is there
signal.setitimer(signal.ITIMER_REAL, 0.3)
signal.signal(signal.SIGALRM, signal.default_int_handler)
try:
    sightline.attention(long, long, long, out=out)
except KeyboardInterrupt:
    undone = out.isnan()
    print("begun", not bool(undone.all()), bool(undone.any()), torch.equal(first, sightline.attention(q, q, q)))
"""
    assert output(COMMON + program) == "begun True True True\n"
