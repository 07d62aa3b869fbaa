"""The pool: one call's work, shared by the calling thread and helper threads that sleep between calls.

A helper is handed a share and woken; it takes slices of the work until none is left. A share that no helper
has begun is taken back when the caller is done: no call waits for a thread that is slow to wake, and one
finding every helper busy (nested calls, many callers at once) does its work alone.
"""

from __future__ import annotations

import functools
import math
import operator
import os
import sys
import threading
from pathlib import Path
from typing import Protocol

VARIABLE = "SIGHTLINE_NUM_THREADS"
MOST = 4096


class Work(Protocol):
    """What a call has to do. It owns the arrays it works on: they live as long as a helper may hold it."""

    def __call__(self) -> bool:
        """Do one slice, some 10 ms at most and without the GIL; True while more may remain."""

    def cancel(self) -> None:
        """Make every later slice return False at once. Must not fail."""


class _Share:
    """One helper's part in one call."""

    __slots__ = ("done", "error", "finished", "owner", "work")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.owner: dict[str, str] = {}
        self.finished = threading.Lock()
        self.finished.acquire()
        self.done = False
        self.error: BaseException | None = None

    def claim(self, who: str) -> bool:
        """Whether the share is `who`'s: the first to ask has it, however often it asks."""
        return self.owner.setdefault("owner", who) == who

    def do(self) -> None:
        try:
            try:
                while self.work():
                    pass
            except BaseException:
                self.work.cancel()
                raise
        except BaseException as error:
            self.error = error

    def end(self) -> None:
        self.done = True
        self.finished.release()

    def wait(self) -> None:
        """Return when no helper has this share any more; may be interrupted anywhere and called again."""
        while not (self.done or self.claim("caller")):
            self.finished.acquire()


class _Helper:
    """A daemon thread that sleeps until it is handed a share."""

    __slots__ = ("idle", "share", "wake")

    def __init__(self, idle: list[_Helper], share: _Share) -> None:
        self.idle = idle
        self.share: _Share | None = share
        self.wake = threading.Lock()  # open: the first share is there already
        threading.Thread(target=self._live, name="sightline", daemon=True).start()

    def _live(self) -> None:
        while True:
            self.wake.acquire()
            self._serve()  # a frame of its own: a sleeping helper keeps no array alive

    def _serve(self) -> None:
        share, self.share = self.share, None
        if share is None or not share.claim("helper"):
            self.idle.append(self)
            return
        share.do()
        self.idle.append(self)  # before the caller goes on, so that its next call finds this helper
        share.end()


class _Pool:
    """The helpers of this process: as many as the widest call so far has asked for."""

    def __init__(self) -> None:
        self.idle: list[_Helper] = []
        self.size = 0
        self.lock = threading.Lock()

    def hand_out(self, work: Work, helpers: int, shares: list[_Share]) -> None:
        """Give up to `helpers` helpers a share of the work, each noted in `shares` before it can begin."""
        for _ in range(helpers):
            share = _Share(work)
            shares.append(share)
            try:
                helper = self.idle.pop()
            except IndexError:
                if not self._grow(share, helpers):
                    return
            else:
                helper.share = share
                helper.wake.release()

    def _grow(self, share: _Share, most: int) -> bool:
        with self.lock:
            if self.size >= most:
                return False
            try:
                _Helper(self.idle, share)
            except RuntimeError:  # the system allows no more threads
                return False
            self.size += 1
            return True


_pool = _Pool()


def run(work: Work, threads: int) -> None:
    """Do all of `work` with up to `threads` threads, the caller among them; an error in any is raised here.

    After Ctrl-C or an error the work is cancelled, and `run` returns only when every helper has left it.
    """
    shares: list[_Share] = []
    begun, stop = False, None  # type: bool, BaseException | None
    while True:  # everything is inside this one try: wherever an interrupt comes, helpers are waited for
        try:
            if stop is not None:
                work.cancel()
            elif not begun:
                begun = True
                if threads > 1 and not sys.is_finalizing():  # at the very end other threads no longer run
                    _pool.hand_out(work, threads - 1, shares)
                while work():
                    pass
            for share in shares:
                share.wait()
            break
        except BaseException as error:
            stop = error if stop is None else stop
    errors = [stop, *(share.error for share in shares)]
    for failure in errors:
        if failure is not None:
            raise failure


# ---- how many threads ----


def _cores(cpus: set[int], system: Path = Path("/sys/devices/system/cpu")) -> int:
    """Physical cores among `cpus`: two hyper-threads share one set of vector units, and gain nothing here."""
    siblings = (system / f"cpu{cpu}/topology/thread_siblings_list" for cpu in cpus)
    try:
        return len({file.read_text() for file in siblings})
    except OSError:  # the system does not say
        return len(cpus)


def _limit(folder: Path) -> float:
    """CPUs' worth of time that one control group grants (cgroup v2's cpu.max, v1's cfs files), or inf."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):  # no such file; "max"
        return math.inf


def _quota(groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> float:
    """The tightest CPU limit of the control groups around this process."""
    limits = [math.inf]
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:  # "0::/path" in version 2, "4:cpu,cpuacct:/path" in version 1
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = mount / "cpu" if controllers else mount
        group = base / path.lstrip("/")
        limits += [_limit(folder) for folder in (group, *group.parents)]
    return min(limits)


@functools.cache
def _available() -> int:
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    return min(MOST, max(1, min(_cores(cpus), round(min(_quota(), MOST)))))


def _validated(count: int, name: str) -> int:
    if not 1 <= count <= MOST:
        raise ValueError(f"{name} is {count}: the number of threads goes from 1 to {MOST}")
    return count


class _Setting:
    """What set_num_threads was told, if anything."""

    threads: int | None = None


def set_num_threads(threads: int) -> None:
    """Let later calls of this process use up to `threads` threads; results do not depend on it.

    Args:
        threads: 1 to 4096, the calling thread included. More than the cores is allowed and helps nothing.

    Raises:
        TypeError, ValueError: `threads` is not an int, or not in this range.

    Example:
        >>> import sightline
        >>> before = sightline.get_num_threads()
        >>> sightline.set_num_threads(1)
        >>> sightline.get_num_threads()
        1
        >>> sightline.set_num_threads(before)
    """
    try:
        count = operator.index(threads)
    except TypeError:
        count = None
    if count is None or isinstance(threads, bool):
        raise TypeError(f"threads must be an int, not {type(threads).__name__}")
    _Setting.threads = _validated(count, "threads")


def get_num_threads() -> int:
    """Threads a call may use: set_num_threads, else SIGHTLINE_NUM_THREADS, else this process's cores.

    Returns:
        1 to 4096. Hyper-threads of one core count once, and a control group's CPU limit counts.

    Raises:
        ValueError: SIGHTLINE_NUM_THREADS is not a number from 1 to 4096.

    Example:
        >>> import sightline
        >>> sightline.get_num_threads() >= 1
        True
    """
    if _Setting.threads is not None:
        return _Setting.threads
    word = os.environ.get(VARIABLE, "").strip()
    if not word:
        return _available()
    try:
        count = int(word)
    except ValueError:
        raise ValueError(f"{VARIABLE}={word!r} is not a whole number from 1 to {MOST}") from None
    return _validated(count, VARIABLE)


def _in_child() -> None:
    """After a fork the helpers are the parent's alone, and the child may be given other cores."""
    global _pool  # noqa: PLW0603
    _pool = _Pool()
    _available.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
