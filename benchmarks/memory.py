"""How much memory one call takes beyond its inputs and outputs, and how long: in a process of its own.

    growth = the most that was resident during the call − what was before it − the arrays that it returned

Kernels are compiled, threads started and libraries loaded by a small call before.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.peers import Case
from benchmarks.shapes import SHAPES
from benchmarks.turns import ROOT, environment
from benchmarks.worker import CLOCKS, named

if TYPE_CHECKING:
    from benchmarks.peers import Peer, Prepared
    from benchmarks.shapes import Shape

MIB = 2.0**20


class Measured(NamedTuple):
    """One call in a fresh process."""

    seconds: float
    growth: float  # MiB
    returned: float  # MiB


def measure(peer: Peer, shape: str, dtype: str, threads: int, clock: str) -> Measured:
    """One call, whose answer is checked.

    Raises:
        RuntimeError: the process failed, or its answer is wrong; the text says how.
    """
    command = [sys.executable, "-m", "benchmarks.memory", peer.name, shape, dtype, str(threads), clock]
    # Freed memory goes back at once: what lay around from before would hide growth.
    env = environment(peer, threads, None) | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def resident(name: str) -> float:
    """VmRSS or VmHWM (its highest so far) of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return float(line.split()[1]) * 1024
    raise RuntimeError(f"no {name} in /proc/self/status: expected Linux")


def _bytes(answer: Any) -> float:
    """Of all arrays in an answer: nested tuples, and records of arrays."""
    if hasattr(answer, "nbytes"):
        return float(answer.nbytes)
    if hasattr(answer, "__slots__") and not isinstance(answer, tuple):
        answer = [getattr(answer, name) for name in answer.__slots__]
    return sum(map(_bytes, answer)) if isinstance(answer, Iterable) else 0.0


def _prepared(peer: Peer, shape: Shape, dtype: str, threads: int) -> Prepared:
    return peer.prepare()(Case(shape, dtype, *shape.inputs(dtype)), threads)


def main() -> None:
    name, shape, dtype, threads, clock = sys.argv[1:]
    whole = SHAPES[shape]
    few = min(whole.queries, 640)
    _prepared(named(name), replace(whole, queries=few, keys=few), dtype, int(threads)).call()
    prepared = _prepared(named(name), whole, dtype, int(threads))
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    before, start = resident("VmRSS"), CLOCKS[clock]()
    answer = prepared.call()
    seconds, peak, returned = CLOCKS[clock]() - start, resident("VmHWM"), _bytes(answer)
    prepared.output()
    growth = (peak - before - returned) / MIB
    print(json.dumps(Measured(seconds, growth, returned / MIB)._asdict()))


if __name__ == "__main__":
    main()
