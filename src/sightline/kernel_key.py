"""What the machine code of a kernel depends on, and the sizes that follow from it. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sightline.cpu.isa import Isa

SIZES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
ROW_BYTES = 256  # one key's scores against a block of queries: 64 float32 or 32 float64
FEW_ROW_BYTES = 64  # … of few queries: their tables leave the first-level cache to keys and values
PERIOD_TILES = 16  # tiles whose sums are made together, before they join those of earlier ones
BIAS_TILES = 16  # of a run of keys for the gradient of a bias: each run reads its queries anew
STEP_BLOCKS = 16  # blocks whose sums over queries are made together, before they join those of earlier ones
MATRIX_ROWS = 32  # queries of a block on a matrix unit: two tiles wide
MATRIX_KEYS = 32  # keys that one of its instructions sums over
MATRIX_GROUP = 256  # keys whose weights wait, as one term, to be multiplied by values all together
PACKED_BYTES = 2**20  # of keys and values that a run of blocks has packed, and …
BLOCKS_BYTES = 3 * 2**19  # … of what its blocks remember: both are to stay in a second-level cache
MOST_SHARING = 32  # blocks of a run at most, …
LEAST_SHARING = 8  # … where there are so many, and more
SHARING_BIAS = 4  # … where each has the sums of a run of keys beside


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
    def widens(self) -> bool:
        """Numbers in memory are shorter than the arithmetic's."""
        return SIZES[self.dtype] < self.element_bytes

    @property
    def block_rows(self) -> int:
        """Query rows of a block."""
        if self.terms and not self.by_single_tiles:
            return MATRIX_ROWS // 2 if self.few else MATRIX_ROWS
        return (FEW_ROW_BYTES if self.few else ROW_BYTES) // self.element_bytes

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
    def weight_terms(self) -> int:
        """Bfloat16 terms that a weight becomes to be multiplied by values; 0: it stays what it is."""
        return self.terms or int(self.paired)

    @property
    def queries_in_rows(self) -> bool:
        """A matrix unit's queries go from rows to tiles as they are; lanes of float32 are for care alone."""
        return self.terms == 1 and self.dtype == "bfloat16" and not self.by_single_tiles

    @property
    def copies_with_care(self) -> bool:
        """Rows are copied into rows of the arithmetic's type only for blocks that are done again with care."""
        return self.terms > 0 or (self.few > 0 and self.widens)

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
        if "bias" in self.gradients:
            return SHARING_BIAS
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
class RegisterTile:
    """How registers are shared out: queries × keys (or × dimensions) vectors of sums, and their operands."""

    queries: int
    """vectors of queries"""
    keys: int
    dims: int
    few: int
    """sums where a block has few queries, which lie in no lanes"""


# 32 registers: 4·4 sums, 4 vectors of queries, a broadcast number. 6 keys would fit, but they do not divide a
# tile's, so that a whole tile would do some twice. 16 registers: 2·6, 2 and 1. On NEON LLVM loads the operands in
# pairs and needs more room for them.
_REGISTER_TILES = {
    "amx": RegisterTile(queries=4, keys=4, dims=4, few=16),
    "avx512": RegisterTile(queries=4, keys=4, dims=4, few=16),
    "avx2": RegisterTile(queries=2, keys=6, dims=6, few=8),
    "neon": RegisterTile(queries=4, keys=5, dims=6, few=16),
}


def register_tile(isa: Isa) -> RegisterTile:
    """The register tile of an instruction set."""
    return _REGISTER_TILES[isa.name]
