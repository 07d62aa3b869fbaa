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

if TYPE_CHECKING:
    from sightline.arrays import Spec
    from sightline.cpu.isa import Isa
    from sightline.problem import Problem

ROW_BYTES = 256  # one key's scores against a block of queries: 64 float32 or 32 float64
MATRIX_ROWS = 32  # queries of a block on a matrix unit: two tiles wide
MATRIX_KEYS = 32  # keys that one of its instructions sums over
MATRIX_GROUP = 256  # keys whose weights wait, as one term, to be multiplied by values all together
MATRIX_FEW = 8  # with so few queries most of a tile would be empty
# By terms: query rows and head sizes from which the unit was measured to be faster than multiply-adds.
MATRIX_WORTH = {1: (MATRIX_FEW + 1, 12), 2: (MATRIX_FEW + 1, 16), 3: (256, 24)}
PACKED_BYTES = 2**20  # of keys and values that a run of blocks has packed, and …
BLOCKS_BYTES = 3 * 2**19  # … of what its blocks remember: both are to stay in a second-level cache
MOST_SHARING = 32  # blocks of a run at most, …
LEAST_SHARING = 8  # … where there are so many, and more
LEAST_SHARING_BACKWARD = 2  # a block of the backward program has five times the work
STEP_BLOCKS = 16  # blocks whose sums over queries are made together, before they join those of earlier ones
SHARED_ITEMS = 16  # … as long as so many work items remain
SLICE_FLOPS = 1e9  # what a thread does before it looks for Ctrl-C: some 10 ms
MOST_FEW = 8  # query rows of a space up to which keys are put in lanes instead
PERIOD_TILES = 16  # tiles whose sums are made together, before they join those of earlier ones
FEW_BLOCKS = 64  # with fewer, the keys of each are shared among several work items, …
MANY_ITEMS = 128  # … so that there are so many items, if there are keys enough
FLOPS_A_BYTE = 7  # what a core computes while it reads a byte from memory
THREAD_FLOPS = 4e6  # a thread with less to do than this costs more to wake than it helps
LEAST_RUN = (
    8  # blocks to a work item of the second pass: each item has sums of its own, as long as the keys …
)
MOST_RUNS = 16  # … and so many items to a head at most
BIAS_TILES = 16  # of a run of keys for the gradient of a bias: each run reads its queries anew
_STEPS = ("scaled", "softcap", "bias", "alibi", "sinks", "mask", "dropout")
SIZES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class KernelKey:
    """Everything the machine code depends on, besides the instruction set: the same key, the same code."""

    dtype: str
    dim: int
    value_dim: int
    tile_keys: int
    """keys per tile"""
    stage_key: bool = False
    """keys are copied into rows of the arithmetic's type first: half precision, or strided elements"""
    stage_value: bool = False
    paired: bool = False
    """products of two bfloat16 pairs at a time, summed in float32, instead of fused multiply-adds"""
    banded: bool = False
    """causal or window: each query row has its own interval of keys"""
    mask: bool = False
    bias: str | None = None
    """its dtype"""
    scaled: bool = False
    """the scale is applied to the score itself, because what follows needs it, and not to the exponent"""
    softcap: bool = False
    alibi: bool = False
    sinks: bool = False
    dropout: bool = False
    """some weights are dropped before they meet the values"""
    few: int = 0
    """query rows of a block, rounded up to a power of two, where they are too few to put them in lanes; or 0"""
    split: bool = False
    """the keys of a block are shared among several work items"""
    see: tuple[str, ...] = ()
    """what is said of the weights: of each query's in the first pass, of each key's and more in the second"""
    listed: bool = False
    """the heads and queries are those of two lists, not all"""
    gradients: tuple[str, ...] = ()
    """which of them the backward program makes; none: it is no backward program"""
    terms: int = 0
    """products on a matrix unit, of numbers that are sums of so many bfloat16 terms; 0: not there"""

    @property
    def element_bytes(self) -> int:
        """Size of the arithmetic's numbers: float64 for float64, else float32."""
        return 8 if self.dtype == "float64" else 4

    @property
    def block_rows(self) -> int:
        """Query rows of a block."""
        if self.terms and not self.by_single_tiles:
            return MATRIX_ROWS // 2 if self.few else MATRIX_ROWS
        return ROW_BYTES // self.element_bytes

    @property
    def row_bytes(self) -> int:
        """One key's scores against a block of queries."""
        return self.block_rows * self.element_bytes

    @property
    def group_keys(self) -> int:
        """Keys whose weights wait to be multiplied by values together, on a matrix unit: whole tiles."""
        most = self.tile_keys if self.by_single_tiles else MATRIX_GROUP // self.terms
        return max(1, most // self.tile_keys) * self.tile_keys

    @property
    def by_single_tiles(self) -> bool:
        """On a matrix unit, and not the forward program, which packs periods: gradients, or the second pass."""
        return self.terms > 0 and (bool(self.gradients) or not self.value_dim)

    @property
    def masks_weights(self) -> bool:
        """The mask meets the weights as they are made, and not the scores, which nobody else looks at."""
        return self.mask and self.terms > 0 and not self.by_single_tiles and not self.see

    @property
    def keys_in_place(self) -> bool:
        """A matrix unit reads whole tiles of keys where they lie: there is nobody to share a copy with."""
        return self.terms == 1 and self.few > 0

    @property
    def in_halves(self) -> bool:
        """Weights are made as one bfloat16 term, 32 at a time, and l is the sum of what is multiplied."""
        return self.terms == 1 and not self.dropout and not self.by_single_tiles

    @property
    def queries_in_rows(self) -> bool:
        """A matrix unit's queries go from rows to tiles as they are; lanes of float32 are for care alone."""
        return self.terms == 1 and self.dtype == "bfloat16" and not self.by_single_tiles

    @property
    def copies_with_care(self) -> bool:
        """Rows are copied into rows of the arithmetic's type only for blocks that are done again with care."""
        return self.terms > 0 or (bool(self.few) and SIZES[self.dtype] != self.element_bytes)

    @property
    def period_keys(self) -> int:
        """Keys of a period, after which sums are put aside and begun anew."""
        keys = self.tile_keys * PERIOD_TILES
        if self.terms:
            columns = -(-self.dim // MATRIX_KEYS) * MATRIX_KEYS + self.value_dim
            while keys > self.group_keys and keys * columns * 2 * self.terms > PACKED_BYTES:
                keys //= 2
        return keys

    @property
    def most_sharing(self) -> int:
        """Blocks that may share a period's packed keys."""
        if self.gradients:  # Q and dO in two forms each, and dQ twice
            block = (
                self.row_bytes * 2 * self.dim + self.block_rows * 4 * (self.dim + self.value_dim) * self.terms
            )
            return max(LEAST_SHARING, min(STEP_BLOCKS, BLOCKS_BYTES // block))
        numbers = (0 if self.queries_in_rows else self.dim) + 2 * self.value_dim
        block = self.row_bytes * numbers + self.block_rows * self.dim * 2 * self.terms
        return max(1, min(MOST_SHARING, BLOCKS_BYTES // block))

    @property
    def modified(self) -> bool:
        """Every score passes through scale, softcap, bias or ALiBi before the softmax."""
        return self.scaled or self.softcap or self.alibi or self.bias is not None

    @property
    def selective(self) -> bool:
        """Some tiles hold keys that only some of their rows may see."""
        return self.banded or self.mask


@dataclass(frozen=True, slots=True)
class Chosen:
    """The query heads and queries that a pass is about, where it is not about all."""

    heads: tuple[int, ...]
    queries: tuple[int, ...] | range


@dataclass(frozen=True, slots=True)
class RegisterTile:
    """How registers are shared out: queries × keys (or × dimensions) vectors of sums, and their operands."""

    queries: int
    """vectors of queries"""
    keys: int
    dims: int


# 32 registers: 4·6 sums, 4 vectors of queries, a broadcast number. 16 registers: 2·6, 2 and 1. On NEON LLVM
# loads the operands in pairs and needs more room for them.
_REGISTER_TILES = {
    "amx": RegisterTile(queries=4, keys=6, dims=6),
    "avx512": RegisterTile(queries=4, keys=6, dims=6),
    "avx2": RegisterTile(queries=2, keys=6, dims=6),
    "neon": RegisterTile(queries=4, keys=5, dims=6),
}


def register_tile(isa: Isa) -> RegisterTile:
    """The register tile of an instruction set."""
    return _REGISTER_TILES[isa.name]


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
        shared = self.sequences * self.spaces * self.blocks // SHARED_ITEMS
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
    second: bool = False,
    gradients: tuple[str, ...] = (),
    terms: int = 0,
) -> Plan:
    """Choose the kernel and the cutting for a problem.

    Args:
        problem: what is asked.
        isa: the instruction set.
        see: what to say of the weights.
        chosen: the heads and queries it is about, if not all.
        values: whether there is an output to make; else only the weights are of interest.
        second: whether this is the second pass, with the sums of the first.
        gradients: what the backward program is to make, if that is what is planned.
        terms: of the first pass's kernel, for the second, whose scores are to be the same.
    """
    p = problem
    band, paired = p.band, p.dtype == "bfloat16" and isa.multiplies_pairs
    few = 0 if chosen or gradients else _few(p, isa, paired=paired, values=values)
    if not second:
        terms = _terms(p, isa, few) if values and p.value_dim and "bias" not in gradients else 0
    modified = p.softcap is not None or p.bias is not None or p.alibi_slopes is not None
    kernel = KernelKey(
        dtype=p.dtype,
        dim=p.dim,
        value_dim=p.value_dim if values else 0,
        tile_keys=max(_tile_keys(p), MATRIX_KEYS) if terms else _tile_keys(p),
        stage_key=not few and not terms and (not in_pairs(p.key) if paired else _staged(p.key)),
        # To be multiplied by dO, values are read as keys are.
        stage_value=not in_pairs(p.value)
        if paired and gradients
        else values and not few and not terms and _staged(p.value),
        paired=paired,
        banded=band.left is not None or band.right is not None,
        mask=p.mask is not None,
        bias=p.bias.dtype if p.bias is not None else None,
        # The largest exponent belongs to the largest score only if the scale is positive.
        scaled=modified or p.scale <= 0,
        softcap=p.softcap is not None,
        alibi=p.alibi_slopes is not None,
        sinks=p.sinks is not None and not second,
        dropout=p.dropout_p > 0 and values and not second,
        few=few,
        see=see,
        listed=chosen is not None,
        gradients=gradients,
        terms=terms,
    )
    folded = p.group > 1 and p.queries < kernel.block_rows and chosen is None and "bias" not in gradients
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


def _few(p: Problem, isa: Isa, *, paired: bool, values: bool) -> int:
    """Rows of the kernel for few rows, where that is the one to take."""
    rows = p.queries * p.group
    lanes = isa.lanes(8 if p.dtype == "float64" else 4)
    read = (p.key, p.value) if values else (p.key,)
    in_place = all(spec.strides[-1] == SIZES[p.dtype] for spec in read)
    wide = p.dim >= lanes * (2 if paired else 1) and (p.value_dim >= lanes or not values)
    if not 0 < rows <= MOST_FEW or not in_place or not wide or (paired and p.dim % 2):
        return 0
    return 1 << (rows - 1).bit_length()


def _terms(p: Problem, isa: Isa, few: int) -> int:
    """Bfloat16 terms of each number, where the products are for the matrix unit.

    Three hold a float32 to its last bit, two a float16. A scale that makes lost bits count is left to others.
    Of `few` rows it takes bfloat16 alone, whose keys it can read where they lie.
    """
    tame = 2.0**-40 <= abs(p.scale) <= 2.0**40
    if not isa.multiplies_tiles or p.dtype == "float64" or not tame:
        return 0
    by_precision = {"highest": 3, "high": 2, "default": 1}
    terms = {"float32": by_precision[p.precision], "float16": 2, "bfloat16": 1}[p.dtype]
    least_rows, least_dim = MATRIX_WORTH[terms]
    if few:
        return terms if p.dtype == "bfloat16" and p.dim % MATRIX_KEYS == 0 else 0
    rows = p.queries * (p.group if p.queries < MATRIX_ROWS else 1)
    return terms if rows >= least_rows and p.dim >= least_dim else 0


def _staged(rows: Spec) -> bool:
    """Whether the kernel cannot read these rows of K or V in place."""
    return rows.dtype in {"float16", "bfloat16"} or (
        rows.strides[-1] != SIZES[rows.dtype] and rows.shape[-1] > 1
    )


def in_pairs(rows: Spec) -> bool:
    """Whether rows of bfloat16 can be read as pairs where they lie."""
    return rows.shape[-1] % 2 == 0 and rows.strides[-1] == SIZES[rows.dtype]


def _tile_keys(p: Problem) -> int:
    """64 keys; fewer where a tile of long rows would push everything else out of the cache."""
    longest = max(p.dim, p.value_dim)
    return 64 if longest <= 256 else 32 if longest <= 2048 else 16
