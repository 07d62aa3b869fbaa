"""The pool: all of the work is done once, nobody waits for ever, nobody works on after `run` has returned."""

from __future__ import annotations

import gc
import math
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from sightline.cpu import threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 30.0  # seconds after which a test that waits for another thread gives up


class Items:
    """Work of `count` items; counts what was done, by whom, and how many are at it now."""

    def __init__(self, count: int, do: Callable[[int], object] = lambda _: None) -> None:
        self.left = list(range(count))
        self.do = do
        self.done: list[int] = []
        self.workers: set[int] = set()
        self.active: set[int] = set()
        self.cancelled = 0

    def __call__(self) -> bool:
        me = threading.get_ident()
        self.active.add(me)
        self.workers.add(me)
        try:
            item = self.left.pop()
        except IndexError:
            return False
        else:
            self.do(item)
            self.done.append(item)
            return True
        finally:
            self.active.discard(me)

    def cancel(self) -> None:
        self.cancelled += 1
        self.left.clear()


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(threads, "_pool", threads._Pool())
    monkeypatch.setattr(threads._Setting, "threads", None)
    monkeypatch.delenv(threads.VARIABLE, raising=False)
    threads._available.cache_clear()
    yield
    threads._available.cache_clear()


def meeting(people: int) -> Callable[[int], object]:
    """An item that ends only when `people` threads are at such items at once."""
    barrier = threading.Barrier(people)
    return lambda _: barrier.wait(PATIENCE)


def settled(helpers: int) -> None:
    """Wait until every helper sleeps again: `run` does not wait for one that came too late for its share."""
    deadline = time.monotonic() + PATIENCE
    while len(threads._pool.idle) < helpers:
        assert time.monotonic() < deadline, "a helper never came back"
        time.sleep(0.001)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_item_is_done_once(count: int) -> None:
    for items in (0, 1, 5, 100):
        work = Items(items)
        threads.run(work, count)
        assert sorted(work.done) == list(range(items))
        assert work.cancelled == 0


@pytest.mark.parametrize("count", [1, 2, 4])
def test_as_many_threads_as_asked_for(count: int) -> None:
    work = Items(count, meeting(count))  # comes together only if all of them take part
    threads.run(work, count)
    assert len(work.workers) == count
    assert threading.get_ident() in work.workers


def test_helpers_are_used_again() -> None:
    first = Items(3, meeting(3))
    threads.run(first, 3)
    settled(2)
    again = Items(3, meeting(3))
    threads.run(again, 3)
    assert again.workers == first.workers
    narrow = Items(50, lambda _: time.sleep(0.0005))
    settled(2)
    threads.run(narrow, 2)
    assert len(narrow.workers) <= 2
    assert threads._pool.size == 2


def test_a_sleeping_helper_keeps_no_work_alive() -> None:
    work = Items(2, meeting(2))
    gone = weakref.ref(work)
    threads.run(work, 2)
    settled(1)
    del work
    gc.collect()
    assert gone() is None


def test_an_error_in_the_caller() -> None:
    def fail(_: int) -> None:
        raise ZeroDivisionError("in the caller")

    work = Items(9, fail)
    with pytest.raises(ZeroDivisionError, match="in the caller"):
        threads.run(work, 1)
    assert work.cancelled == 1


def test_an_error_in_a_helper_reaches_the_caller() -> None:
    caller = threading.get_ident()
    together = meeting(2)

    def fail(item: int) -> None:
        together(item)
        if threading.get_ident() != caller:
            raise ZeroDivisionError("in the helper")

    work = Items(2, fail)
    with pytest.raises(ZeroDivisionError, match="in the helper"):
        threads.run(work, 2)
    assert work.cancelled == 1
    settled(1)
    work = Items(2, meeting(2))
    threads.run(work, 2)  # and the helper lives on
    assert len(work.done) == 2


class Uncancellable(Items):
    def cancel(self) -> None:
        raise RuntimeError("cancel failed")


def test_even_a_broken_cancel_in_a_helper_does_not_hang_the_caller() -> None:
    caller = threading.get_ident()
    together = meeting(2)

    def fail(item: int) -> None:
        together(item)
        if threading.get_ident() != caller:
            raise ZeroDivisionError

    with pytest.raises(RuntimeError, match="cancel failed"):
        threads.run(Uncancellable(2, fail), 2)


def test_after_an_error_nobody_is_still_at_work() -> None:
    caller, helper_is_in, release = threading.get_ident(), threading.Event(), threading.Event()

    def do(_: int) -> None:
        if threading.get_ident() == caller:
            assert helper_is_in.wait(PATIENCE)
            threading.Timer(0.1, release.set).start()
            raise ZeroDivisionError
        helper_is_in.set()
        assert release.wait(PATIENCE)

    work = Items(2, do)
    with pytest.raises(ZeroDivisionError):
        threads.run(work, 2)
    assert release.is_set()
    assert work.active == set()


def test_nested_calls() -> None:
    inner: list[Items] = []

    def nest(_: int) -> None:
        work = Items(20)
        inner.append(work)
        threads.run(work, 3)

    outer = Items(30, nest)
    threads.run(outer, 3)
    assert len(outer.done) == 30
    assert all(len(work.done) == 20 for work in inner)
    assert threads._pool.size <= 2


def test_many_callers_at_once() -> None:
    works = [[Items(5) for _ in range(100)] for _ in range(6)]

    def call_all(mine: list[Items]) -> None:
        for work in mine:
            threads.run(work, 3)

    callers = [threading.Thread(target=call_all, args=(mine,)) for mine in works]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all(sorted(work.done) == list(range(5)) for mine in works for work in mine)
    assert threads._pool.size <= 2


def test_a_caller_that_finds_the_helpers_busy_works_alone() -> None:
    busy, release = threading.Event(), threading.Event()
    both = threading.Barrier(2)

    def occupy(_: int) -> None:
        both.wait(PATIENCE)
        busy.set()
        assert release.wait(PATIENCE)

    first = threading.Thread(target=threads.run, args=(Items(2, occupy), 2))
    first.start()
    assert busy.wait(PATIENCE)
    work = Items(10)
    threads.run(work, 2)
    assert work.workers == {threading.get_ident()}
    assert len(work.done) == 10
    release.set()
    first.join()


def test_a_helper_that_does_not_wake_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asleep = threading.Event()
    live = threads._Helper._live

    def oversleep(self: threads._Helper) -> None:
        assert asleep.wait(PATIENCE)
        live(self)

    monkeypatch.setattr(threads._Helper, "_live", oversleep)
    work = Items(10)
    threads.run(work, 2)
    assert len(work.done) == 10
    asleep.set()
    settled(1)
    assert work.workers == {threading.get_ident()}  # it found its share taken back


def test_where_no_thread_can_be_started_the_caller_works_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    work = Items(10)
    threads.run(work, 4)
    assert len(work.done) == 10
    assert threads._pool.size == 0


# ---- processes: fork, Ctrl-C, the end of the interpreter ----

COMMON = """
import atexit, os, signal, sys, threading, time
from sightline.cpu import threads

class Items:
    def __init__(self, count, do):
        self.left, self.do, self.done, self.active = list(range(count)), do, 0, set()
    def __call__(self):
        me = threading.get_ident()
        self.active.add(me)
        try:
            item = self.left.pop()
        except IndexError:
            return False
        else:
            self.do(item)
            self.done += 1
            return True
        finally:
            self.active.discard(me)
    def cancel(self):
        self.left.clear()

def meeting(people):
    barrier = threading.Barrier(people)
    return lambda _: barrier.wait(30)

def on_main():
    return threading.current_thread() is threading.main_thread()
"""


def python(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMON + program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def output(program: str) -> str:
    out, errors, code = ended(python(program))
    assert code == 0, errors
    return out


def ended(process: subprocess.Popen[str]) -> tuple[str, str, int]:
    """What the process still says, and its exit code; a process that hangs is killed."""
    try:
        out, errors = process.communicate(timeout=2 * PATIENCE)
    finally:
        process.kill()
        process.wait()
    return out, errors, process.returncode


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_a_pool_of_its_own() -> None:
    program = """
threads.run(Items(2, meeting(2)), 2)
child = os.fork()
work = Items(2, meeting(2))  # comes together only with a helper that lives in this process
threads.run(work, 2)
if child == 0:
    os._exit(0 if work.done == 2 else 3)
print(work.done, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert output(program) == "2 0\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_while_another_thread_runs() -> None:
    program = """
stop = threading.Event()
def others():
    while not stop.is_set():
        threads.run(Items(8, lambda _: time.sleep(0.0002)), 3)
caller = threading.Thread(target=others)
caller.start()
codes = []
for _ in range(10):
    time.sleep(0.003)
    child = os.fork()
    if child == 0:
        work = Items(2, meeting(2))
        threads.run(work, 2)
        os._exit(0 if work.done == 2 else 3)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
caller.join()
print(sum(codes), len(codes))
"""
    assert output(program) == "0 10\n"


def test_calls_at_the_end_of_the_interpreter() -> None:
    program = """
threads.run(Items(2, meeting(2)), 2)
def late(where):
    work = Items(5, lambda _: None)
    threads.run(work, 4)  # more helpers than there are: new ones cannot be started any more
    print(where, work.done)
class Last:
    def __del__(self, late=late):
        late("del")
sys.modules["last"] = Last()
atexit.register(late, "exit")
"""
    assert output(program).split() == ["exit", "5", "del", "5"]


INTERRUPTED = """
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what is in the background
stuck = threading.Event()
def slice_of_10_ms(_):
    if not on_main():
        stuck.set()
    time.sleep(0.01)
work = Items(100_000, slice_of_10_ms)
def announce():
    stuck.wait(30)
    print("working", flush=True)
threading.Thread(target=announce).start()
try:
    threads.run(work, 2)
except KeyboardInterrupt:
    print("interrupted", len(work.left), len(work.active), flush=True)
"""


def test_ctrl_c_ends_a_long_call() -> None:
    process = python(INTERRUPTED)
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGINT)
    out, errors, code = ended(process)
    assert (code, out) == (0, "interrupted 0 0\n"), errors


STUBBORN = """
release = threading.Event()
helper_is_in = threading.Event()
def do(_):
    if on_main():
        helper_is_in.wait(30)  # the caller's own items end quickly; it then waits for the helper
    else:
        helper_is_in.set()
        print("waiting", flush=True)
        release.wait(30)
work = Items(2, do)
def count_interrupts(*_):
    global interrupts
    interrupts += 1
    print("signal", flush=True)
    if interrupts == 5:
        threading.Timer(0.1, release.set).start()
    raise KeyboardInterrupt
interrupts = 0
signal.signal(signal.SIGINT, count_interrupts)
try:
    threads.run(work, 2)
except KeyboardInterrupt:
    print("interrupted", release.is_set(), len(work.active), flush=True)
"""


def test_a_second_ctrl_c_still_waits_for_the_helpers() -> None:
    process = python(STUBBORN)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    for _ in range(5):
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "signal\n"
    out, errors, code = ended(process)
    assert (code, out) == (0, "interrupted True 0\n"), errors


# ---- how many threads ----


def test_setting_and_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_cores", lambda _: 6)
    monkeypatch.setattr(threads, "_quota", lambda: math.inf)
    assert threads.get_num_threads() == 6
    monkeypatch.setenv(threads.VARIABLE, " 3 ")
    assert threads.get_num_threads() == 3
    threads.set_num_threads(5)
    assert threads.get_num_threads() == 5


@pytest.mark.parametrize("count", [0, -1, 4097])
def test_a_count_out_of_range(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=f"threads is {count}: the number of threads goes from 1 to 4096"):
        threads.set_num_threads(count)
    monkeypatch.setenv(threads.VARIABLE, str(count))
    with pytest.raises(ValueError, match=f"SIGHTLINE_NUM_THREADS is {count}: "):
        threads.get_num_threads()


@pytest.mark.parametrize("count", [2.0, "2", None, True])
def test_a_count_that_is_no_int(count: Any) -> None:
    with pytest.raises(TypeError, match=f"threads must be an int, not {type(count).__name__}"):
        threads.set_num_threads(count)


def test_a_variable_that_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(threads.VARIABLE, "many")
    with pytest.raises(ValueError, match="SIGHTLINE_NUM_THREADS='many' is not a whole number from 1 to 4096"):
        threads.get_num_threads()


def test_the_default_is_what_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_quota", lambda: math.inf)
    monkeypatch.setattr(threads, "_cores", len)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5, 7}, raising=False)
    assert threads.get_num_threads() == 3
    threads._available.cache_clear()
    monkeypatch.setattr(threads, "_quota", lambda: 2.2)
    assert threads.get_num_threads() == 2
    threads._available.cache_clear()
    monkeypatch.setattr(threads, "_quota", lambda: 0.1)
    assert threads.get_num_threads() == 1
    threads._available.cache_clear()
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(threads, "_quota", lambda: math.inf)
    monkeypatch.setattr(os, "cpu_count", lambda: 11)
    assert threads.get_num_threads() == 11


def test_hyper_threads_are_one_core(tmp_path: Path) -> None:
    for cpu, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        (tmp_path / f"cpu{cpu}/topology").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}/topology/thread_siblings_list").write_text(siblings)
    assert threads._cores({0, 1, 2, 3}, tmp_path) == 2
    assert threads._cores({0, 2}, tmp_path) == 1
    assert threads._cores({0, 1, 9}, tmp_path) == 3  # unreadable for one: counted as they are


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000"}, 4.0),
        ("0::/a/b\n", {"a/b/cpu.max": "300000 100000", "a/cpu.max": "200000 100000"}, 2.0),
        ("0::/seen/from/outside\n", {"cpu.max": "100000 50000"}, 2.0),
        (
            "3:memory:/x\n4:cpu,cpuacct:/a\n",
            {"cpu/a/cpu.cfs_quota_us": "5", "cpu/a/cpu.cfs_period_us": "2"},
            2.5,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        ("5:cpuset:/a\n", {"cpu/a/cpu.cfs_quota_us": "5", "cpu/a/cpu.cfs_period_us": "2"}, math.inf),
        ("0::/\n", {"cpu.max": "nonsense"}, math.inf),
        ("0::/\n", {}, math.inf),
        (None, {}, math.inf),
    ],
)
def test_control_groups(tmp_path: Path, groups: str | None, files: dict[str, str], expected: float) -> None:
    membership, mount = tmp_path / "groups", tmp_path / "mount"
    if groups is not None:
        membership.write_text(groups)
    for name, text in files.items():
        (mount / name).parent.mkdir(parents=True, exist_ok=True)
        (mount / name).write_text(text)
    assert threads._quota(membership, mount) == expected
