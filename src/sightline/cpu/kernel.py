"""What all parts of one kernel share: what it is made for, its types and sizes, and its working memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu import formats
from sightline.cpu.arguments import SLOT
from sightline.cpu.emit import Module
from sightline.cpu.values import DOUBLE, I32, INT, Pointer, Table, bytes_of, vector
from sightline.cpu.workspace import Workspace
from sightline.plan import ROW_BYTES, register_tile

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.isa import Isa
    from sightline.cpu.values import Value
    from sightline.plan import KernelKey


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

    def place(self, workspace: Pointer, part: str) -> Pointer:
        """Where a part of the working memory lies."""
        return workspace + self.workspace.offset(part)

    def table(self, workspace: Pointer, part: str) -> Table:
        """A part as a table of vectors: [key or dimension, vector of rows], or [vector of rows]."""
        at = self.place(workspace, part)
        if part in {"query", "output", "scores", "bias"}:
            return Table(at, self.vec, ROW_BYTES, self.vector_bytes, align=self.vector_bytes)
        kind = self.integers if part in {"first", "end"} else self.vec
        return Table(at, kind, self.vector_bytes, align=self.vector_bytes)
