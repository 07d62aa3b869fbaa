"""What all parts of one kernel share: what it is made for, its types and sizes, and its working memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu import formats
from sightline.cpu.arguments import SLOT
from sightline.cpu.emit import Module
from sightline.cpu.kinds import BFLOAT, DOUBLE, I32, INT, bytes_of, vector
from sightline.cpu.values import Pointer, Table
from sightline.cpu.workspace import ROW_NUMBERS, TILE_BYTES, Workspace, run_offsets
from sightline.kernel_key import register_tile

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.isa import Isa
    from sightline.cpu.values import Value
    from sightline.kernel_key import KernelKey


# Parts with a key or a dimension in each row and a query in each lane; the others have one number for each query.
SQUARE = {
    *("query", "output", "kept_output", "scores", "bias"),
    *("d_out", "d_scores", "steepness", "d_query", "kept_d_query", "d_bias"),
}


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
        self.vector_bytes, self.row_bytes = isa.vector_bytes, key.row_bytes
        self.block_rows = key.block_rows
        # Columns of Qᵀ, and rows of K and V, count in words: a number of the arithmetic, or a pair of bfloat16.
        self.per_word = 2 if key.paired else 1
        self.tile = register_tile(isa)
        self.workspace = Workspace(key, isa)

    def argument(self, f: Function, arguments: Pointer, name: str) -> Value:
        """An integer the call gave."""
        return (arguments + 8 * SLOT[name]).load(INT, 8)

    def address(self, arguments: Pointer, name: str) -> Pointer:
        """An address the call gave."""
        return (arguments + 8 * SLOT[name]).follow()

    def number(self, arguments: Pointer, name: str) -> Value:
        """A float the call gave, in every lane."""
        return (arguments + 8 * SLOT[name]).load(DOUBLE, 8).to(self.compute).splat(self.lanes)

    def words(self, columns: int) -> int:
        """Words that hold so many columns of Q or K."""
        return -(-columns // self.per_word)

    def multiply_add(self, broadcast: Value, lanes: Value, total: Value) -> Value:
        """Total + broadcast · lanes; of pairs, both products."""
        if not self.key.paired:
            return broadcast.fma(lanes, total)
        pairs = vector(BFLOAT, 2 * self.lanes)
        factors = (x.as_bits_of(pairs) for x in (lanes, broadcast))
        return total.f.intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", self.vec, total, *factors)

    def column_vectors(self, columns: int) -> int:
        """Vectors that hold so many columns of a packed row."""
        return -(-columns // self.lanes)

    def place(self, workspace: Pointer, part: str) -> Pointer:
        """Where a part of the working memory lies."""
        if part in self.workspace.shared:
            workspace = self.shared(workspace).follow()
        return workspace + self.workspace.offset(part)

    def shared(self, workspace: Pointer) -> Pointer:
        """The place that says where the parts begin that a block shares with others."""
        return workspace + (self.workspace.offset("rows") + 8 * (ROW_NUMBERS - 1))

    def block(self, run: Pointer, i: Value) -> Pointer:
        """The working memory of one of the blocks of a run, on a matrix unit."""
        return run + (i * self.workspace.bytes + run_offsets(self.key, self.isa)["blocks"])

    def begin_run(self, f: Function, run: Pointer, count: Value) -> Pointer:
        """Tell a run's blocks where the parts lie that they share; a tile of zeros. Gives the first block."""
        together = (run + run_offsets(self.key, self.isa)["shared"]).address()
        with f.loop(0, count, name="block") as i:
            self.shared(self.block(run, i)).store(together, 8)
        first = self.block(run, f.value(0))
        self.clear(f, first, "nothing", TILE_BYTES)
        return first

    def clear(self, f: Function, w: Pointer, part: str, size: int) -> None:
        """The first bytes of a part, whole vectors, are 0."""
        with f.loop(0, size, self.vector_bytes, name="clear") as byte:
            (self.place(w, part) + byte).store(f.zeros(self.vec), self.vector_bytes)

    def in_words(self, workspace: Pointer, part: str) -> Pointer:
        """Where the products find a part that has a second form, in pairs of bfloat16."""
        return self.place(workspace, f"{part}.pairs" if self.key.paired else part)

    def packed(self, at: Pointer, columns: int) -> Table:
        """Packed rows as a table of vectors: [row, vector of columns]."""
        row = self.column_vectors(columns) * self.vector_bytes
        return Table(at, self.vec, row, self.vector_bytes, align=self.vector_bytes)

    def table(self, workspace: Pointer, part: str) -> Table:
        """A part as a table of vectors: [key or dimension, vector of rows], or [vector of rows]."""
        at = self.place(workspace, part)
        if part in SQUARE:
            return Table(at, self.vec, self.row_bytes, self.vector_bytes, align=self.vector_bytes)
        kind = self.integers if part in {"first", "end"} else self.vec
        return Table(at, kind, self.vector_bytes, align=self.vector_bytes)
