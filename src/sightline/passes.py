"""How gradients will be computed: in one pass over the key heads, or in two, over blocks of rows and runs of keys.

One pass makes five products for each tile, two make seven, with the same bits: two are for more threads than one
pass has items for. Pure, like a `Plan`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sightline.plan import SLICE_FLOPS, Plan, plan

if TYPE_CHECKING:
    from sightline.cpu.isa import Isa
    from sightline.problem import Problem

GRADIENTS = ("query", "key", "value", "bias", "sinks", "alibi_slopes")
OF_KEYS = ("key", "value")
"""Sums over queries; the others are made row by row."""
MOST_SUMS = 1 << 20  # bytes of working memory for a run of keys' sums, when there are two passes
LEAST_RUN = 4  # tiles of a run: shorter ones would read every block's rows for little
PRODUCTS = {"query": 1, "key": 1, "value": 1}  # beside scores and dP


@dataclass(frozen=True, slots=True)
class Pass:
    """One run of a backward kernel."""

    plan: Plan
    ranges: int
    """runs that a head's keys are cut into; 0: its items are blocks of rows, as the forward program's"""
    range_keys: int

    @property
    def units(self) -> int:
        """Blocks of rows that read one key head."""
        return self.plan.blocks * self.plan.spaces // self.plan.problem.kv_heads

    @property
    def items(self) -> int:
        """Work items."""
        if not self.ranges:
            return self.plan.items
        return self.plan.sequences * self.plan.problem.kv_heads * self.ranges

    @property
    def slice_items(self) -> int:
        """Items, or with runs of keys steps of 16 blocks, until a thread returns to Python."""
        p, kernel = self.plan.problem, self.plan.kernel
        products = 2 + sum(PRODUCTS.get(name, 0) for name in kernel.gradients)
        blocks = min(16, self.units) if self.ranges else 1
        step = 1.0 * products * blocks * kernel.block_rows * self.range_keys * (p.dim + p.value_dim)
        return max(1, int(SLICE_FLOPS / max(step, 1.0)))

    def threads(self, most: int) -> int:
        """Threads worth using, of at most `most`."""
        return min(self.plan.threads(most), max(1, self.items))


def passes(problem: Problem, isa: Isa, wanted: tuple[str, ...], threads: int) -> tuple[Pass, ...]:
    """What to run for the gradients wanted, on so many threads."""
    of_keys = tuple(name for name in OF_KEYS if name in wanted)
    of_rows = tuple(name for name in wanted if name not in {*OF_KEYS, "bias"})
    heads = math.prod(problem.batch) * problem.kv_heads
    if not of_keys:
        return (_pass(problem, isa, of_rows, 0),) if of_rows else ()
    if not of_rows:
        return (_pass(problem, isa, of_keys, _runs(problem, isa, of_keys, heads, threads)),)
    busy = (
        heads / (-(-heads // threads) * threads) if heads else 1.0
    )  # share of the threads at work in one pass
    if busy >= 5 / 7:
        return (_pass(problem, isa, (*of_rows, *of_keys), 1),)
    runs = _runs(problem, isa, of_keys, heads, threads)
    return _pass(problem, isa, of_rows, 0), _pass(problem, isa, of_keys, runs)


def _runs(problem: Problem, isa: Isa, of_keys: tuple[str, ...], heads: int, threads: int) -> int:
    """Runs of a head's keys: at least what fits the working memory, and enough for the threads."""
    tile, size = plan(problem, isa).tile_keys, 8 if problem.dtype == "float64" else 4
    row = 2 * size * sum({"key": problem.dim, "value": problem.value_dim}[name] for name in of_keys)
    tiles = max(1, -(-problem.keys // tile))
    longest = max(1, MOST_SUMS // (row * tile))
    return max(-(-tiles // longest), min(-(-4 * threads // max(heads, 1)), -(-tiles // LEAST_RUN)))


def _pass(problem: Problem, isa: Isa, gradients: tuple[str, ...], ranges: int) -> Pass:
    made = plan(problem, isa, gradients=tuple(name for name in GRADIENTS if name in gradients))
    tile = made.kernel.tile_keys
    tiles = -(-problem.keys // tile)
    range_keys = max(1, -(-tiles // max(ranges, 1))) * tile
    return Pass(made, ranges and max(1, -(-problem.keys // range_keys)), range_keys)
