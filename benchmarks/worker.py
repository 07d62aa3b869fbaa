"""The process that holds one peer and does what it is told, one JSON line at a time.

Each library gets a process of its own, so that no other's threads, flags or allocator disturb it. Between its
turns the worker sleeps in a read. It never sees another peer's numbers and checks nothing itself.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from benchmarks import check_gradients
from benchmarks.check import sampled
from benchmarks.peers import PEERS, PROBES, STEPS, Case, Prepared, Unsupported
from benchmarks.shapes import SHAPES

if TYPE_CHECKING:
    from benchmarks.peers import Peer


Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "thread": time.thread_time}
"""Thread time is that of one thread's own work, whoever else uses the processor."""


def named(name: str) -> Peer:
    """A peer, a step, a probe or a question by its name."""
    known = {**PEERS, **STEPS, **PROBES}
    if name in known:
        return known[name]
    from benchmarks.questions import QUESTIONS

    return QUESTIONS[name]


class Holder:
    """What the worker has prepared."""

    def __init__(self, peer: Peer, threads: int, clock: Clock = time.perf_counter) -> None:
        self.peer, self.threads, self.clock = peer, threads, clock
        self.prepared: Prepared | None = None

    def hello(self) -> dict[str, Any]:
        """The library's version."""
        return {"version": self.peer.version()}

    def prepare(self, shape: str, dtype: str, logits: float, rows: int) -> dict[str, Any]:
        """Make the case, call twice, and answer with sampled rows of the output and of gradients, if any."""
        self.drop()
        named = SHAPES[shape]
        case = Case(named, dtype, *named.inputs(dtype, logits))
        self.prepared = self.peer.prepare()(case, self.threads)
        first, second = self._seconds(self.prepared), self._seconds(self.prepared)
        rows_out = sampled(named, self.prepared.output(), rows)
        reply = {"first": first, "second": second, "sample": rows_out.tolist()}
        if self.prepared.gradients is not None:
            gradients = check_gradients.sampled(named, self.prepared.gradients())
            reply["gradients"] = {name: x.tolist() for name, x in gradients.items()}
        return reply

    def turn(self, calls: int, warm: int) -> dict[str, Any]:
        """One turn: `warm` untimed calls, then `calls` timed ones."""
        if self.prepared is None:
            raise RuntimeError("turn() before prepare(): there is nothing to call")
        for _ in range(warm):
            self.prepared.call()
        return {"seconds": [self._seconds(self.prepared) for _ in range(calls)]}

    def drop(self) -> dict[str, Any]:
        """Free the case."""
        self.prepared = None
        gc.collect()
        return {}

    def _seconds(self, prepared: Prepared) -> float:
        start = self.clock()
        prepared.call()
        return self.clock() - start


def answer(holder: Holder, request: dict[str, Any]) -> dict[str, Any]:
    """One request's answer; what a library raises is an answer too, so that the others go on."""
    try:
        reply: dict[str, Any] = getattr(holder, request.pop("do"))(**request)
    except Unsupported as reason:
        return {"unsupported": str(reason)}
    except Exception as error:  # whatever a library may raise
        return {"error": f"{type(error).__name__}: {error}"[:400]}
    return reply


def main() -> None:
    # Libraries print to standard output; the replies keep it to themselves and everyone else gets stderr.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    name, threads, clock = sys.argv[1:]
    holder = Holder(named(name), int(threads), CLOCKS[clock])
    for line in sys.stdin:
        replies.write(json.dumps(answer(holder, json.loads(line))) + "\n")


if __name__ == "__main__":
    main()
