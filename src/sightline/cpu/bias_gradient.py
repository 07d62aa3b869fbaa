"""The gradient of a bias: dS itself, summed over whatever the bias was broadcast to.

    for each part of the bias that has numbers of its own, each run of keys, and each block of rows if rows differ
        for every head of every sequence that reads it, in order, and every block if rows share it
            for each tile of the run that some row may see
                S and dP, as in the backward program     recompute
                dS = P·(dP − delta)                      derivative.derive
                sums += dS
        write the sums, added up over lanes if rows share them

One thread makes each sum, in one order. What is wanted is in the key: "bias", with "over_queries" or "over_keys"
where the bias has one row, or one column, for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu import derivative, formats, packing, transpose
from sightline.cpu.entry import entry
from sightline.cpu.kernel import Kernel
from sightline.cpu.kinds import ADDRESS, INT
from sightline.cpu.recompute import Recompute
from sightline.cpu.rows import Place, gather

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.isa import Isa
    from sightline.cpu.values import Pointer, Value
    from sightline.kernel_key import KernelKey


def generate(key: KernelKey, isa: Isa) -> str:
    """The LLVM IR of a whole kernel, called as `backward.generate`'s; it has no use for the last argument."""
    k = Kernel(key, isa)
    part = _Part(k)
    with entry(k, 3) as f:
        a, w, _ = f.arguments()
        with f.loop(0, k.argument(f, a, "slice_items"), name="item"):
            item = a.claim(1)
            f.give_if(item >= k.argument(f, a, "items"), 0)
            part.sum_up(f, a, w, item)
        f.give(1)
    return str(k.module)


class _Part:
    """One work item: some keys' numbers of a part of the bias, of one block of rows or of all."""

    def __init__(self, k: Kernel) -> None:
        if k.key.bias is None:
            raise ValueError("a kernel for the gradient of a bias needs a key with its dtype")
        self.k, self.dtype = k, k.key.bias
        self.over_queries, self.over_keys = (
            name in k.key.gradients for name in ("over_queries", "over_keys")
        )
        self.again = Recompute(k)
        self.derive = derivative.derive(k, careful=False, for_bias=True)
        self.lanes_to_rows = transpose.lanes_to_rows(k, self.dtype, "d_bias")
        self.tile = self._tile()

    def sum_up(self, f: Function, a: Pointer, w: Pointer, item: Value) -> None:
        """Everything for one work item."""
        k = self.k
        ranges, blocks = k.argument(f, a, "ranges"), k.argument(f, a, "blocks")
        begin = item % ranges * k.argument(f, a, "range_keys")
        end = (begin + k.argument(f, a, "range_keys")).min(k.argument(f, a, "keys"))
        own, block = item // ranges, f.value(0)
        if not self.over_queries:
            own, block = own // blocks, own % blocks
        numbers = f.value(1) if self.over_keys else end - begin
        sums = k.table(w, "d_bias")
        with f.loop(0, numbers, name="zero") as j:
            for g in range(k.block_rows // k.lanes):
                sums[j, g] = f.zeros(k.vec)
        count, heads = k.argument(f, a, "repeat_count"), k.argument(f, a, "all_heads")
        with f.loop(0, count, name="repeat") as r:
            number = (k.address(a, "repeats") + (own * count + r) * 8).load(INT, 8)
            with f.loop(block, blocks if self.over_queries else block + 1, name="block") as b:
                self._add(f, a, w, Place(number // heads, number % heads, b), begin, end)
        target = k.address(a, "d_bias") + own * k.argument(f, a, "own_bytes")
        target = target + begin * formats.size(self.dtype)
        if self.over_queries:
            self._store_over_queries(f, w, target, numbers)
        else:
            self._store_rows(f, a, w, target, block, numbers)

    def _add(self, f: Function, a: Pointer, w: Pointer, place: Place, begin: Value, end: Value) -> None:
        """Add dS of one block of rows to the sums."""
        k, size = self.k, self.k.key.tile_keys
        rows = gather(k, f, a, w, place)
        _, far = self.again.load(f, a, w, rows)
        with f.when(far):
            self.again.again_with_care(f, a, w, rows)
        keys, values = (self.again.scoring.of_head(f, a, rows, name) for name in ("key", "value"))
        start, stop = rows.begin.max(begin), rows.end.min(end)
        with f.loop(start // size * size, stop, size, name="tile") as corner:
            first, last = corner.max(start), (corner + size).min(stop)
            full = ((first >= rows.full_begin) & (last <= rows.full_end)).unsigned(INT)
            f.call(self.tile, a, w, keys, values, first, first - begin, last - first, rows.count, full)

    def _tile(self) -> Function:
        """One tile of keys against the block's rows.

        Parameters: arguments, workspace, the head's keys and values, first key of the tile, its place in the sums,
        keys in the tile, rows, whether every row may see all of it (as far as causal and window go).
        """
        k = self.k
        with k.module.function("tile", *[ADDRESS] * 4, *[INT] * 5, returns=INT) as f:
            a, w, keys, values, first, at, n, rows, full = f.arguments()
            full = self.again.scoring.skip_empty(f, a, w, first, n, rows, full)
            vectors = (rows + (k.lanes - 1)) // k.lanes
            keys = keys + first * k.argument(f, a, "key_row")
            values = values + first * k.argument(f, a, "value_row")
            self.again.tile(f, a, w, (keys, values, first, n), vectors, full)
            f.call(self.derive, a, w, first, n, vectors)
            sums, d_scores = k.table(w, "d_bias"), k.table(w, "d_scores")
            with f.loop(0, vectors, name="rows") as g, f.loop(0, n, name="keys") as j:
                place = f.value(0) if self.over_keys else at + j
                sums[place, g] = sums[place, g] + d_scores[j, g]
            f.give(1)
        return f

    def _store_rows(
        self, f: Function, a: Pointer, w: Pointer, target: Pointer, block: Value, numbers: Value
    ) -> None:
        """Each row has its own numbers."""
        k = self.k
        first = block * k.block_rows
        count = (k.argument(f, a, "queries") - first).min(k.block_rows)
        vectors = (count + (k.lanes - 1)) // k.lanes
        with f.loop(0, vectors * k.lanes, name="row") as r:
            row = (target + (first + r) * k.argument(f, a, "d_bias_row")).address()
            (k.place(w, "d_bias_rows") + r * 8).store((r < count).where(row, 0))
        f.call(self.lanes_to_rows, f.value(formats.size(self.dtype)), numbers, vectors, w)

    def _store_over_queries(self, f: Function, w: Pointer, target: Pointer, numbers: Value) -> None:
        """All rows share their numbers."""
        k, sums = self.k, self.k.table(w, "d_bias")
        with f.loop(0, numbers, name="key") as j:
            total = sums[j, 0]
            for g in range(1, k.block_rows // k.lanes):
                total = total + sums[j, g]
            formats.store(packing.sum_of_lanes(k, total), target + j * formats.size(self.dtype), self.dtype)
