"""How gradients will be computed: in one pass over the key heads, or in two, over blocks of rows and runs of keys.

One pass makes five products for each tile, two make seven, with the same bits: two are for more threads than one
pass has items for. The gradient of a bias is a pass of its own. Pure, like a `Plan`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sightline.kernel_key import BIAS_TILES, STEP_BLOCKS
from sightline.plan import SLICE_FLOPS, Plan, plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sightline.cpu.isa import Isa
    from sightline.problem import Problem

GRADIENTS = ("query", "key", "value", "bias", "sinks", "alibi_slopes")
OF_KEYS = ("key", "value")
"""Sums over queries; the others are made row by row."""
MOST_SUMS = 1 << 20  # bytes of working memory for a run of keys' sums, when there are two passes
LEAST_RUN = 4  # tiles of a run: shorter ones would read every block's rows for little


@dataclass(frozen=True, slots=True)
class Pass:
    """One run of a backward kernel."""

    plan: Plan
    ranges: int
    """runs that a head's keys are cut into; 0: its items are blocks of rows, as the forward program's"""
    range_keys: int
    parts: int = 0
    """parts of a bias that have numbers of their own, in the pass for its gradient"""

    @property
    def program(self) -> str:
        """The room that writes its kernel."""
        return "bias_gradient" if self.parts else "backward"

    @property
    def units(self) -> int:
        """Blocks of rows that read one key head."""
        return self.plan.blocks * self.plan.spaces // self.plan.problem.kv_heads

    @property
    def items(self) -> int:
        """Work items."""
        if self.parts:
            runs = 1 if "over_queries" in self.plan.kernel.gradients else self.plan.runs
            return self.parts * runs * self.ranges * bool(self.plan.blocks)
        if not self.ranges:
            return self.plan.items
        return self.plan.sequences * self.plan.problem.kv_heads * self.ranges

    @property
    def slice_items(self) -> int:
        """Items, or with runs of keys steps of some blocks, until a thread returns to Python."""
        p, kernel = self.plan.problem, self.plan.kernel
        products = 2 + sum(name in kernel.gradients for name in ("query", *OF_KEYS))
        blocks = min(STEP_BLOCKS, self.units) if self.ranges else 1
        if self.parts:
            blocks = (
                self.plan.sequences * self.plan.spaces * self.plan.blocks * self.ranges // max(self.items, 1)
            )
        step = 1.0 * products * blocks * kernel.block_rows * self.range_keys * (p.dim + p.value_dim)
        return max(1, int(SLICE_FLOPS / max(step, 1.0)))

    def threads(self, most: int) -> int:
        """Threads worth using, of at most `most`."""
        return min(self.plan.threads(most), max(1, self.items))


def passes(
    problem: Problem, isa: Isa, wanted: tuple[str, ...], bias: tuple[int, ...], threads: int
) -> list[Pass]:
    """What to run for the gradients wanted, on so many threads; `bias`: the shape that it was given in."""
    of_keys = tuple(name for name in OF_KEYS if name in wanted)
    of_rows = tuple(name for name in wanted if name not in {*OF_KEYS, "bias"})
    found = [_of_bias(problem, isa, bias)] if "bias" in wanted else []
    heads = math.prod(problem.batch) * problem.kv_heads
    busy = (
        heads / (-(-heads // threads) * threads) if heads else 1.0
    )  # share of the threads at work in one pass
    if of_rows and of_keys and busy >= 5 / 7:
        return [*found, _pass(problem, isa, (*of_rows, *of_keys), 1)]
    if of_rows:
        found.append(_pass(problem, isa, of_rows, 0))
    if of_keys:
        found.append(_pass(problem, isa, of_keys, _runs(problem, isa, of_keys, heads, threads)))
    return found


def _runs(problem: Problem, isa: Isa, of_keys: tuple[str, ...], heads: int, threads: int) -> int:
    """Runs of a head's keys: at least what fits the working memory, and enough for the threads."""
    tile, size = plan(problem, isa).tile_keys, 8 if problem.dtype == "float64" else 4
    row = 2 * size * sum({"key": problem.dim, "value": problem.value_dim}[name] for name in of_keys)
    tiles = max(1, -(-problem.keys // tile))
    longest = max(1, MOST_SUMS // (row * tile))
    return max(-(-tiles // longest), min(-(-4 * threads // max(heads, 1)), -(-tiles // LEAST_RUN)))


def _pass(problem: Problem, isa: Isa, gradients: tuple[str, ...], ranges: int) -> Pass:
    made = plan(problem, isa, gradients=tuple(name for name in GRADIENTS if name in gradients))
    tiles = max(1, -(-problem.keys // made.tile_keys))
    range_keys = -(-tiles // max(ranges, 1)) * made.tile_keys
    return Pass(made, ranges and max(1, -(-problem.keys // range_keys)), range_keys)


def _of_bias(problem: Problem, isa: Isa, shape: tuple[int, ...]) -> Pass:
    over = tuple(
        name
        for name, own, n in zip(
            ("over_queries", "over_keys"), (1, 1, *shape)[-2:], (problem.queries, problem.keys), strict=True
        )
        if own != n
    )
    made = plan(problem, isa, gradients=("bias", *over))
    tiles = max(1, -(-problem.keys // made.tile_keys))
    # Where rows share the numbers, an item goes through all of them: shorter runs, so that Ctrl-C is heard.
    run = tiles if "over_keys" in over else LEAST_RUN if "over_queries" in over else BIAS_TILES
    range_keys = min(run, tiles) * made.tile_keys
    return Pass(made, max(1, -(-problem.keys // range_keys)), range_keys, len(readers(problem, shape)))


def readers(problem: Problem, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """The heads, counted through all sequences, that read each part of a bias of this shape: (parts, readers)."""
    full = (*problem.batch, problem.heads)
    given = ((1,) * (len(full) + 2) + shape)[-len(full) - 2 : -2]
    own = [axis for axis, n in enumerate(full) if given[axis] == n]
    shared = [axis for axis in range(len(full)) if axis not in own]
    numbers = np.arange(math.prod(full)).reshape(full).transpose(*own, *shared)
    parts = math.prod(full[axis] for axis in own)
    return np.ascontiguousarray(numbers.reshape(parts, math.prod(full[axis] for axis in shared)), np.int64)
