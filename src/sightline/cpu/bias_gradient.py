"""The gradient of a bias: dS itself, summed over whatever the bias was broadcast to.

    for each part of the bias that has numbers of its own, each run of keys, and each run of blocks if rows differ
        for every head of every sequence that reads it, in order, and every run of blocks if rows share it
            for each tile of the run's keys, for each block of which some row may see it
                S and dP, as in the backward program     recompute, or backward_runs on a matrix unit
                dS = P·(dP − delta)                      derivative.derive
                the block's sums += dS
        write the sums, added up over blocks and lanes if rows share them

One thread makes each sum, in one order. What is wanted is in the key: "bias", with "over_queries" or "over_keys"
where the bias has one row, or one column, for all. Runs have more than one block on a matrix unit alone, where
they share what is packed of the keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu import derivative, formats, packing, transpose
from sightline.cpu.backward_runs import BackwardRun
from sightline.cpu.entry import entry
from sightline.cpu.kernel import Kernel
from sightline.cpu.key_sums import Reach
from sightline.cpu.kinds import ADDRESS, INT
from sightline.cpu.recompute import Recompute
from sightline.cpu.rows import Place, gather

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.isa import Isa
    from sightline.cpu.rows import Rows
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


class _Block:
    """One block of rows and its sums: what `BackwardRun` asks of a block, of which dS is all that is wanted."""

    def __init__(self, k: Kernel) -> None:
        if k.key.bias is None:
            raise ValueError("a kernel for the gradient of a bias needs a key with its dtype")
        self.k, self.dtype = k, k.key.bias
        self.over_keys = "over_keys" in k.key.gradients
        self.again = Recompute(k)
        self.lanes_to_rows = transpose.lanes_to_rows(k, self.dtype, "d_bias")
        self.makes_query = False
        self.sums_over_queries: dict[str, int] = {}
        self.across: dict[str, dict[bool, Function]] = {}
        self.accumulate: dict[bool, Function] = {}
        self.derive = {False: self._derive()}
        if k.key.terms:
            self.sums = {True: self._carefully()}

    def begin(self, f: Function, w: Pointer, keys: tuple[Value, Value], numbers: Value) -> None:
        """No sums yet; they are of the keys from keys[0] on."""
        k, sums = self.k, self.k.table(w, "d_bias")
        k.place(w, "d_bias_begin").store(keys[0], 8)
        with f.loop(0, numbers, name="zero") as j:
            for g in range(k.block_rows // k.lanes):
                sums[j, g] = f.zeros(k.vec)

    def clear(self, f: Function, w: Pointer, rows: Rows) -> None:
        """Nothing: sums go on from head to head."""

    def settle(self, f: Function, w: Pointer, rows: Rows) -> None:
        """Nothing, likewise."""

    def store(self, f: Function, a: Pointer, w: Pointer, rows: Rows) -> None:
        """Nothing: they are written when all heads have been met."""

    def _derive(self) -> Function:
        """From S and dP of a tile to the sums. Parameters: as `derivative.derive`'s."""
        k = self.k
        derive = derivative.derive(k, careful=False, for_bias=True)
        with k.module.function("add", ADDRESS, ADDRESS, INT, INT, INT) as f:
            a, w, first, n, vectors = f.arguments()
            f.call(derive, a, w, first, n, vectors)
            sums, d_scores = k.table(w, "d_bias"), k.table(w, "d_scores")
            at = first - k.place(w, "d_bias_begin").load(INT, 8)
            with f.loop(0, vectors, name="rows") as g, f.loop(0, n, name="keys") as j:
                place = f.value(0) if self.over_keys else at + j
                sums[place, g] = sums[place, g] + d_scores[j, g]
        return f

    def _carefully(self) -> Function:
        """The same where the unit cannot have made S and dP. Parameters: as `backward.Block.sums`'s."""
        with self.k.module.function("sums.careful", *[ADDRESS] * 4, INT, *[ADDRESS] * 2, *[INT] * 3) as f:
            a, w, *_, first, n, vectors = f.arguments()
            f.call(self.derive[False], a, w, first, n, vectors)
        return f

    def store_rows(
        self, f: Function, a: Pointer, w: Pointer, target: Pointer, block: Value, numbers: Value
    ) -> None:
        """Write the sums: each row has its own."""
        k = self.k
        first = block * k.block_rows
        count = (k.argument(f, a, "queries") - first).min(k.block_rows)
        vectors = (count + (k.lanes - 1)) // k.lanes
        with f.loop(0, vectors * k.lanes, name="row") as r:
            row = (target + (first + r) * k.argument(f, a, "d_bias_row")).address()
            (k.place(w, "d_bias_rows") + r * 8).store((r < count).where(row, 0))
        f.call(self.lanes_to_rows, f.value(formats.size(self.dtype)), numbers, vectors, w)

    def total(self, f: Function, w: Pointer, j: Value) -> Value:
        """One sum over all lanes' rows, still in lanes."""
        sums = self.k.table(w, "d_bias")
        total = sums[j, 0]
        for g in range(1, self.k.block_rows // self.k.lanes):
            total = total + sums[j, g]
        return total


class _Part:
    """One work item: some keys' numbers of a part of the bias, of a run of blocks or of all."""

    def __init__(self, k: Kernel) -> None:
        self.k, self.block = k, _Block(k)
        self.over_queries = "over_queries" in k.key.gradients
        if k.key.terms:
            self.run = BackwardRun(k, self.block)
        else:
            self.tile = self._tile()

    def sum_up(self, f: Function, a: Pointer, w: Pointer, item: Value) -> None:
        """Everything for one work item."""
        k = self.k
        names = ("ranges", "range_keys", "keys", "blocks", "runs", "run_blocks", "repeat_count", "all_heads")
        ranges, length, keys, blocks, runs, size, count, heads = (k.argument(f, a, name) for name in names)
        begin = item % ranges * length
        end = (begin + length).min(keys)
        own, first, last = item // ranges, f.value(0), blocks
        if not self.over_queries:
            own, first = own // runs, own % runs * size
            last = (first + size).min(blocks)
        together = (last - first).min(size)
        numbers = f.value(1) if self.block.over_keys else end - begin
        with f.loop(0, together, name="begin") as i:
            self.block.begin(f, self._of(w, i), (begin, end), numbers)
        with f.loop(0, count, name="repeat") as r:
            number = (k.address(a, "repeats") + (own * count + r) * 8).load(INT, 8)
            with f.loop(first, last, size, name="block") as b:
                here = Place(number // heads, number % heads, b)
                self._add(f, a, w, here, (last - b).min(size), (begin, end))
        target = k.address(a, "d_bias") + own * k.argument(f, a, "own_bytes")
        target = target + begin * formats.size(self.block.dtype)
        if self.over_queries:
            self._store_over_queries(f, w, target, numbers, together)
        else:
            with f.loop(0, together, name="store") as i:
                self.block.store_rows(f, a, self._of(w, i), target, first + i, numbers)

    def _of(self, w: Pointer, i: Value) -> Pointer:
        """The working memory of one block of a run."""
        return self.k.block(w, i) if self.k.key.terms else w

    def _add(
        self, f: Function, a: Pointer, w: Pointer, first: Place, count: Value, keys: tuple[Value, Value]
    ) -> None:
        """Add dS of a run of `count` blocks to their sums."""
        if self.k.key.terms:
            reach = Reach(self.run, f, w, *keys)
            self.run.differentiate(
                f, a, w, count, lambda i: Place(first.batch, first.space, first.block + i), reach
            )
        else:
            self._add_block(f, a, w, first, keys)

    def _add_block(
        self, f: Function, a: Pointer, w: Pointer, place: Place, keys: tuple[Value, Value]
    ) -> None:
        """The same of one block, by multiply-adds."""
        k, size, again = self.k, self.k.key.tile_keys, self.block.again
        rows = gather(k, f, a, w, place)
        _, far = again.load(f, a, w, rows)
        with f.when(far):
            again.again_with_care(f, a, w, rows)
        key_head, value_head = (again.scoring.of_head(f, a, rows, name) for name in ("key", "value"))
        start, stop = rows.begin.max(keys[0]), rows.end.min(keys[1])
        with f.loop(start // size * size, stop, size, name="tile") as corner:
            first, last = corner.max(start), (corner + size).min(stop)
            full = ((first >= rows.full_begin) & (last <= rows.full_end)).unsigned(INT)
            f.call(self.tile, a, w, key_head, value_head, first, last - first, rows.count, full)

    def _tile(self) -> Function:
        """One tile of keys against the block's rows.

        Parameters: arguments, workspace, the head's keys and values, first key of the tile, keys in it, rows,
        whether every row may see all of it (as far as causal and window go).
        """
        k, again = self.k, self.block.again
        with k.module.function("tile", *[ADDRESS] * 4, *[INT] * 4, returns=INT) as f:
            a, w, keys, values, first, n, rows, full = f.arguments()
            full = again.scoring.skip_empty(f, a, w, first, n, rows, full)
            vectors = (rows + (k.lanes - 1)) // k.lanes
            keys = keys + first * k.argument(f, a, "key_row")
            values = values + first * k.argument(f, a, "value_row")
            again.tile(f, a, w, (keys, values, first, n), vectors, full)
            f.call(self.block.derive[False], a, w, first, n, vectors)
            f.give(1)
        return f

    def _store_over_queries(
        self, f: Function, w: Pointer, target: Pointer, numbers: Value, blocks: Value
    ) -> None:
        """Write the sums: all rows, and so all blocks, share them."""
        k, dtype = self.k, self.block.dtype
        with f.loop(0, numbers, name="key") as j:
            total = f.variable(self.block.total(f, self._of(w, f.value(0)), j))
            with f.loop(1, blocks, name="block") as i:
                total.value = total.value + self.block.total(f, self._of(w, i), j)
            formats.store(packing.sum_of_lanes(k, total.value), target + j * formats.size(dtype), dtype)
