"""The threads of an OpenMP runtime that is there already, PyTorch's, as the ones that do a call's work.

Between two operations a runtime's threads spin, for milliseconds, to be quick about the next one: helpers of our
own would share their cores with them. And a thread that spins is there at once, where one that sleeps takes
20 µs and more to wake.
"""

from __future__ import annotations

import ctypes
import functools
import os
from typing import TYPE_CHECKING

from sightline.cpu import compile as compiler
from sightline.cpu import isa

if TYPE_CHECKING:
    from sightline.cpu.isa import Isa
    from sightline.cpu.work import Work

# 64-bit slots of what the threads are told, and then one for each: whether it leaves anything to be done.
STATE = ("number", "slices", "kernel", "arguments", "workspace", "workspace_bytes", "sums", "sums_bytes")
MEMBERS = len(STATE)
SLICES = 10  # of some 10 ms at most, until Python hears of Ctrl-C
NOT_BEGUN = -1
PAGE = 4096


def apart(size: int) -> int:
    """Bytes from one thread's working memory to the next one's.

    Whole pages: what a processor fetches ahead for one thread is never another's.
    """
    return -(-size // PAGE) * PAGE


class Team:
    """The threads that one runtime has for whoever calls it."""

    def __init__(self, parallel: int, number: int) -> None:
        """Take in the addresses of GOMP_parallel and omp_get_thread_num."""
        form = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        self._parallel, self._number = form(parallel), number

    def run(self, work: Work, members: int, memory: int) -> None:
        """Do all of the work with so many threads, the caller among them.

        Args:
            work: what to do.
            members: as many as the runtime's other calls have: it ends the threads that a call has no use for.
            memory: working memory, `apart` from one thread to the next.
        """
        size, sums_size = apart(work.workspace_bytes), work.sums_bytes
        sums = work.sums(members) if sums_size else 0
        told = (self._number, SLICES, work.address, work.arguments, memory, size, sums, sums_size)
        state = (ctypes.c_int64 * (MEMBERS + members))(*told)
        share, more = _share(3 if sums_size else 2, isa.chosen()), True
        while more:
            state[MEMBERS:] = [NOT_BEGUN] * members
            self._parallel(share, ctypes.addressof(state), members, 0)
            for member, left in enumerate(state[MEMBERS:]):
                if left == NOT_BEGUN:  # the runtime gave fewer threads, as inside of a region of its own
                    state[MEMBERS + member] = work.slice(memory + member * size, sums + member * sums_size)
            more = any(state[MEMBERS:])


@functools.cache
def _share(addresses: int, chosen: Isa) -> int:
    return compiler.program("share", addresses, chosen)


def of(library: str) -> Team | None:
    """The threads of the runtime that this shared library calls, if it is one that can be called."""
    return None if _Process.is_child else _found(library)


@functools.cache
def _found(library: str) -> Team | None:
    # What is loaded first has the name: a runtime that LD_PRELOAD put in the place of the library's own.
    for path in (None, library):
        try:
            found = ctypes.CDLL(path)
            parallel, number = found.GOMP_parallel, found.omp_get_thread_num
        except (OSError, AttributeError, TypeError):
            continue
        return Team(*(int(ctypes.cast(f, ctypes.c_void_p).value or 0) for f in (parallel, number)))
    return None


class _Process:
    """After a fork a runtime may wait for threads that are the parent's alone."""

    is_child = False


def _in_child() -> None:
    _Process.is_child = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
