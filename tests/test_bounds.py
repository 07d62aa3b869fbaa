"""No kernel reads or writes outside its arrays and its workspace: it would die of touching what is around."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cases import DTYPES
from sightline.cpu import isa

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = Path(__file__).with_name("fenced.py")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="fences are made with Linux's mprotect")


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def ways() -> Iterator[tuple[str, str]]:
    """Float32 and bfloat16 on every instruction set, the others on one each."""
    names = [choice.name for choice in isa.runnable()]
    some = {"float16": names[:1], "float64": names[-1:]}
    for dtype in DTYPES:
        yield from ((dtype, name) for name in some.get(dtype, names))


@pytest.mark.parametrize(("dtype", "instructions"), list(ways()))
def test_kernels_stay_within_their_arrays(dtype: str, instructions: str) -> None:
    done = run(str(PROGRAM), dtype, SIGHTLINE_ISA=instructions)
    last = (done.stdout.splitlines() or ["the start"])[-1]
    assert done.returncode >= 0, f"died of signal {-done.returncode} in {last}"
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert last == "everything, fence before"


@pytest.mark.parametrize("dtype", DTYPES)
def test_backward_kernels_stay_within_their_arrays(dtype: str) -> None:
    names = [choice.name for choice in isa.runnable()]
    instructions = names[list(DTYPES).index(dtype) // 2 % len(names)]
    done = run(str(PROGRAM.with_name("fenced_gradients.py")), dtype, SIGHTLINE_ISA=instructions)
    last = (done.stdout.splitlines() or ["the start"])[-1]
    assert done.returncode >= 0, f"died of signal {-done.returncode} in {last}"
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert last == "everything, fence before"


@pytest.mark.parametrize("instructions", [choice.name for choice in isa.runnable()])
def test_empty_tiles_are_never_touched(instructions: str) -> None:
    done = run(str(PROGRAM.with_name("untouched.py")), SIGHTLINE_ISA=instructions)
    last = (done.stdout.splitlines() or ["the start"])[-1]
    assert done.returncode >= 0, f"died of signal {-done.returncode} in {last}"
    assert (done.returncode, last) == (0, "done"), done.stderr[-2000:]


def test_memory_grows_with_the_length_and_not_with_its_square() -> None:
    program = """
import resource, numpy as np, sightline
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
def growth(length, **options):
    q, k, v, out = np.ones((4, 1, length, 16), np.float32)
    mask, sinks, slopes = np.ones(length, bool), np.ones(1), np.ones(1)
    before = peak()
    sightline.attention(q, k, v, out=out, mask=mask, sinks=sinks, alibi_slopes=slopes, causal=True, **options)
    return peak() - before
growth(100), growth(100, window=(64, 0))  # makes the kernels
print(max(growth(20_000), growth(100_000, window=(64, 0))))
"""
    done = run("-c", program)
    assert done.returncode == 0, done.stderr
    assert (
        int(done.stdout) < 16 << 20
    )  # a mask of all pairs would be 400 MB and 10 GB, scores four times as much


@pytest.mark.parametrize(
    ("at_end", "touch"),
    [
        (True, "load(fence.address + fence.size)"),
        (False, "load(fence.address - 1)"),
        (False, "load(fence.address); store(fence.address, 0)"),
    ],
)
def test_a_fence_kills_who_touches_it(at_end: bool, touch: str) -> None:
    program = f"""
import ctypes, numpy as np
from fenced import fenced
load = lambda at: ctypes.c_uint8.from_address(at).value
store = lambda at, value: ctypes.memset(at, value, 1)
x, fence = fenced(np.arange(10, dtype=np.uint8), at_end={at_end})
assert x.tolist() == list(range(10)) and load(fence.address + 9) == 9
{touch}
"""
    done = run("-c", program, PYTHONPATH=os.pathsep.join([str(PROGRAM.parent), *sys.path]))
    assert done.returncode < 0, done.stdout + done.stderr


def test_a_canary_notices_who_writes_beside_the_output() -> None:
    program = """
import ctypes, numpy as np
from fenced import fenced
x, fence = fenced(np.zeros(10), at_end=True, writable=True)
before = fence.canaries()
x[:] = 1
assert fence.canaries() == before
ctypes.memset(fence.address - 1, 0, 1)
assert fence.canaries() != before
"""
    done = run("-c", program, PYTHONPATH=os.pathsep.join([str(PROGRAM.parent), *sys.path]))
    assert done.returncode == 0, done.stderr
