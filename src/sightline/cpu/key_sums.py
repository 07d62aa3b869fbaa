"""A key head's sums over its queries: dK and dV of a run of keys, from block after block of rows.

The sums lie in memory as packed rows, twice: those of the 16 blocks at hand, and those of the blocks before. A
thread may return to Python after every 16 blocks; where it was, it finds before the sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu import packing
from sightline.cpu.kinds import INT
from sightline.cpu.rows import Place, of_sequence, sequence_number
from sightline.kernel_key import STEP_BLOCKS

if TYPE_CHECKING:
    from sightline.cpu.backward import Block
    from sightline.cpu.backward_runs import BackwardRun
    from sightline.cpu.emit import Function
    from sightline.cpu.values import Pointer, Value

STATE_BYTES = 64  # before the sums: the item, and the next block of it


class KeyHead:
    """A work item of one key head's run of keys: its blocks of rows, and the sums dK and dV.

    `store_rows`: what `packing.store_rows` makes.
    """

    def __init__(
        self, worker: Block | BackwardRun, store_rows: Function, f: Function, a: Pointer, w: Pointer,
        state: Pointer,
    ) -> None:  # fmt: skip
        self.worker, self.k, self.f, self.a, self.w = worker, worker.k, f, a, w
        self.store_rows = store_rows
        self.item, self.next_unit, self.sums = state, state + 8, state + STATE_BYTES

    def go_on(self) -> None:
        """The next blocks of the item at hand, or of a new one."""
        k, f, a = self.k, self.f, self.a
        with f.when(self.item.load(INT, 8) < 0):
            item = a.claim(1)
            f.give_if(item >= k.argument(f, a, "items"), 0)
            self.item.store(item)
            self.next_unit.store(f.value(0))
        item, first, units = self.item.load(INT, 8), self.next_unit.load(INT, 8), k.argument(f, a, "units")
        ranges, spaces = k.argument(f, a, "ranges"), k.argument(f, a, "spaces")
        per_head, blocks = k.argument(f, a, "spaces_per_kv_head"), k.argument(f, a, "blocks")
        heads = spaces // per_head
        begin = item % ranges * k.argument(f, a, "range_keys")
        end = (begin + k.argument(f, a, "range_keys")).min(k.argument(f, a, "keys"))
        batch, head = item // ranges // heads, item // ranges % heads
        reach = Reach(self.worker, f, self.sums, begin, end)
        last = (first + (k.key.most_sharing if k.key.terms else STEP_BLOCKS)).min(units)

        def place(i: Value) -> Place:
            return Place(batch, head * per_head + (first + i) // blocks, (first + i) % blocks)

        self.worker.differentiate(f, a, self.w, last - first, place, reach)
        self.next_unit.store(last)
        with f.when(last >= units):
            self._store(batch, head, begin, end)
            self.item.store(f.value(-1))

    def _store(self, batch: Value, head: Value, begin: Value, end: Value) -> None:
        """Write dK and dV of the keys; the sums are 0 again."""
        k, f, a = self.k, self.f, self.a
        sequence = sequence_number(k, a, batch)
        for name, (_, columns, kept) in Reach(self.worker, f, self.sums, begin, end).parts.items():
            row = k.argument(f, a, f"{name}_row")
            offset = of_sequence(sequence, name) + (head * k.argument(f, a, f"{name}_head") + begin * row)
            size = end - begin
            f.call(self.store_rows, kept, f.value(columns), size, k.address(a, name) + offset, row)


class Reach:
    """The keys of an item, and where their sums are: of the blocks at hand, and of those before."""

    def __init__(
        self, worker: Block | BackwardRun, f: Function, sums: Pointer, begin: Value, end: Value
    ) -> None:
        self.k, self.f, self.begin, self.end = worker.k, f, begin, end
        self.first, self.last = f.variable(end), f.variable(begin)  # the keys that these blocks have seen
        self.parts: dict[str, tuple[Pointer, int, Pointer]] = {}
        for name, columns in worker.sums_over_queries.items():
            size = (end - begin) * self.row(columns)
            # On a matrix unit recent sums wait elsewhere, a tile's alone (backward_runs).
            recent, sums = sums, sums if self.k.key.terms else sums + size
            self.parts[name] = recent, columns, sums
            sums = sums + size

    def row(self, columns: int) -> int:
        """Bytes of a key's sums."""
        return self.k.column_vectors(columns) * self.k.vector_bytes

    def of_key(self, name: str, key: Value) -> Pointer:
        """Where a key's sums are."""
        recent, columns, _ = self.parts[name]
        return recent + (key - self.begin) * self.row(columns)

    def saw(self, begin: Value, end: Value) -> None:
        """A block's rows see keys from begin to end."""
        self.first.value, self.last.value = self.first.value.min(begin), self.last.value.max(end)

    def join(self) -> None:
        """Put the sums of these blocks to those before."""
        for recent, columns, kept in self.parts.values():
            first, last = ((edge.value - self.begin) * self.row(columns) for edge in (self.first, self.last))
            packing.join(self.k, self.f, recent, kept, first, last)
