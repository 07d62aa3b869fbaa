"""What all parts of one kernel share: what it is made for, its types and sizes, and its working memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sightline.cpu import formats
from sightline.cpu.arguments import SLOT
from sightline.cpu.emit import DOUBLE, I32, INT, Module, Pointer, Table, bytes_of, vector
from sightline.plan import ROW_BYTES

if TYPE_CHECKING:
    from sightline.cpu.emit import Function, Value
    from sightline.cpu.isa import Isa
    from sightline.plan import KernelKey

MASK_WORD = 32  # keys per word of a packed mask


@dataclass(frozen=True, slots=True)
class RegisterTile:
    """How the registers are shared out: queries × keys (or × dimensions) vectors of sums, and the operands."""

    queries: int  # vectors of queries
    keys: int
    dims: int


# 32 registers: 4·6 sums, 4 query vectors, a broadcast; 16 registers: 2·6, 2 and 1.
_REGISTER_TILES = {32: RegisterTile(4, 6, 6), 16: RegisterTile(2, 6, 6)}


class Kernel:
    """One kernel being generated."""

    def __init__(self, key: KernelKey, isa: Isa) -> None:
        self.key, self.isa = key, isa
        self.module = Module(isa)
        self.compute = formats.arithmetic(key.dtype)
        self.element_bytes = bytes_of(self.compute)
        self.lanes = isa.lanes(self.element_bytes)
        self.vec = vector(self.compute, self.lanes)
        self.integers = vector(INT if self.compute == DOUBLE else I32, self.lanes)
        self.vector_bytes, self.row_bytes = isa.vector_bytes, ROW_BYTES
        self.block_rows = key.block_rows
        self.tile = _REGISTER_TILES[isa.registers]
        self.scratch = Scratch(self)

    def argument(self, f: Function, arguments: Pointer, name: str) -> Value:
        """An integer the call gave."""
        return (arguments + 8 * SLOT[name]).load(INT, 8)

    def address(self, arguments: Pointer, name: str) -> Pointer:
        """An address the call gave."""
        return (arguments + 8 * SLOT[name]).follow()

    def number(self, arguments: Pointer, name: str) -> Value:
        """A float the call gave, in every lane."""
        return (arguments + 8 * SLOT[name]).load(DOUBLE, 8).to(self.compute).splat(self.lanes)


class Scratch:
    """A thread's working memory for one block of rows: where each part lies, and how it is read.

    | part | what | shape |
    |---|---|---|
    | query, output | Qᵀ and Oᵀ of the block | dimension × row |
    | scores | Sᵀ of a tile; then, in place, Pᵀ | key × row |
    | bias | Bᵀ of a tile | key × row |
    | keys, values | a tile of K and V as packed rows, where they need converting | key × dimension |
    | words | the tile's mask, 32 keys to a word | word × row |
    | high, top, sum, fade | softmax state per row: running maximum m, tile's largest score, l, exp(m_old − m) | row |
    | position, slope, sink, first, end | what differs from row to row | row |
    | *_rows | addresses of the block's rows in the operands | row |
    """

    def __init__(self, k: Kernel) -> None:
        key, rows = k.key, k.block_rows
        tile = key.tile_keys + k.tile.keys  # the last register tile of keys may stick out
        row = ROW_BYTES
        parts = {
            "query": (key.dim + k.lanes) * row,
            "output": (key.value_dim + k.lanes) * row,
            "scores": tile * row,
            "bias": (tile + k.lanes) * row if key.bias else 0,
            "keys": key.tile_keys * key.dim * k.element_bytes if key.stage_key else 0,
            "values": key.tile_keys * key.value_dim * k.element_bytes if key.stage_value else 0,
            "words": -(-key.tile_keys // MASK_WORD) * rows * 4 if key.mask else 0,
            **dict.fromkeys(("high", "top", "sum", "fade", "position", "slope", "sink"), row),
            **dict.fromkeys(("first", "end"), row),
            **dict.fromkeys(("query_rows", "out_rows", "mask_rows", "bias_rows"), rows * 8),
            "patch": k.lanes * k.vector_bytes,
        }
        self._offsets, place = {}, 0
        for name, size in parts.items():
            self._offsets[name] = place
            place += -(-size // 64) * 64
            # Buffers a multiple of 4096 bytes apart would make loads of one wait for stores to the other.
            place += 64 if size > 4096 else 0
        self.bytes = place
        self._k = k

    def offset(self, part: str) -> int:
        """Bytes from the workspace's start."""
        return self._offsets[part]

    def table(self, workspace: Pointer, part: str) -> Table:
        """A part as a table of vectors: [key or dimension, vector of rows], or [vector of rows]."""
        k, at = self._k, workspace + self._offsets[part]
        if part == "patch":
            return Table(at, k.vec, k.vector_bytes, 0, align=64)
        if part in {"query", "output", "scores", "bias"}:
            return Table(at, k.vec, ROW_BYTES, k.vector_bytes, align=k.vector_bytes)
        if part in {"first", "end"}:
            return Table(at, k.integers, k.vector_bytes, align=k.vector_bytes)
        return Table(at, k.vec, k.vector_bytes, align=k.vector_bytes)

