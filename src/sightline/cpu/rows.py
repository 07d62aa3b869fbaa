"""The rows of a block: which head and query each is, where it lies in the operands, which keys it may see.

Rows are the queries of one head, or, when a group of heads shares a key head and each has few queries, those
of the whole group one after another: `space` names the run of rows that a block is cut from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sightline.cpu import dropout, formats
from sightline.cpu.ahead import fetch, fetches_output_late
from sightline.cpu.arguments import BATCH_COLUMNS
from sightline.cpu.kinds import DOUBLE, INT, bytes_of
from sightline.cpu.softmax import UNROLL
from sightline.kernel_key import MATRIX_KEYS

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.values import Pointer, Value, Variable
    from sightline.kernel_key import KernelKey


@dataclass
class Rows:
    """One block of rows, as the kernel's code holds it."""

    count: Value  # rows that exist
    vectors: Value  # vectors that hold them
    key_head: Value
    sequence: Pointer  # its row in the table of sequences
    begin: Value  # the keys that some row may see: begin ≤ j < end
    end: Value
    full_begin: Value  # the keys that all rows may see
    full_end: Value

    def keep(self, k: Kernel, w: Pointer) -> None:
        """Write it down in the block's working memory."""
        numbers = (self.count, self.key_head, self.sequence.address(), self.begin, self.end)
        for slot, number in enumerate((*numbers, self.full_begin, self.full_end)):
            (k.place(w, "rows") + 8 * slot).store(number, 8)

    @staticmethod
    def kept(k: Kernel, w: Pointer) -> Rows:
        """What `keep` wrote."""
        count, key_head, sequence, *bounds = (
            (k.place(w, "rows") + 8 * slot).load(INT, 8) for slot in range(7)
        )
        return Rows(count, vectors_of(k, count), key_head, sequence.as_pointer(), *bounds)

    def first_period(self, k: Kernel) -> Value:
        """Where the period of keys begins that holds the first key that some row may see."""
        return self.begin // k.key.period_keys * k.key.period_keys


def vectors_of(k: Kernel, count: Value) -> Value:
    """Vectors that hold so many rows: a matrix unit sums over whole MATRIX_KEYS of them."""
    rows = MATRIX_KEYS if k.key.terms and k.key.gradients else k.lanes
    return (count + (rows - 1)) // rows * (rows // k.lanes)


def of_sequence(sequence: Pointer, column: str) -> Value:
    """What the call's table says of this sequence."""
    return (sequence + 8 * BATCH_COLUMNS.index(column)).load(INT, 8)


def sequence_number(k: Kernel, a: Pointer, batch: Value) -> Pointer:
    """The row of a sequence in the call's table."""
    return k.address(a, "batches") + batch * (8 * len(BATCH_COLUMNS))


@dataclass
class Place:
    """Which block it is."""

    batch: Value  # the sequence's number
    space: Value
    block: Value


def gather(k: Kernel, f: Function, a: Pointer, w: Pointer, place: Place) -> Rows:
    """Find out all about a block's rows; fill the workspace's tables of what differs from row to row."""
    batch, space, block = place.batch, place.space, place.block
    sequence = sequence_number(k, a, batch)
    total, queries = k.argument(f, a, "space_rows"), k.argument(f, a, "queries")
    first = block * k.block_rows
    count = (total - first).min(k.block_rows)
    vectors = vectors_of(k, count)
    table = _RowTables(k, f, a, w, sequence, batch)
    k.place(w, "origin").store(table.position)
    head = f.variable(space * k.argument(f, a, "space_heads") + first // queries)
    query = f.variable(first % queries)
    with f.loop(0, vectors * k.lanes, name="row") as r:
        table.fill(r, head.value, query.value, r < count)
        # The next row, of the next head after a head's last query; past the end the last row is repeated.
        more = r + 1 < count
        wrap = more & (query.value + 1 == queries)
        head.value = wrap.where(head.value + 1, head.value)
        query.value = wrap.where(0, more.where(query.value + 1, query.value))
    begin, end, full_begin, full_end = (v.value for v in table.bounds)
    begin = begin - begin % (k.key.tile_keys if k.key.terms else UNROLL)
    key_head = table.head(space) // k.argument(f, a, "spaces_per_kv_head")
    return Rows(count, vectors, key_head, sequence, begin, end, full_begin, full_end)


def keep_bad_rows(k: Kernel, f: Function, w: Pointer, rows: Rows) -> None:
    """Take the places of output and statistics from the rows that are good as they are (top = 0)."""
    nowhere = ({"out_rows": 0} if k.key.value_dim else {}) | ({"see_rows": -1} if k.key.see else {})
    with f.loop(0, rows.vectors * k.lanes, name="row") as r:
        bad = (k.place(w, "top") + r * k.element_bytes).load(k.compute) != 0.0
        for part, none in nowhere.items():
            place = k.place(w, part) + r * 8
            place.store(bad.where(place.load(INT, 8), none))


def place_of(k: Kernel, f: Function, a: Pointer, item: Value, count: str = "blocks") -> Place:
    """A work item's block, or run of blocks: `count` names how many a space has.

    Blocks of one space follow each other (its keys stay in the cache), or spaces of one block (their mask).
    """
    spaces, blocks = k.argument(f, a, "spaces"), k.argument(f, a, count)
    by_block = k.argument(f, a, "by_block") != 0
    inner = by_block.where(spaces, blocks)
    fast, slow = item % inner, (item // inner) % by_block.where(blocks, spaces)
    block = by_block.where(slow, fast)
    # The last block first: under a causal mask it is the longest, and short ones fill the gaps at the end.
    return Place(item // (spaces * blocks), by_block.where(fast, slow), blocks - 1 - block)


def _columns(key: KernelKey) -> dict[str, int]:
    """The operands that have a row for each query, and how long the rows are."""
    if not key.gradients:
        return {"query": key.dim, **({"out": key.value_dim} if key.value_dim else {})}
    made = {"d_query": key.dim} if "query" in key.gradients else {}
    return {"query": key.dim, "out": key.value_dim, "d_out": key.value_dim, **made}


class _RowTables:
    """The workspace's tables with one entry per row, and the bounds over all rows."""

    def __init__(
        self, k: Kernel, f: Function, a: Pointer, w: Pointer, sequence: Pointer, batch: Value
    ) -> None:
        self.k, self.f, self.a, self.w = k, f, a, w
        self.key = k.key
        self.columns = _columns(k.key)
        self.operands = [
            *self.columns,
            *(["mask"] if k.key.mask else []),
            *(["bias"] if k.key.bias else []),
        ]
        self.base = {name: k.address(a, name) + of_sequence(sequence, name) for name in self.operands}
        self.stride = {
            name: (k.argument(f, a, f"{name}_head"), k.argument(f, a, f"{name}_row"))
            for name in self.operands
        }
        self.first_number = batch * k.argument(f, a, "all_heads") * k.argument(f, a, "all_queries")
        self.drop = dropout.of_sequence(k, f, a, batch) if k.key.dropout else None
        self.position, self.length = of_sequence(sequence, "position"), of_sequence(sequence, "length")
        start = (f.value(0), self.length, f.value(0), self.length)
        if k.key.banded:  # begin = min first, end = max end, full_begin = max first, full_end = min end
            start = (self.length, f.value(0), f.value(0), self.length)
        self.bounds: list[Variable] = [f.variable(value) for value in start]

    def fill(self, r: Value, head: Value, query: Value, exists: Value) -> None:
        """Row r of the block is this query of this head, or a copy of the last one."""
        if "counted" in self.key.see:
            self._number(r, "counted", self._listed("counts", query).to(self.k.compute))
        head, query = self.head(head), self._listed("chosen", query)
        written = "d_query" if self.key.gradients else "out"
        for name in self.operands:
            head_stride, row_stride = self.stride[name]
            place = self.base[name] + (head * head_stride + query * row_stride)
            if name in self.columns and not (name == "out" and fetches_output_late(self.key)):
                # Fetched here, all rows at once, and not row by row when they are needed.
                fetch(place, self.columns[name] * formats.size(self.key.dtype), write=name == written)
            address = place.address()
            if name == written:  # lanes past the last row have nowhere to go
                address = exists.where(address, 0)
            (self.k.place(self.w, f"{name}_rows") + r * 8).store(address)
        p = self.position + query
        if self.key.banded:
            self._interval(r, p)
        if self.key.alibi:
            self._number(r, "slope", self._of_head("slopes", head))
        if self.key.alibi or "distance" in self.key.see:
            # Counted from the sequence's first query: a float32 would round large positions.
            self._number(r, "position", query.to(self.k.compute))
        if self.key.see or self.key.gradients:
            number = self.first_number + head * self.k.argument(self.f, self.a, "all_queries") + query
            (self.k.place(self.w, "see_rows") + r * 8).store(exists.where(number, -1))
        if self.key.sinks:
            self._number(r, "sink", self._of_head("sinks", head))
        if self.drop is not None:
            dropout.store_row(self.k, self.w, r, self.drop, head, query)

    def head(self, number: Value) -> Value:
        """The query head that is this one of those the pass is about."""
        return self._listed("heads", number)

    def _listed(self, name: str, index: Value) -> Value:
        if not self.key.listed:
            return index
        return (self.k.address(self.a, name) + index * 8).load(INT, 8)

    def _of_head(self, name: str, head: Value) -> Value:
        return (self.k.address(self.a, name) + head * 8).load(DOUBLE).to(self.k.compute)

    def _number(self, r: Value, part: str, value: Value) -> None:
        (self.k.place(self.w, part) + r * self.k.element_bytes).store(value)

    def _interval(self, r: Value, p: Value) -> None:
        """Keys first ≤ j < end: p − left ≤ j ≤ p + right, within the sequence."""
        left, right = self.k.argument(self.f, self.a, "left"), self.k.argument(self.f, self.a, "right")
        end = (p + right + 1).max(0).min(self.length)
        first = (p - left).max(0).min(end)
        for part, value in (("first", first), ("end", end)):
            element = self.k.integers.element
            (self.k.place(self.w, part) + r * bytes_of(element)).store(value.to(element))
        begin, stop, full_begin, full_end = self.bounds
        begin.value, stop.value = begin.value.min(first), stop.value.max(end)
        full_begin.value, full_end.value = full_begin.value.max(first), full_end.value.min(end)
