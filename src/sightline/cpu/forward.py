"""The attention program: blocks of query rows against tiles of keys, the scores never leaving the cache.

    for each block of query rows                         a work item; threads take the next one as they go
        for each period of keys that some row may see    or an item takes some periods of a block
            m = −inf, l = 0, O = 0
            for each tile of the period
                S = Q·Kᵀ                                 tiles.inner
                S = modified S, −inf where not allowed   modify, where needed
                P = exp(S − m), m and l brought up       softmax.weights
                O = O·exp(m_old − m) + P·V               tiles.outer
            join the periods before                      state.join
        output = O / l                                   softmax.finish, transpose.lanes_to_rows

after FlashAttention (Dao et al., 2022, https://arxiv.org/abs/2205.14135), with queries in lanes: Sᵀ, Pᵀ and
Oᵀ hold one key or one dimension per row and one query per lane, so no softmax sum crosses a register.

A masked key's weight is 0, but 0·NaN is NaN. Instead of looking at every value, rows whose result holds a NaN
or an Inf are done again with care (see softmax): their masked keys are then skipped one by one, the other rows
keep what they have. What a query does see stays NaN.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from sightline.cpu import (
    amx,
    few,
    formats,
    packs,
    patient,
    softmax,
    state,
    statistics,
    tiles,
    transpose,
)
from sightline.cpu.entry import entry
from sightline.cpu.kernel import Kernel
from sightline.cpu.kinds import ADDRESS, BOOL, INT
from sightline.cpu.rows import gather, keep_bad_rows, place_of
from sightline.cpu.runs import Run
from sightline.cpu.scoring import Scoring

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.isa import Isa
    from sightline.cpu.rows import Rows
    from sightline.cpu.values import Pointer, Value
    from sightline.kernel_key import KernelKey


def generate(key: KernelKey, isa: Isa) -> str:
    """The LLVM IR of a whole kernel, `int64 attend(int64 *arguments, void *workspace)`.

    It works on items until none is left (returns 0) or it has done its slice (returns 1).
    """
    k = Kernel(key, isa)
    block = Block(k)
    worker = Run(k, block, block.waiting, block.packs) if block.waiting and block.packs else block
    with entry(k, 2) as f:
        a, w = f.arguments()
        with f.loop(0, k.argument(f, a, "slice_items"), name="item"):
            item = a.claim(1)
            f.give_if(item >= k.argument(f, a, "items"), 0)
            worker.attend(f, a, w, item)
        f.give(1)
    return str(k.module)


class Block:
    """One block of rows, and the functions it is made of."""

    def __init__(self, k: Kernel) -> None:
        key = k.key
        self.k = k
        self.scoring = Scoring(k)
        self.rows_to_pairs = transpose.rows_to_pairs(k) if key.paired and key.stage_value else None
        made = (True,) if key.terms else (False, True)  # patient makes the others
        self.weights = {careful: softmax.weights(k, careful=careful) for careful in made}
        next_keys = key.dim * formats.size(key.dtype)
        product = tiles.Product("accumulate", key.value_dim, "scores", "output", next_keys, faded=True)
        self.accumulate = {
            False: (amx if key.terms else few if key.few else tiles).outer(k, product),
            True: tiles.outer_carefully(k, product, softmax.UNSEEN, lambda w: softmax.shrink(k, w)),
        }
        self.packs = packs.Packs(k) if key.terms else None
        self.waiting = patient.Waiting(k, self.accumulate[False], self.scoring.modify) if key.terms else None
        self.turn = few.turn(k) if key.few and not key.terms else None
        self.lanes_to_rows = transpose.lanes_to_rows(k, key.dtype, "output")
        self.clear, self.clear_kept = (state.clear(k, kept=kept) for kept in ("", "kept_"))
        self.join = {careful: state.join(k, careful=careful) for careful in (False, True)}
        self.take_up = state.take_up(k)
        self.put_away, self.take_out = (
            (state.moved(k, out=out) if key.split else None) for out in (False, True)
        )
        self.tile = {careful: self._tile(careful=careful) for careful in (False, True)}

    def attend(self, f: Function, a: Pointer, w: Pointer, item: Value) -> None:
        """Everything for one work item: a block of rows, or a piece of the keys of one."""
        k = self.k
        if self.put_away is None or self.take_out is None:
            rows = gather(k, f, a, w, place_of(k, f, a, item))
            self.scoring.load_queries(f, a, w, rows)
            self._against_keys(f, a, w, rows, careful=False)
            self.finish(f, a, w, rows)
            return
        pieces, piece_keys, size = (
            k.argument(f, a, name) for name in ("pieces", "piece_keys", "state_bytes")
        )
        block, piece = item // pieces, item % pieces
        rows = gather(k, f, a, w, place_of(k, f, a, block))
        self.scoring.load_queries(f, a, w, rows)
        shelf = k.address(a, "shelves") + block * k.argument(f, a, "shelf_bytes")
        first = rows.first_period(k)
        end = (piece * piece_keys + piece_keys).min(rows.end)
        with f.loop((piece * piece_keys).max(first), end, k.key.period_keys, name="period") as corner:
            f.call(self.clear, w, rows.vectors)
            self._period(f, a, w, rows, corner, careful=False)
            f.call(self.put_away, w, rows.vectors, shelf + corner // k.key.period_keys * size)
        done = (k.address(a, "finished") + block * 8).claim(1, "acq_rel")
        with f.when(done == pieces - 1):
            self.start(f, a, w, rows, careful=False)
            with f.loop(first, rows.end, k.key.period_keys, name="period") as corner:
                f.call(self.take_out, w, rows.vectors, shelf + corner // k.key.period_keys * size)
                f.call(self.join[False], a, w, rows.vectors)
            f.call(self.take_up, w, rows.vectors)
            self.finish(f, a, w, rows)

    def start(self, f: Function, a: Pointer, w: Pointer, rows: Rows, *, careful: bool) -> None:
        """Nothing is kept but the sinks."""
        f.call(self.clear_kept, w, rows.vectors)
        if self.k.key.sinks:
            state.keep_sinks(self.k, f, a, w, rows.vectors, careful=careful)

    def finish(self, f: Function, a: Pointer, w: Pointer, rows: Rows) -> None:
        """Out with the results; what is not finite, or has far scores, is done again with care."""
        k = self.k
        bad = softmax.find_bad_rows(k, f, w, rows.vectors)
        self._store(f, a, w, rows, careful=False)
        with f.when(bad):
            keep_bad_rows(k, f, w, rows)
            if k.key.queries_in_rows:
                self.scoring.load_queries(f, a, w, rows)
            self._against_keys(f, a, w, rows, careful=True)
            self._store(f, a, w, rows, careful=True)

    def _store(self, f: Function, a: Pointer, w: Pointer, rows: Rows, *, careful: bool) -> None:
        """Output = O / l, and what was asked about the weights."""
        k = self.k
        statistics.finish(k, f, a, w, rows.vectors, careful=careful)
        softmax.finish(k, f, a, w, rows.vectors, careful=careful)
        f.call(self.lanes_to_rows, k.argument(f, a, "out_step"), f.value(k.key.value_dim), rows.vectors, w)

    def _against_keys(self, f: Function, a: Pointer, w: Pointer, rows: Rows, *, careful: bool) -> None:
        """From a state that has seen nothing through every tile that some row may see."""
        k, first = self.k, rows.first_period(self.k)
        several = f.value(1, BOOL) if k.key.sinks else rows.end - first > k.key.period_keys
        f.call(self.clear, w, rows.vectors)
        with f.when(several):
            self.start(f, a, w, rows, careful=careful)
        with f.loop(first, rows.end, k.key.period_keys, name="period") as corner:
            self._period(f, a, w, rows, corner, careful=careful)
            with f.when(several):
                f.call(self.join[careful], a, w, rows.vectors)
        with f.when(several):
            f.call(self.take_up, w, rows.vectors)

    def _period(
        self, f: Function, a: Pointer, w: Pointer, rows: Rows, corner: Value, *, careful: bool
    ) -> None:
        """The tiles of a period, or as many as the rows may see."""
        k = self.k
        in_rows = self.turn is not None and not careful
        if in_rows:
            few.clear(k, f, w)
        heads = {name: self.scoring.of_head(f, a, rows, name) for name in ("key", "value")}
        self.tiles(f, a, w, rows, corner, heads, careful=careful)
        if self.turn and in_rows:
            f.call(self.turn, w)

    def tiles(
        self, f: Function, a: Pointer, w: Pointer, rows: Rows, corner: Value,
        heads: dict[str, Pointer] | None, *, careful: bool,
    ) -> None:  # fmt: skip
        """The tiles of the period that begins at key `corner`; heads: keys and values, unless they are packed."""
        k, nowhere = self.k, f.value(0).as_pointer()
        size = self.k.key.tile_keys
        # Tiles begin at multiples of their size, so that a row's sums do not depend on the rows beside it.
        start, end = corner.max(rows.begin // size * size), (corner + self.k.key.period_keys).min(rows.end)
        with f.loop(start, end, size, name="tile") as place:
            first, last = place.max(rows.begin), (place + size).min(rows.end)
            full = ((first >= rows.full_begin) & (last <= rows.full_end)).unsigned(INT)
            places = [head + first * k.argument(f, a, f"{name}_row") for name, head in (heads or {}).items()]
            keys, values = places or (nowhere, nowhere)
            f.call(self.tile[careful], a, w, keys, values, first, last - first, rows.count, full)

    def _copied(self, *, careful: bool) -> Function | None:
        """How values are copied before they are multiplied, if they are."""
        key = self.k.key
        if careful:
            return self.scoring.rows_to_rows if key.stage_value or key.copies_with_care else None
        return None if not key.stage_value else self.rows_to_pairs or self.scoring.rows_to_rows

    def _tile(self, *, careful: bool) -> Function:
        """One tile of keys against the block's rows.

        Parameters: arguments, workspace, its keys and values, its first key's number, keys in it, rows, whether
        every row may see all of it (as far as causal and window go).
        """
        k = self.k
        name, kinds = ("tile.careful" if careful else "tile"), (*[ADDRESS] * 4, *[INT] * 4)
        with k.module.function(name, *kinds, returns=INT) as f:
            a, w, keys, values, first, n, rows, full = f.arguments()
            vectors, waiting = (rows + (k.lanes - 1)) // k.lanes, None if careful else self.waiting
            waits = k.key.masks_weights and not careful
            # What waits has no gaps.
            leave = functools.partial(f.call, waiting.flush, w, vectors) if waiting else None
            full = self.scoring.skip_empty(f, a, w, first, n, rows, full, leave, waits=waits)
            if self.packs is not None and not careful:
                keys, values, soon = self.packs.tile(f, a, w, first, n)
            else:
                soon = values
            key_row, value_row = (k.argument(f, a, part) for part in ("key_row", "value_row"))
            self.scoring.scores(f, a, w, (keys, first, n), vectors, full, (soon, value_row), careful=careful)
            if self.waiting is not None and not careful:
                self.waiting.take(f, a, w, (values, first, n), vectors)
                f.give(1)
                return f
            f.call(self.weights[careful], a, w, first, n, vectors)
            copy = self._copied(careful=careful)
            packed, row = self.scoring.packed(f, a, w, "value", values, n, copy)
            f.call(self.accumulate[careful], w, packed, row, n, vectors, keys + n * key_row, key_row)
            f.give(1)
        return f
