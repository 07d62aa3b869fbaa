"""How a problem will be computed: which kernel, in which blocks, tiles and work items. Pure, and printable.

A *space* is a run of query rows that share one key head: one head's queries, or, when a group of heads shares
a key head and each has few queries, the whole group's. A work item is one block of rows of one space.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sightline import masks
from sightline.kernel_choice import kernel_for
from sightline.kernel_key import LEAST_SHARING, SIZES

if TYPE_CHECKING:
    from sightline.cpu.isa import Isa
    from sightline.kernel_key import KernelKey
    from sightline.problem import Problem

LEAST_SHARING_BACKWARD = 2  # a block of the backward program has five times the work
SHARED_ITEMS = 16  # a run has more blocks than that only where so many work items remain
SLICE_FLOPS = 1e9  # what a thread does before it looks for Ctrl-C: some 10 ms
FEW_BLOCKS = 64  # with fewer, the keys of each are shared among several work items, …
MANY_ITEMS = 128  # … so that there are so many items, if there are keys enough
FLOPS_A_BYTE = 7  # what a core computes while it reads a byte from memory
THREAD_FLOPS = 4e6  # a thread with less to do than this costs more to wake than it helps
LEAST_RUN = (
    8  # blocks to a work item of the second pass: each item has sums of its own, as long as the keys …
)
MOST_RUNS = 16  # … and so many items to a head at most
_STEPS = ("scaled", "softcap", "bias", "alibi", "sinks", "mask", "dropout")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The query heads and queries that a pass is about, where it is not about all."""

    heads: tuple[int, ...]
    queries: tuple[int, ...] | range


@dataclass(frozen=True, slots=True)
class Plan:
    """One problem on one instruction set."""

    problem: Problem
    isa: Isa
    kernel: KernelKey
    folded: bool
    """the heads of a group are rows of one space"""
    by_block: bool
    """consecutive items are the same block of different heads, that share a mask or a bias"""
    chosen: Chosen | None = None
    """heads and queries, if not all"""
    second: bool = False
    """the second pass, over scores alone: its items are runs of blocks"""

    @property
    def block_rows(self) -> int:
        """Query rows of a block."""
        return self.kernel.block_rows

    @property
    def tile_keys(self) -> int:
        """Keys of a tile."""
        return self.kernel.tile_keys

    @property
    def sequences(self) -> int:
        """How many there are in the batch."""
        return math.prod(self.problem.batch)

    @property
    def spaces(self) -> int:
        """Spaces of one sequence."""
        if self.chosen is not None:
            return len(self.chosen.heads)
        return self.problem.kv_heads if self.folded else self.problem.heads

    @property
    def space_rows(self) -> int:
        """Query rows of a space."""
        return self.head_rows * (self.problem.group if self.folded else 1)

    @property
    def head_rows(self) -> int:
        """Query rows of a head."""
        return self.problem.queries if self.chosen is None else len(self.chosen.queries)

    @property
    def blocks(self) -> int:
        """Blocks of a space."""
        return -(-self.space_rows // self.block_rows)

    @property
    def run_blocks(self) -> int:
        """Blocks of a work item. In the second pass sums depend on it, and it on the queries alone."""
        if self.second:
            return max(LEAST_RUN, -(-self.blocks // MOST_RUNS))
        if not self.kernel.terms:
            return 1
        # All heads may have one bias: its gradient's items are then those of one head.
        heads = 1 if "bias" in self.kernel.gradients else self.sequences * self.spaces
        shared = heads * self.blocks // SHARED_ITEMS
        least = LEAST_SHARING_BACKWARD if self.kernel.gradients else LEAST_SHARING
        return max(1, min(max(shared, least), self.blocks, self.kernel.most_sharing))

    @property
    def runs(self) -> int:
        """Work items of a space."""
        return -(-self.blocks // self.run_blocks)

    @property
    def periods(self) -> int:
        """Periods of keys."""
        return -(-self.problem.keys // self.kernel.period_keys)

    @property
    def piece_periods(self) -> int:
        """Periods of a piece: of a block's keys that are one work item. Not a bit of a result depends on it."""
        if not self.kernel.split:
            return max(1, self.periods)
        blocks = self.sequences * self.spaces * self.blocks
        return -(-self.periods // min(self.periods, -(-MANY_ITEMS // blocks)))

    @property
    def pieces(self) -> int:
        """Pieces that the keys of a block are shared among."""
        return max(1, -(-self.periods // self.piece_periods))

    @property
    def items(self) -> int:
        """Work items of the call."""
        return self.sequences * self.spaces * self.runs * self.pieces

    @property
    def dense_flops(self) -> float:
        """Floating-point operations were every key visible: 2·(D + Dv) for each score."""
        rows = self.sequences * self.spaces * self.space_rows
        return 2.0 * rows * self.problem.keys * (self.kernel.dim + self.kernel.value_dim)

    @property
    def flops(self) -> float:
        """Floating-point operations of the visible tiles, as far as causality and window tell."""
        return self.dense_flops * self.visible_fraction

    @property
    def visible_fraction(self) -> float:
        """Share of tiles that some row may see, as far as causality and window tell before the call."""
        p = self.problem
        if not self.head_rows or not p.keys:
            return 0.0
        if not self.kernel.banded:
            return 1.0
        queries = range(p.queries) if self.chosen is None else self.chosen.queries
        positions = (p.query_offset or 0) + np.asarray(queries)
        first, end = masks.intervals(p.band, positions, p.keys)
        kinds = masks.tiles(first, end, self.block_rows, self.tile_keys, key_length=p.keys)
        return float((kinds != masks.Tile.EMPTY).mean())

    @property
    def bytes(self) -> int:
        """Bytes of query, key, value and output, each once: what must move at least."""
        p = self.problem
        numbers = p.heads * p.queries * (p.dim + p.value_dim) + p.kv_heads * p.keys * (p.dim + p.value_dim)
        return self.sequences * numbers * SIZES[p.dtype]

    @property
    def effort(self) -> float:
        """What the call takes, in operations: with few queries, reading takes longer than computing."""
        return max(self.dense_flops, FLOPS_A_BYTE * self.bytes)

    @property
    def slice_items(self) -> int:
        """Items a thread takes before it returns to Python."""
        return max(1, int(SLICE_FLOPS * self.items / max(self.effort, 1.0)))

    def threads(self, most: int) -> int:
        """Threads worth using, of at most `most`."""
        return max(1, min(most, self.items, int(self.effort / THREAD_FLOPS)))

    def __str__(self) -> str:
        """What runs, on three lines."""
        p, k = self.problem, self.kernel
        steps = [name for name in _STEPS if getattr(k, name)]
        steps += [f"see {name}" for name in k.see]
        steps += [name for name, on in (("band", k.banded), ("K staged", k.stage_key)) if on]
        steps += [f"products of {k.terms} bfloat16 term{'s'[: k.terms - 1]}"] if k.terms else []
        rows = "the group's heads folded into rows" if self.folded else "one head's queries"
        pieces = f" × {self.pieces} pieces of the keys" if k.split else ""
        return (
            f"kernel  {k.dtype} on {self.isa.name}, D {k.dim}, Dv {k.value_dim}"
            f"{', with ' if steps else ''}{', '.join(steps)}\n"
            f"blocks  {self.block_rows} rows ({rows}) against tiles of {self.tile_keys} keys\n"
            f"work    {self.items} items ({self.sequences} sequences × {self.spaces} spaces × {self.blocks} "
            f"blocks{pieces}), {self.visible_fraction:.1%} of the tiles of {p.queries} × {p.keys}"
        )


def plan(
    problem: Problem,
    isa: Isa,
    see: tuple[str, ...] = (),
    *,
    chosen: Chosen | None = None,
    values: bool = True,
    first: KernelKey | None = None,
    gradients: tuple[str, ...] = (),
) -> Plan:
    """Choose the kernel and the cutting for a problem.

    Args:
        problem: what is asked.
        isa: the instruction set.
        see: what to say of the weights.
        chosen: the heads and queries it is about, if not all.
        values: whether there is an output to make; else only the weights are of interest.
        first: the kernel of the first pass, if this is the second one, whose scores are to be the same.
        gradients: what the backward program is to make, if that is what is planned.
    """
    p, listed, second = problem, chosen is not None, first is not None
    kernel = kernel_for(p, isa, see, gradients, listed=listed, values=values, first=first)
    folded = p.group > 1 and p.queries < kernel.block_rows and not listed and "bias" not in gradients
    shared = any(spec is not None and spec.strides[-3] == 0 for spec in (p.mask, p.bias))
    by_block = shared and p.heads > 1 and not second
    made = Plan(p, isa, kernel, folded, by_block, chosen, second)
    blocks = made.sequences * made.spaces * made.blocks
    split = (
        not (second or gradients)
        and made.periods > 1
        and 0 < blocks < FEW_BLOCKS
        and made.effort >= 2 * THREAD_FLOPS
    )
    return replace(made, kernel=replace(kernel, split=True)) if split else made
