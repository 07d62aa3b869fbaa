"""Starting workers, giving them their turns, and waiting until its threads sleep before the next one's.

Most libraries' threads keep spinning after a call (OpenBLAS some 110 ms, XLA 65, ONNX Runtime 40) and
would take a core from whoever comes next.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.peers import Peer

ROOT = Path(__file__).parent.parent
# Some environments set these for emulated processors; elsewhere they slow NumPy's matrix products down.
_HANDICAPS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "SIGHTLINE_NUM_THREADS",
)


def environment(peer: Peer, threads: int, isa: str | None) -> dict[str, str]:
    """The worker's environment: ours, less what handicaps, plus thread counts and the forced ISA."""
    env = {name: value for name, value in os.environ.items() if name not in _HANDICAPS}
    env.update(dict.fromkeys(_THREADS, str(threads)))
    env.update(peer.environment)
    if isa == "avx2":
        env.update(peer.avx2 or {})
    return env


class Worker:
    """One peer's process, as seen from the driver."""

    def __init__(self, peer: Peer, threads: int, isa: str | None = None, clock: str = "wall") -> None:
        self.peer = peer
        command = [sys.executable, "-m", "benchmarks.worker", peer.name, str(threads), clock]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(peer, threads, isa),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        # Children inherit the cores: the same `threads` cores, the last ones, for every peer.
        cores = sorted(os.sched_getaffinity(0))[-threads:]
        os.sched_setaffinity(self._process.pid, cores)
        self.version = str(self.ask("hello").get("version", ""))

    def ask(self, do: str, **arguments: object) -> dict[str, Any]:
        """Send one request and wait for its answer; a dead worker answers with an error."""
        pipes = self._process.stdin, self._process.stdout
        if pipes[0] is None or pipes[1] is None:
            raise RuntimeError("the worker was started without pipes")
        try:
            pipes[0].write(json.dumps({"do": do, **arguments}) + "\n")
            pipes[0].flush()
            line = pipes[1].readline()
        except BrokenPipeError:
            line = ""
        if not line:
            return {"error": f"the worker died, exit code {self._process.wait()}"}
        reply: dict[str, Any] = json.loads(line)
        return reply

    def settle(self) -> None:
        """Wait until no thread of the worker runs."""
        settle(self._process.pid)

    def close(self) -> None:
        """End the process."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


def settle(pid: int, at_most: float = 1.0) -> None:
    """Wait until no thread of process `pid` runs, this one apart, at three looks in a row 4 ms apart."""
    end = time.perf_counter() + at_most
    quiet = 0
    while quiet < 3 and time.perf_counter() < end:
        time.sleep(0.004)
        quiet = 0 if _runs(pid) else quiet + 1


def _runs(pid: int) -> bool:
    for task in Path(f"/proc/{pid}/task").glob("*/stat"):
        if int(task.parent.name) == threading.get_native_id():
            continue
        try:
            state = task.read_text().rpartition(")")[2].split()[0]  # "pid (name) STATE …"
        except OSError:  # the thread has just ended
            continue
        if state == "R":
            return True
    return False
