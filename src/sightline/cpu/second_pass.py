"""The second pass: the weights once more, from the sums of the first, for what needs them in full.

    for each run of blocks of query rows             a work item, with partial sums of its own
        for each block, for each tile of keys that some row may see
            S = modified Q·Kᵀ                        scoring, as in the first pass, bit for bit
            W = 2^((S − shift)·c − log_sum)          exact weights: the denominator is known now
            W goes to the consumers                  received, pooled, top keys, diagonals, rows
    each item's sums are joined in a fixed order     sweep.py

No values are read and no output is made. A consumer is one file in consumers/; what it keeps is as long as the
keys, or the picture, or k, never L².
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu import terms
from sightline.cpu.consumers import chosen_consumers
from sightline.cpu.consumers.consumer import Here
from sightline.cpu.entry import entry
from sightline.cpu.kernel import Kernel
from sightline.cpu.kinds import ADDRESS, INFINITY, INT, NEGATIVE_INFINITY
from sightline.cpu.operand import Operand
from sightline.cpu.rows import Place, gather
from sightline.cpu.scoring import Scoring
from sightline.cpu.softmax import UNROLL
from sightline.cpu.vmath import exp2

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.isa import Isa
    from sightline.cpu.rows import Rows
    from sightline.cpu.values import Pointer, Value
    from sightline.kernel_key import KernelKey


def generate(key: KernelKey, isa: Isa) -> str:
    """The LLVM IR of the pass, `int64 attend(int64 *arguments, void *workspace)`, as `forward.generate`."""
    k = Kernel(key, isa)
    sweep = _Sweep(k)
    with entry(k, 2) as f:
        a, w = f.arguments()
        with f.loop(0, k.argument(f, a, "slice_items"), name="item"):
            item = a.claim(1)
            f.give_if(item >= k.argument(f, a, "items"), 0)
            sweep.run(f, a, w, item)
        f.give(1)
    return str(k.module)


class _Sweep:
    """One run of blocks against the keys, and the functions it is made of."""

    def __init__(self, k: Kernel) -> None:
        self.k = k
        self.scoring = Scoring(k)
        if k.key.terms:
            self.keys = Operand(k, "key", k.key.dim, ("rows",))
            self.pack, self.pack_query = self.keys.pack_tile(), terms.pack_lanes(k, "query", k.key.dim)
        self.consumers = chosen_consumers(k)
        self.weights = weights(k) if any(consumer.of_weights for consumer in self.consumers) else None
        self.tile = self._tile()

    def run(self, f: Function, a: Pointer, w: Pointer, item: Value) -> None:
        """Everything for one work item."""
        k = self.k
        spaces, runs, blocks = (k.argument(f, a, name) for name in ("spaces", "runs", "blocks"))
        # The last run first: under a causal mask it is the longest.
        batch, space, run = item // (spaces * runs), item // runs % spaces, runs - 1 - item % runs
        size = k.argument(f, a, "run_blocks")
        if k.key.terms:
            w = k.begin_run(f, w, f.value(1))
        with f.loop(run * size, (run * size + size).min(blocks), name="block") as block:
            rows = gather(k, f, a, w, Place(batch, space, block))
            self.scoring.load_queries(f, a, w, rows)
            if k.key.terms:
                self._load_on_unit(f, w, rows)
            _load_sums(k, f, a, w, rows)
            first = block * k.block_rows
            head = batch * spaces + space
            here = Here(head * runs + run, head, run, first, first - run * size * k.block_rows)
            for consumer in self.consumers:
                consumer.begin(f, a, w, rows, here)
            self._against_keys(f, a, w, rows)
            for consumer in self.consumers:
                consumer.end(f, a, w, rows, here)

    def _load_on_unit(self, f: Function, w: Pointer, rows: Rows) -> None:
        """Q in terms, and whether it fits them."""
        fits = f.call(self.pack_query, w, rows.vectors) == 0
        self._fits(w).store(fits.unsigned(INT), 8)

    def _fits(self, w: Pointer) -> Pointer:
        return self.k.place(w, "rows")

    def _scores(
        self,
        f: Function,
        a: Pointer,
        w: Pointer,
        tile: tuple[Pointer, Value, Value],
        vectors: Value,
        full: Value,
    ) -> None:
        """S of a tile: its first key, the key's number, keys in it."""
        (keys, first, n), row = tile, self.k.argument(f, a, "key_row")
        soon = keys + n * row, row
        if not self.k.key.terms:
            self.scoring.scores(f, a, w, tile, vectors, full, soon)
            return
        fits = (f.call(self.pack, a, w, keys, n) == 0) & (self._fits(w).load(INT, 8) != 0)
        with f.either(fits) as (on_unit, with_care):
            with on_unit:
                packed = self.keys.packed(w, "rows"), first, n
                self.scoring.scores(f, a, w, packed, vectors, full, soon)
            with with_care:
                self.scoring.scores(f, a, w, tile, vectors, full, soon, careful=True)

    def _against_keys(self, f: Function, a: Pointer, w: Pointer, rows: Rows) -> None:
        """Every tile that some row may see."""
        size, keys = self.k.key.tile_keys, self.scoring.of_head(f, a, rows, "key")
        with f.loop(rows.begin // size * size, rows.end, size, name="tile") as corner:
            first, last = corner.max(rows.begin), (corner + size).min(rows.end)
            full = ((first >= rows.full_begin) & (last <= rows.full_end)).unsigned(INT)
            f.call(self.tile, a, w, keys, first, last - first, rows.count, full)

    def _tile(self) -> Function:
        """One tile of keys against the block's rows.

        Parameters: arguments, workspace, the head's keys, first key of the tile, keys in it, rows, whether every
        row may see all of it (as far as causal and window go).
        """
        k = self.k
        with k.module.function("tile", *[ADDRESS] * 3, *[INT] * 4, returns=INT) as f:
            a, w, keys, first, n, rows, full = f.arguments()
            full = self.scoring.skip_empty(f, a, w, first, n, rows, full)
            vectors = (rows + (k.lanes - 1)) // k.lanes
            keys = keys + first * k.argument(f, a, "key_row")
            self._scores(f, a, w, (keys, first, n), vectors, full)
            for consumer in self.consumers:
                if not consumer.of_weights:
                    f.call(consumer.tile, a, w, first, n, vectors)
            if self.weights is not None:
                f.call(self.weights, a, w, n, vectors)
            for consumer in self.consumers:
                if consumer.of_weights:
                    f.call(consumer.tile, a, w, first, n, vectors)
            f.give(1)
        return f


def _load_sums(k: Kernel, f: Function, a: Pointer, w: Pointer, rows: Rows) -> None:
    """Shift and log_sum of each row; 0 and +∞, which leave no weight, for lanes without a row.

    Such a lane repeats the last row's scores. If they are undefined it stays so, and adds NaN where the row does.
    """
    nothing = {"shift": 0.0, "log_sum": INFINITY}
    with f.loop(0, rows.vectors * k.lanes, name="row") as r:
        number = (k.place(w, "see_rows") + r * 8).load(INT, 8)
        exists, place = number >= 0, number.max(0) * k.element_bytes
        for name, part in (("shift", "high"), ("log_sum", "sum")):
            value = exists.where((k.address(a, name) + place).load(k.compute), nothing[name])
            (k.place(w, part) + r * k.element_bytes).store(value)


def weights(k: Kernel) -> Function:
    """W = 2^((S − shift)·c − log_sum) in place, exactly 0 where a key is not seen.

    Parameters: arguments, workspace, keys of the tile, vectors of rows.
    """
    with k.module.function("weights", ADDRESS, ADDRESS, INT, INT) as f:
        a, w, n, vectors = f.arguments()
        shift, log_sum, table = (k.table(w, part) for part in ("high", "sum", "scores"))
        c = k.number(a, "exponent")
        with f.loop(0, vectors, name="rows") as g:
            m, minus_log = shift[g], -log_sum[g]
            with f.loop(0, n, UNROLL, name="keys") as j:
                for u in range(UNROLL):
                    s = table[j + u, g]
                    weight = exp2((s - m).fma(c, minus_log))
                    table[j + u, g] = (s != NEGATIVE_INFINITY).where(weight, 0.0)  # also where log_sum is NaN
            with f.loop(n, (n + (k.lanes - 1)) // k.lanes * k.lanes, name="beyond") as j:
                table[j, g] = f.zeros(k.vec)
    return f
