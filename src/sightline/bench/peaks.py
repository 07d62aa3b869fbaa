"""What this machine can do at most, measured by loops that do nothing else: multiply-adds, pairs, reading.

A figure means something only beside these: a product cannot beat the multiply-adds, and a call with one query
cannot be faster than its keys are read.
"""

from __future__ import annotations

import ctypes
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.cpu import compile as compiler
from sightline.cpu import isa, strips
from sightline.cpu.compile import ENTRY
from sightline.cpu.emit import Module
from sightline.cpu.kinds import ADDRESS, BFLOAT, FLOAT, I32, INT, vector

if TYPE_CHECKING:
    from collections.abc import Callable

    from sightline.cpu.emit import Function
    from sightline.cpu.isa import Isa
    from sightline.cpu.values import Value

ROUNDS = 7  # of which the best counts
TURNS = 1 << 20  # of a computing loop: some ms
READ_BYTES = 1 << 28  # of a reading loop: beyond every cache
TILES_A_TURN, FLOPS_A_TILE = 4, 2 * 16 * 16 * 32  # of a matrix unit: 16 × 16 sums of 32 products
AHEAD = 512  # bytes that reading fetches ahead


@dataclass(frozen=True, slots=True)
class Peaks:
    """Of so many threads at once."""

    threads: int
    fma: float
    """GFLOP/s of float32 multiply-adds"""
    pairs: float | None
    """GFLOP/s of bfloat16 products summed in float32, where the processor has instructions for them"""
    read: float
    """GB/s read from memory"""

    def or_better(self, other: Peaks) -> Peaks:
        """The better of two measurements, figure by figure."""
        pairs = None if self.pairs is None or other.pairs is None else max(self.pairs, other.pairs)
        return Peaks(self.threads, max(self.fma, other.fma), pairs, max(self.read, other.read))

    def of(self, dtype: str) -> float:
        """GFLOP/s that arithmetic for this dtype is measured against."""
        halves = {"float64": self.fma / 2, "bfloat16": self.pairs or self.fma}
        return halves.get(dtype, self.fma)


def measure(threads: int) -> Peaks:
    """All of it, in about a second."""
    target = isa.chosen()
    lanes, sums = target.vector_bytes // 4, _sums(target)
    flops = 2.0 * TURNS * sums * lanes
    memory = np.ones(READ_BYTES * threads, np.uint8)  # written once, so that it is there
    fma = _best(_loop("fma", target), [(0, TURNS)] * threads)
    pairs = None
    if target.multiplies_tiles:
        done = TURNS * TILES_A_TURN * FLOPS_A_TILE
        turns = [(memory.ctypes.data + i * strips.CONFIG_BYTES, TURNS) for i in range(threads)]
        pairs = done * threads / _best(_loop("tiles", target), turns) / 1e9
    elif "avx512bf16" in target.extras:
        pairs = 2 * flops * threads / _best(_loop("pairs", target), [(0, TURNS)] * threads) / 1e9
    parts = [(memory.ctypes.data + i * READ_BYTES, READ_BYTES) for i in range(threads)]
    read = READ_BYTES * threads / _best(_loop("read", target), parts) / 1e9
    return Peaks(threads, flops * threads / fma / 1e9, pairs, read)


def _best(loop: Callable[[int, int], int], arguments: list[tuple[int, int]]) -> float:
    """Seconds until all threads are done, at best."""
    found = []
    with ThreadPoolExecutor(len(arguments)) as pool:
        for _ in range(ROUNDS):
            start = time.perf_counter()
            list(pool.map(lambda pair: loop(*pair), arguments))
            found.append(time.perf_counter() - start)
    return min(found)


def _sums(target: Isa) -> int:
    """Independent sums, enough to hide the latency of each."""
    return 24 if target.registers >= 32 else 12


def _loop(name: str, target: Isa) -> Callable[[int, int], int]:
    text = _LOOPS[name](target)
    address = compiler.load(ENTRY, ("peak", text), target, lambda: text)
    loop: Callable[[int, int], int] = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)(
        address
    )
    return loop


def _computing(target: Isa, step: Callable[[Function, Value, Value], Value]) -> str:
    """A loop of so many turns in which every sum takes one step."""
    module, kind = Module(target), vector(FLOAT, target.vector_bytes // 4)
    with module.function(ENTRY, ADDRESS, INT, returns=INT) as f:
        _, turns = f.arguments()
        factor = turns.to(FLOAT).splat(kind.count)
        sums = [f.variable(f.value(1.0 + i, kind)) for i in range(_sums(target))]
        with f.loop(0, turns):
            for each in sums:
                each.value = step(f, factor, each.value)
        total = sums[0].value
        for each in sums[1:]:
            total = total + each.value
        f.give((total == 0.0).any().unsigned(INT))
    return str(module)


def _fma(target: Isa) -> str:
    return _computing(target, lambda _, factor, total: factor.fma(factor, total))


def _pairs(target: Isa) -> str:
    def step(f: Function, factor: Value, total: Value) -> Value:
        pair = factor.as_bits_of(vector(BFLOAT, 2 * factor.kind.count))
        return f.intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", total.kind, total, pair, pair)

    return _computing(target, step)


def _tiles(target: Isa) -> str:
    """Products of tiles that hold whatever they held, into four sums in turn."""
    module = Module(target)
    with module.function(ENTRY, ADDRESS, INT, returns=INT) as f:
        place, turns = f.arguments()
        strips.configure(f, place)
        for register in range(8):
            strips.clear(f, register)
        with f.loop(0, turns):
            for total in range(TILES_A_TURN):
                strips.multiply(f, total, 4 + total % 2, 6 + total // 2)
        strips.release(f)
        f.give(0)
    return str(module)


def _read(target: Isa) -> str:
    module, lanes = Module(target), target.vector_bytes // 4
    kind: Any = vector(I32, lanes)
    with module.function(ENTRY, ADDRESS, INT, returns=INT) as f:
        memory, size = f.arguments()
        sums = [f.variable(f.zeros(kind)) for _ in range(8)]
        with f.loop(0, size, 8 * target.vector_bytes) as place:
            for i, each in enumerate(sums):
                here = memory + (place + i * target.vector_bytes)
                each.value = each.value | here.load(kind)
                (here + AHEAD).prefetch(near=True)
        total = sums[0].value
        for each in sums[1:]:
            total = total | each.value
        f.give((total != 0).any().unsigned(INT))
    return str(module)


_LOOPS = {"fma": _fma, "pairs": _pairs, "tiles": _tiles, "read": _read}
