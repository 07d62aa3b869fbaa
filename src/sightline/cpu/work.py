"""One call's items as the threads that share them see them, and which threads those are."""

from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.cpu import team, threads
from sightline.cpu.arguments import SLOT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sightline.arrays import Workers

CANCELLED = 2**62  # an item number no call reaches

_thread = threading.local()


def workspace(size: int) -> int:
    """The address of this thread's working memory, aligned to 64 bytes; it only grows."""
    if getattr(_thread, "size", 0) < size:
        # Earlier, smaller ones are kept: a kernel that a signal handler interrupted may be using one.
        kept = _thread.__dict__.setdefault("kept", [])
        kept.append(zeros(size))
        _thread.address, _thread.size = kept[-1].ctypes.data, size
    return int(_thread.address)


def zeros(size: int) -> NDArray[np.uint8]:
    """So many bytes, from a multiple of 64 on."""
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


class Work:
    """One call: a kernel, its arguments, and the memory that each thread has for itself."""

    __slots__ = ("_block", "_keep", "_kernel", "_sums", "arguments", "sums_bytes", "workspace_bytes")

    def __init__(
        self,
        kernel: Any,
        block: ctypes.Array[ctypes.c_int64],
        workspace_bytes: int,
        keep: object,
        sums_bytes: int = 0,
    ) -> None:
        """Take in a call.

        Args:
            kernel: called with the addresses of the arguments, of working memory and, if there are sums, of them.
            block: the arguments.
            workspace_bytes: working memory; nothing in it outlives a slice.
            keep: what holds the memory of the arrays.
            sums_bytes: memory for sums, which stay with a thread until its item is done; a multiple of 64.
        """
        self._kernel, self._block, self._keep = kernel, block, keep
        self.arguments = ctypes.addressof(block)
        self.workspace_bytes, self.sums_bytes = workspace_bytes, sums_bytes
        self._sums: dict[int, int] = {}

    def __call__(self) -> bool:
        """A slice of the items, on memory of this thread's own."""
        if not self.sums_bytes:
            return self.slice(workspace(self.workspace_bytes), 0)
        me = threading.get_ident()
        sums = self._sums.get(me) or self._sums.setdefault(me, self.sums(1))
        return self.slice(workspace(self.workspace_bytes), sums)

    def slice(self, memory: int, sums: int) -> bool:
        """A slice of the items; True while more may remain."""
        given = (self.arguments, memory, sums) if self.sums_bytes else (self.arguments, memory)
        return bool(self._kernel(*given))

    @property
    def address(self) -> int:
        """The kernel's."""
        return int(ctypes.cast(self._kernel, ctypes.c_void_p).value or 0)

    def sums(self, count: int) -> int:
        """The address of sums for so many threads, side by side, which live as long as the work."""
        memory = zeros(count * self.sums_bytes)
        memory.reshape(count, -1)[:, :8] = 255  # no item at hand
        self._keep = (self._keep, memory)
        return int(memory.ctypes.data)

    def cancel(self) -> None:
        """No further item is taken."""
        self._block[SLOT["next_item"]] = CANCELLED


def available(workers: Workers | None) -> int:
    """Threads a call may use, on arrays whose framework computes with these workers."""
    ours = threads.get_num_threads()
    return ours if workers is None else min(ours, workers.number())


def do(work: Work, worth: int, workers: Workers | None) -> None:
    """Do all of it, with up to `worth` threads; on those of the arrays' framework, where they can be had."""
    ours, theirs = threads.get_num_threads(), workers.number() if workers else 0
    if workers is not None and worth > 1 and 1 < theirs <= ours:
        lent = team.of(workers.library)
        if lent is not None:
            lent.run(work, theirs, workspace(theirs * team.apart(work.workspace_bytes)))
            return
    threads.run(work, min(worth, ours, theirs or ours))
