"""What a call costs besides its arithmetic: the import, the first call, and a tiny call over and over.

Imports and first calls are timed in fresh processes. "Cold" has an empty cache directory, so that the kernel
is compiled; "from disk" finds what the cold process left.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from typing import NamedTuple

from benchmarks.peers import OURS, PEERS
from benchmarks.turns import ROOT, Worker, environment

IMPORT = """
import time
import numpy
start = time.perf_counter()
import {library}
print(time.perf_counter() - start)
"""
FIRST_CALL = """
import time
import numpy
import sightline
q = numpy.random.default_rng(0).standard_normal((1, 4, 64, 64), numpy.float32)
start = time.perf_counter()
sightline.attention(q, q, q, causal=True)
print(time.perf_counter() - start)
"""
TINY_PEERS = (OURS, "torch", "ort-attention")


class Limit(NamedTuple):
    """What is measured, and the most it may take, in milliseconds."""

    what: str
    at_most: float | None


def fresh(program: str, cache: str) -> float:
    """Run a program in a new process with its own user cache; what it prints, as milliseconds."""
    env = environment(PEERS[OURS], len(os.sched_getaffinity(0)), None)
    env["SIGHTLINE_CACHE"] = cache
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout) * 1e3


def report(limit: Limit, milliseconds: float) -> None:
    """One line: measured, and the limit where there is one."""
    text = f"{limit.what:<44}{milliseconds:>10.4g} ms"
    if limit.at_most is not None:
        text += f"   at most {limit.at_most:g} ms: {'met' if milliseconds <= limit.at_most else 'MISSED'}"
    print(text, flush=True)


def imports(runs: int) -> None:
    """Import times beyond NumPy's own."""
    with tempfile.TemporaryDirectory() as cache:
        for library in dict.fromkeys(peer.library for peer in PEERS.values() if peer.installed()):
            program = IMPORT.format(library=library)
            limit = Limit(f"import {library}, beyond NumPy", 150.0 if library == OURS else None)
            report(limit, statistics.median(fresh(program, cache) for _ in range(runs)))


def first_calls(runs: int) -> None:
    """Cold, and from the disk cache."""
    cold, warm = [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(fresh(FIRST_CALL, cache))
            warm.append(fresh(FIRST_CALL, cache))
    report(Limit("first call, cold", 500.0), statistics.median(cold))
    report(Limit("first call, from disk", 40.0), statistics.median(warm))


def tiny_calls(calls: int) -> None:
    """A 1×1×8×8×64 call, repeated."""
    for name in TINY_PEERS:
        if not PEERS[name].installed():
            continue
        worker = Worker(PEERS[name], threads=1)
        ready = worker.ask("prepare", shape="tiny", dtype="float32", logits=1.0, rows=1)
        reply = worker.ask("turn", calls=calls, warm=calls // 10)
        worker.close()
        if "seconds" not in reply:
            print(f"! {name}: {ready.get('error', reply)}")
            continue
        limit = Limit(f"tiny call, {name}", 0.025 if name == OURS else None)
        report(limit, statistics.median(reply["seconds"]) * 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description="import, first call, tiny call")
    parser.add_argument("--runs", type=int, default=5, help="fresh processes for each figure")
    parser.add_argument("--calls", type=int, default=5000, help="tiny calls")
    args = parser.parse_args()
    tiny_calls(args.calls)
    imports(args.runs)
    first_calls(args.runs)


if __name__ == "__main__":
    main()
