"""What a call costs besides its arithmetic: import, first call, a tiny call over and over, a new length each time.

Imports and first calls are timed in fresh processes. "Cold" has an empty cache directory, so that the kernel
is compiled; "from disk" finds what the cold process left.
"""

from __future__ import annotations

import argparse
import atexit
import functools
import os
import shutil
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
# A decoder's cache grows: every call has a length that none had before.
NEW_LENGTH = """
import statistics
import time
import numpy
import sightline
q, k = numpy.random.default_rng(0).standard_normal((2, 8, 1000, 64), numpy.float32)
def call(length):
    start = time.perf_counter()
    sightline.attention(q[:, :1], k[:, :length], k[:, :length])
    return time.perf_counter() - start
call(1)
print(statistics.median(call(length) - call(length) for length in range(2, 1000)))
"""
TINY_PEERS = ("torch", OURS, "ort-attention")
AT_MOST = 1.5  # times PyTorch's tiny call


class Limit(NamedTuple):
    """What is measured, and the most it may take, in milliseconds."""

    what: str
    at_most: float | None


@functools.cache
def _bytecode() -> str:
    """A folder for Python's compiled sources, for as long as this runs."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def fresh(program: str, cache: str) -> float:
    """Run a program in a new process with its own user cache; what it prints, as milliseconds.

    Python's compilation of sources is what pip has done for an installed library: only a first run has it here.
    """
    env = environment(PEERS[OURS], len(os.sched_getaffinity(0)), None)
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    env |= {"SIGHTLINE_CACHE": cache, "PYTHONPYCACHEPREFIX": _bytecode()}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout) * 1e3


def report(limit: Limit, milliseconds: float) -> None:
    """One line: measured, and the limit where there is one."""
    text = f"{limit.what:<44}{milliseconds:>10.4g} ms"
    if limit.at_most is not None:
        text += f"   at most {limit.at_most:.3g} ms: {'met' if milliseconds <= limit.at_most else 'MISSED'}"
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


def new_lengths(runs: int) -> None:
    """What a call takes longer when its length is new."""
    with tempfile.TemporaryDirectory() as cache:
        report(
            Limit("a new length, more", 0.1), statistics.median(fresh(NEW_LENGTH, cache) for _ in range(runs))
        )


def tiny_calls(calls: int) -> None:
    """A 1×1×8×8×64 call, repeated; ours may take AT_MOST times PyTorch's time."""
    allowed = None
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
        milliseconds = statistics.median(reply["seconds"]) * 1e3
        if name == "torch":
            allowed = AT_MOST * milliseconds
        report(Limit(f"tiny call, {name}", allowed if name == OURS else None), milliseconds)


def main() -> None:
    parser = argparse.ArgumentParser(description="import, first call, tiny call")
    parser.add_argument("--runs", type=int, default=5, help="fresh processes for each figure")
    parser.add_argument("--calls", type=int, default=5000, help="tiny calls")
    args = parser.parse_args()
    tiny_calls(args.calls)
    new_lengths(args.runs)
    imports(args.runs)
    first_calls(args.runs)


if __name__ == "__main__":
    main()
