"""The backward program: the weights made again tile by tile, and five products for each tile.

    for each key head                                a work item, a run of 16 blocks at a time
        for each block of query rows that read it
            delta = Σ_d dO·O − dlse                  derivative.start
            dQ = 0
            for each tile of keys that some row may see
                S = Q·Kᵀ, modified and masked        scoring.scores
                dP = dO·Vᵀ                           tiles.inner
                P = exp(S − lse), dS = P·(dP − delta), through softcap and scale    derivative.derive
                dQ = dQ + dS·K                       tiles.outer
                dV = dV + Pᵀ·dO, dK = dK + dSᵀ·Q     tiles.across
            write dQ
        write dK and dV

after FlashAttention-2 (Dao, 2023, https://arxiv.org/abs/2307.08691), with queries in lanes as in the forward pass.
dK and dV are float32 or float64 sums in memory, so no two threads add to one number, and every number is summed
in one order: a tile's (or block's) products from zero, these one after the other, and every 16 of them put aside.
Where there are too few key heads for the threads, the same code runs twice, with the same bits: blocks of rows
give dQ, and runs of keys give dK and dV.

0·NaN is NaN, so NaN or Inf in a row of Q, K or dO would reach those who do not see it: such tiles are summed
with care, leaving out one by one what may not be seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu import amx, derivative, derivative_terms, formats, packing, tiles, transpose
from sightline.cpu.backward_runs import BackwardRun
from sightline.cpu.entry import entry
from sightline.cpu.kernel import Kernel
from sightline.cpu.key_sums import KeyHead
from sightline.cpu.kinds import ADDRESS, INT
from sightline.cpu.recompute import Recompute
from sightline.cpu.rows import Place, gather, place_of
from sightline.cpu.softmax import UNSEEN
from sightline.kernel_key import PERIOD_TILES

if TYPE_CHECKING:
    from collections.abc import Callable

    from sightline.cpu.emit import Function
    from sightline.cpu.isa import Isa
    from sightline.cpu.key_sums import Reach
    from sightline.cpu.rows import Rows
    from sightline.cpu.values import Pointer, Value
    from sightline.kernel_key import KernelKey


def generate(key: KernelKey, isa: Isa) -> str:
    """The LLVM IR of a whole kernel, `int64 attend(int64 *arguments, void *workspace, void *sums)`.

    It works on items until none is left (returns 0) or it has done its slice (returns 1).
    """
    k = Kernel(key, isa)
    block = Block(k)
    run = BackwardRun(k, block) if key.terms else None
    with entry(k, 3) as f:
        a, w, sums = f.arguments()
        with f.loop(0, k.argument(f, a, "slice_items"), name="item"):
            if block.sums_over_queries:
                KeyHead(run or block, block.store_rows, f, a, w, sums).go_on()
            else:
                item = a.claim(1)
                f.give_if(item >= k.argument(f, a, "items"), 0)
                (run or block).differentiate(f, a, w, *_blocks_of(k, f, a, item), None)
        f.give(1)
    return str(k.module)


def _blocks_of(k: Kernel, f: Function, a: Pointer, item: Value) -> tuple[Value, Callable[[Value], Place]]:
    """The blocks of a work item: how many, and each one's place."""
    run, size = place_of(k, f, a, item, "runs"), k.argument(f, a, "run_blocks")
    first = run.block * size
    count = (k.argument(f, a, "blocks") - first).min(size)
    return count, lambda i: Place(run.batch, run.space, first + i)


class Block:
    """One block of rows, and the functions it is made of."""

    def __init__(self, k: Kernel) -> None:
        key = k.key
        self.k = k
        self.again = Recompute(k)
        self.makes_query = "query" in key.gradients
        dims = {"d_key": key.dim, "d_value": key.value_dim}
        self.sums_over_queries = {
            name: columns for name, columns in dims.items() if name.removeprefix("d_") in key.gradients
        }
        if key.paired:
            wide = self.again.scoring.rows_to_rows or transpose.rows_to_rows(k, key.dtype)
            # For dQ the keys are copied once more: two keys' numbers beside each other, or as they are.
            self.keys_again = {False: (transpose.rows_to_pairs(k), "keys.pairs"), True: (wide, "keys.wide")}
        self.tile_finite = packing.all_finite(k, key.dtype) if key.paired else self.again.all_finite
        self._products()
        self.derive = {True: derivative.derive(k, careful=True)}
        self.derive[False] = derivative_terms.derive(k) if key.terms else derivative.derive(k, careful=False)
        if self.makes_query:
            self.lanes_to_rows = transpose.lanes_to_rows(k, key.dtype, "d_query")
        if self.sums_over_queries:
            self.store_rows = packing.store_rows(k, key.dtype)
        self.sums = {
            careful: self._sums(careful=careful) for careful in ((True,) if key.terms else (False, True))
        }
        if not key.terms:
            self.tile = self._tile()

    def _products(self) -> None:
        """Those of dQ, dK and dV."""
        k, key = self.k, self.k.key
        size, engine = formats.size(key.dtype), amx if key.terms else tiles
        self.accumulate, self.across = {}, {}
        if self.makes_query:
            p = tiles.Product("accumulate", key.dim, "d_scores", "d_query", key.dim * size)
            self.accumulate = {False: engine.outer(k, p), True: tiles.outer_carefully(k, p, UNSEEN)}
        for name, lanes, rows in (("d_value", "scores", "d_outs"), ("d_key", "d_scores", "queries")):
            if name in self.sums_over_queries:
                p = tiles.Product(name, self.sums_over_queries[name], lanes, rows, 0)
                self.across[name] = {False: engine.across(k, p), True: tiles.across_carefully(k, p, UNSEEN)}

    def differentiate(
        self, f: Function, a: Pointer, w: Pointer, count: Value, place: Callable[[Value], Place],
        reach: Reach | None,
    ) -> None:  # fmt: skip
        """Everything for `count` blocks of rows one after another, against all keys or those in reach."""
        with f.loop(0, count, name="block") as i:
            rows = gather(self.k, f, a, w, place(i))
            finite, far = self.again.load(f, a, w, rows)
            with f.when(far):
                self.again.again_with_care(f, a, w, rows)
            if reach is not None:
                rows.begin, rows.end = rows.begin.max(reach.begin), rows.end.min(reach.end)
            self.clear(f, w, rows)
            self._against_keys(f, a, w, rows, finite, reach)
            if reach is not None:
                with f.when(rows.begin < rows.end):
                    reach.saw(rows.begin, rows.end)
            self.store(f, a, w, rows)
        if reach is not None:
            reach.join()

    def clear(self, f: Function, w: Pointer, rows: Rows) -> None:
        """DQ = 0."""
        if self.makes_query:
            with f.loop(0, self.k.key.dim, name="zero") as d, f.loop(0, rows.vectors, name="rows") as g:
                for part in ("d_query", "kept_d_query"):
                    self.k.table(w, part)[d, g] = f.zeros(self.k.vec)

    def _against_keys(
        self, f: Function, a: Pointer, w: Pointer, rows: Rows, finite: Value, reach: Reach | None
    ) -> None:
        """Through every tile that some row may see."""
        size, period = self.k.key.tile_keys, PERIOD_TILES
        keys, values = (self.again.scoring.of_head(f, a, rows, name) for name in ("key", "value"))
        nowhere = f.value(0).as_pointer()
        # Tiles begin at multiples of their size, so that a row's sums do not depend on the rows beside it.
        with f.loop(rows.begin // size * size, rows.end, size, name="tile") as corner:
            first, last = corner.max(rows.begin), (corner + size).min(rows.end)
            full = ((first >= rows.full_begin) & (last <= rows.full_end)).unsigned(INT)
            sums = [
                reach.of_key(name, first) if reach is not None and name in self.across else nowhere
                for name in ("d_key", "d_value")
            ]
            f.call(
                self.tile,
                a,
                w,
                keys,
                values,
                *sums,
                first,
                last - first,
                rows.count,
                full,
                finite.unsigned(INT),
            )
            if self.makes_query:
                with f.when(corner // size % period == period - 1):
                    self.settle(f, w, rows)

    def settle(self, f: Function, w: Pointer, rows: Rows) -> None:
        """What the recent tiles add to dQ joins what those before did."""
        k = self.k
        recent, kept = k.table(w, "d_query"), k.table(w, "kept_d_query")
        with f.loop(0, k.key.dim, name="settle") as d, f.loop(0, rows.vectors, name="rows") as g:
            kept[d, g] = kept[d, g] + recent[d, g]
            recent[d, g] = f.zeros(k.vec)

    def store(self, f: Function, a: Pointer, w: Pointer, rows: Rows) -> None:
        """Write dQ, and what is one number for each row."""
        k = self.k
        if self.makes_query:
            recent, kept = k.table(w, "d_query"), k.table(w, "kept_d_query")
            with f.loop(0, k.key.dim, name="last") as d, f.loop(0, rows.vectors, name="rows") as g:
                recent[d, g] = kept[d, g] + recent[d, g]
            f.call(self.lanes_to_rows, k.argument(f, a, "d_query_step"), f.value(k.key.dim), rows.vectors, w)
        derivative.finish(k, f, a, w, rows)

    def _tile(self) -> Function:
        """One tile of keys against the block's rows.

        Parameters: arguments, workspace, the head's keys and values, the sums dK and dV of the tile's first key,
        its number, keys in the tile, rows, whether every row may see all of it (as far as causal and window go),
        whether Q and dO are finite.
        """
        k, key = self.k, self.k.key
        with k.module.function("tile", *[ADDRESS] * 6, *[INT] * 5, returns=INT) as f:
            a, w, keys, values, d_keys, d_values, first, n, rows, full, finite = f.arguments()
            full = self.again.scoring.skip_empty(f, a, w, first, n, rows, full)
            vectors = (rows + (k.lanes - 1)) // k.lanes
            keys = keys + first * k.argument(f, a, "key_row")
            values = values + first * k.argument(f, a, "value_row")
            packed, row = self.again.tile(f, a, w, (keys, values, first, n), vectors, full)
            fine = f.call(self.tile_finite, packed, row, n, f.value(k.words(key.dim) * k.per_word))
            fine = fine & (finite != 0)
            for careful in (False, True):
                with f.when(~fine if careful else fine):
                    f.call(self.sums[careful], a, w, keys, packed, row, d_keys, d_values, first, n, vectors)
            f.give(1)
        return f

    def _sums(self, *, careful: bool) -> Function:
        """From S and dP of a tile to what it adds to dQ, dK and dV.

        Parameters: arguments, workspace, the tile's keys, as packed rows, bytes from one to the next, the sums dK
        and dV of its first key, its number, keys in the tile, vectors of rows.
        """
        k, key = self.k, self.k.key
        name = f"sums{'.careful' * careful}"
        with k.module.function(name, *[ADDRESS] * 4, INT, *[ADDRESS] * 2, *[INT] * 3) as f:
            a, w, keys, packed, row, d_keys, d_values, first, n, vectors = f.arguments()
            f.call(self.derive[careful], a, w, first, n, vectors)
            for name, sums in (("d_value", d_values), ("d_key", d_keys)):
                if name in self.across:
                    sum_row = k.column_vectors(self.sums_over_queries[name]) * k.vector_bytes
                    f.call(self.across[name][careful], w, sums, f.value(sum_row), n, vectors, sums, 0)
            if self.makes_query:
                key_row, soon = k.argument(f, a, "key_row"), keys + n * k.argument(f, a, "key_row")
                if key.paired:
                    copy, part = self.keys_again[careful]
                    packed, row = k.place(w, part), f.value(key.dim * k.element_bytes)
                    f.call(copy, keys, key_row, k.argument(f, a, "key_step"), n, f.value(key.dim), packed)
                f.call(self.accumulate[careful], w, packed, row, n, vectors, soon, key_row)
        return f
