"""All peers of one thread count: their outputs checked, then timed in turns, round after round.

Drift of the machine hits all alike, because every peer has a turn in every round and ratios are taken inside
a round. A matrix product is timed between rounds: rounds beside which it was slow are measured again.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks import check, check_gradients, results
from benchmarks.peers import OURS, PROBE, PROBES, Peer
from benchmarks.peers.probe import FLOPS as PROBE_FLOPS
from benchmarks.turns import Worker, settle
from sightline.bench.peaks import measure as measure_peaks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.shapes import Shape
    from sightline.bench.peaks import Peaks

SLOW = 0.7  # seconds a call from which three quiet rounds are enough for a peer
WARM = 0.25  # seconds a call up to which each turn begins with an untimed call


class Effort(NamedTuple):
    """How long to measure: quiet rounds, and seconds of timed calls in one peer's turn."""

    rounds: int
    turn: float


class Checked(NamedTuple):
    """A peer whose output for the cell was right: relative errors, and its first two calls in seconds."""

    error: float
    first: float
    second: float
    gradients: dict[str, float]
    """the errors of gradients by name, if it makes any"""


class Round(NamedTuple):
    """The seconds of each peer's calls, and the slower probe (GFLOP/s) of those before and after."""

    seconds: dict[str, list[float]]
    probe: float


class Field:
    """The workers, and what is done with them."""

    def __init__(
        self, peers: Sequence[Peer], threads: int, isa: str | None, clock: str = "wall", ours: str = OURS
    ) -> None:
        """Start the workers. `ours` is the name of the one that the others' times are divided by."""
        self.threads, self.isa, self.clock, self.ours = threads, isa, clock, ours
        self.gradient_errors: dict[tuple[str, str, str], dict[str, float]] = {}
        """of the cells so far, by shape, dtype and peer"""
        self.best_probe = 0.0
        self.peaks: Peaks | None = None
        """the best of the run so far, but reading that of the last cell"""
        self._stack = ExitStack()
        self.workers = {peer.name: self._start(peer) for peer in peers}
        self._prober = self._start(PROBES[PROBE])
        self._prober.ask("prepare", shape="tiny", dtype="float32", logits=1.0, rows=1)

    def _start(self, peer: Peer) -> Worker:
        worker = Worker(peer, self.threads, self.isa, self.clock)
        self._stack.callback(worker.close)
        return worker

    def __enter__(self) -> Field:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def cell(self, shape: Shape, dtype: str, effort: Effort) -> list[results.Row]:
        """Check, then time, all peers on one shape and dtype; fastest first."""
        before = measure_peaks(self.threads)  # of what this process may use, also where `isa` forbids it
        checked = dict(self.checked(shape, dtype))
        for name, found in checked.items():
            self.gradient_errors[shape.name, dtype, name] = found.gradients
        settle(os.getpid())
        rounds = self._rounds(checked, effort)
        for name in checked:
            self.workers[name].ask("drop")
        now = before.or_better(measure_peaks(self.threads))
        best = now if self.peaks is None else now.or_better(self.peaks)
        # Memory is shared with neighbours, and twice as fast in some minutes as in others; cores are not.
        self.peaks = replace(best, read=now.read)
        rows = [self._row(shape, dtype, name, found, rounds) for name, found in checked.items()]
        return sorted(rows, key=lambda row: row.p50_ms)

    def checked(
        self, shape: Shape, dtype: str, logits: float = 1.0, rows: int = check.ROWS
    ) -> Iterator[tuple[str, Checked]]:
        """Prepare every peer that has this case; those that answer rightly."""
        definition = check.expected(shape, dtype, logits, rows)
        for name, worker in self.workers.items():
            if dtype not in worker.peer.dtypes:
                continue
            reply = worker.ask("prepare", shape=shape.name, dtype=dtype, logits=logits, rows=rows)
            worker.settle()
            if "error" in reply:
                print(f"! {shape.name} {dtype} {name}: {reply['error']}")
            if "sample" not in reply:
                continue
            error = check.relative_error(np.array(reply["sample"]), definition)
            gradients = self._gradient_errors(shape, dtype, logits, reply)
            worst = float(np.max([error, *gradients.values()]))  # NaN if one is
            if check.wrong(worst, dtype):
                print(f"! {shape.name} {dtype} {name}: WRONG, relative error {worst:.2g}; left out")
                worker.ask("drop")
                continue
            yield name, Checked(error, reply["first"], reply["second"], gradients)

    @staticmethod
    def _gradient_errors(shape: Shape, dtype: str, logits: float, reply: dict[str, Any]) -> dict[str, float]:
        """Of the gradients in a worker's reply."""
        if "gradients" not in reply:
            return {}
        return check_gradients.errors(shape, dtype, logits, reply["gradients"])

    def _rounds(self, checked: dict[str, Checked], effort: Effort) -> list[Round]:
        """`effort.rounds` quiet rounds; if twice as many do not hold them, those with the best probes."""
        rounds: list[Round] = []
        before = self._probe()
        for _ in range(2 * effort.rounds):
            quiet = sum(each.probe >= results.DISTURBED * self.best_probe for each in rounds)
            if quiet >= effort.rounds:
                break
            seconds = {}
            for name, found in checked.items():
                if quiet >= 3 and found.second > SLOW:
                    continue
                calls = int(np.clip(effort.turn / found.second, 1, 200))
                seconds[name] = self._turn(self.workers[name], calls, warm=int(found.second < WARM))
            after = self._probe()
            rounds.append(Round(seconds, min(before, after)))
            before = after
        return sorted(rounds, key=lambda each: each.probe, reverse=True)[: effort.rounds]

    def _probe(self) -> float:
        """GFLOP/s of the probe's slowest of three calls."""
        seconds = self._turn(self._prober, 3, warm=1)
        self.best_probe = max(self.best_probe, PROBE_FLOPS / float(np.median(seconds)) / 1e9)
        return PROBE_FLOPS / max(seconds) / 1e9

    @staticmethod
    def _turn(worker: Worker, calls: int, warm: int) -> list[float]:
        reply = worker.ask("turn", calls=calls, warm=warm)
        worker.settle()
        if "seconds" not in reply:
            raise RuntimeError(f"{worker.peer.name}: {reply}")
        return [float(seconds) for seconds in reply["seconds"]]

    def _row(
        self, shape: Shape, dtype: str, name: str, found: Checked, rounds: Sequence[Round]
    ) -> results.Row:
        worker = self.workers[name]
        took = [each.seconds[name] for each in rounds if name in each.seconds]
        seconds = np.concatenate(took)
        low, median, high = (float(value) for value in np.percentile(seconds, (20, 50, 80)))
        ours = self.ours
        both = [each.seconds for each in rounds if name in each.seconds and ours in each.seconds]
        return results.Row(
            shape=shape.name,
            sizes=results.sizes(shape),
            options=results.options(shape),
            dtype=dtype,
            threads=self.threads,
            isa=self.isa or "native",
            peer=name,
            library=worker.peer.library,
            version=worker.version,
            rounds=len(took),
            calls=len(seconds),
            p20_ms=low * 1e3,
            p50_ms=median * 1e3,
            p80_ms=high * 1e3,
            gflops=shape.flops() / median / 1e9,
            ours_faster=results.paired_ratio([(each[name], each[ours]) for each in both]),
            error=found.error,
            first_ms=found.first * 1e3,
            probe_low=min(each.probe for each in rounds),
            probe_best=self.best_probe,
            gigabytes=shape.bytes(dtype) / median / 1e9,
            peak_gflops=self.peaks.of(dtype) if self.peaks else 0.0,
            peak_read=self.peaks.read if self.peaks else 0.0,
        )
