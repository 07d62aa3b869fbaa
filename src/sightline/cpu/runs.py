"""Blocks of rows that share a head's keys: the program of a matrix unit, whose operands have to be packed first.

    for each run of blocks                               a work item, or some periods of one
        Q of every block → tiles                         terms.pack_lanes
        for each period of keys that some block may see
            K and V → tiles, as they are wanted          packs, once for all of them, near in the cache
            for each block
                m = −inf, l = 0, O = 0, and its tiles    forward.Block.tiles
                join the periods before                  state.join
        for each block: output = O / l                   forward.Block.finish

Every block has working memory of its own, so it finds its state as it left it; where all keys are in one period,
block after block takes the same, which then stays near. Numbers that are no sums of bfloat16 terms (see terms)
make l NaN: then `finish` does the rows again with care, without the unit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu import strips, terms
from sightline.cpu.kinds import ADDRESS, BOOL, INT
from sightline.cpu.rows import Place, Rows, gather, of_sequence, place_of, sequence_number
from sightline.cpu.softmax import SHRINK
from sightline.cpu.terms import HUGE_VALUE, TINY_VALUE
from sightline.cpu.workspace import run_offsets

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.forward import Block
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.packs import Packs
    from sightline.cpu.patient import Waiting
    from sightline.cpu.values import Pointer, Value, Variable

NAN = float("nan")
TINY_BITS, HUGE_BITS = 32, 44


def on_matrix_unit(k: Kernel, name: str, work: Function) -> None:
    """An entry that has the unit's registers set up for as long as `work`, of the same parameters, goes on."""
    with k.module.function(name, *[ADDRESS] * len(work.arguments()), returns=INT) as f:
        given = f.arguments()
        strips.configure(f, given[1] + run_offsets(k.key, k.isa)["config"])
        more = f.call(work, *given)
        strips.release(f)
        f.give(more)


class Run:
    """One run of blocks against the keys."""

    def __init__(self, k: Kernel, block: Block, waiting: Waiting, packs: Packs) -> None:
        self.k, self.block, self.waiting, self.packs = k, block, waiting, packs
        pack = terms.pack_query_rows(k) if k.key.queries_in_rows else terms.pack_lanes(k, "query", k.key.dim)
        self.pack_queries = pack

    def attend(self, f: Function, a: Pointer, w: Pointer, item: Value) -> None:
        """Everything for one work item."""
        k = self.k
        pieces = k.argument(f, a, "pieces") if k.key.split else f.value(1)
        run, piece = item // pieces, item % pieces
        size, blocks = k.argument(f, a, "run_blocks"), k.argument(f, a, "blocks")
        place = place_of(k, f, a, run, "runs")
        first = place.block * size
        count = (blocks - first).min(size)
        # A sink waits for the first period, and a float32's odd numbers say how the whole run is done with care.
        if k.key.split or k.key.sinks or k.key.dtype == "float32":
            self._together(f, a, w, place, (run, piece, pieces), (first, count))
            return
        length = of_sequence(sequence_number(k, a, place.batch), "length")
        with f.either(length <= k.key.period_keys) as (short, long):
            with short:
                self._one_by_one(f, a, w, place, (first, count), length)
            with long:
                self._together(f, a, w, place, (run, piece, pieces), (first, count))

    def _one_by_one(
        self, f: Function, a: Pointer, w: Pointer, place: Place, of: tuple[Value, Value], length: Value
    ) -> None:
        """All keys are in one period, so no block waits for another: all of them take the first one's memory."""
        k, scoring, (first, count) = self.k, self.block.scoring, of
        here = self._of_block(w, f.value(0))
        k.shared(here).store((w + run_offsets(k.key, k.isa)["shared"]).address(), 8)
        self._shrink(f, w, f.value(0))
        with f.loop(0, count, name="block") as i:
            rows = gather(k, f, a, here, Place(place.batch, place.space, first + i))
            self._set_up(f, a, here, rows)
            with f.when(i == 0):
                heads = {name: scoring.of_head(f, a, rows, name) for name in ("key", "value")}
                self.packs.begin(f, here, heads, f.value(0), length)
            self.block.tiles(f, a, here, rows, f.value(0), None, careful=False)
            self.waiting.end(f, here, rows.vectors)
            self.block.finish(f, a, here, rows)

    def _together(
        self, f: Function, a: Pointer, w: Pointer, place: Place, item: tuple[Value, Value, Value],
        of: tuple[Value, Value],
    ) -> None:  # fmt: skip
        """Period after period, every block of the run."""
        k, (run, piece, pieces), (first, count) = self.k, item, of
        blocks = k.argument(f, a, "blocks")
        begin, end = (f.variable(f.value(start)) for start in (2**62, 0))
        with f.loop(0, count, name="block") as i:
            here = self._of_block(w, i)
            k.shared(here).store((w + run_offsets(k.key, k.isa)["shared"]).address(), 8)
            rows = gather(k, f, a, here, Place(place.batch, place.space, first + i))
            self._set_up(f, a, here, rows)
            begin.value, end.value = begin.value.min(rows.begin), end.value.max(rows.end)
        keys = [begin.value // k.key.period_keys * k.key.period_keys, end.value]
        several = f.value(1, BOOL) if k.key.sinks else keys[1] - keys[0] > k.key.period_keys
        if not k.key.split:
            with f.when(several), f.loop(0, count, name="block") as i:
                here = self._of_block(w, i)
                self.block.start(f, a, here, Rows.kept(k, here), careful=False)
        if k.key.split:
            share = k.argument(f, a, "piece_keys")
            keys = [(piece * share).max(keys[0]), (piece * share + share).min(keys[1])]
        odd = f.variable(f.value(0))
        number = place.batch * k.argument(f, a, "spaces") * blocks + place.space * blocks + first
        with f.loop(keys[0], keys[1], k.key.period_keys, name="period") as corner:
            self._period(f, a, w, count, corner, end.value, (several, number), odd)
        self._end(f, a, w, count, (several, number), run, pieces, odd.value)

    def _of_block(self, w: Pointer, i: Value) -> Pointer:
        return w + (i * self.k.workspace.bytes + run_offsets(self.k.key, self.k.isa)["blocks"])

    def _set_up(self, f: Function, a: Pointer, w: Pointer, rows: Rows) -> None:
        """A block before its first key."""
        k, scoring = self.k, self.block.scoring
        rows.keep(k, w)
        self.waiting.begin(f, w)
        if k.key.queries_in_rows:
            step = k.argument(f, a, "query_step")
            f.call(self.pack_queries, k.place(w, "query_rows"), step, rows.vectors, w)
        else:
            scoring.load_queries(f, a, w, rows)
            f.call(self.pack_queries, w, rows.vectors)
        f.call(self.block.clear, w, rows.vectors)

    def _period(
        self, f: Function, a: Pointer, w: Pointer, count: Value, corner: Value, end: Value,
        kept: tuple[Value, Value], odd: Variable,
    ) -> None:  # fmt: skip
        """Every block's tiles of the period that begins at key `corner`, of the run's keys, which end at `end`."""
        k, scoring = self.k, self.block.scoring
        one = self._of_block(w, f.value(0))
        heads = {name: scoring.of_head(f, a, Rows.kept(k, one), name) for name in ("key", "value")}
        self.packs.begin(f, one, heads, corner, end)
        with f.loop(0, count, name="block") as i:
            here = self._of_block(w, i)
            rows = Rows.kept(k, here)
            with f.when((rows.begin < corner + k.key.period_keys) & (rows.end > corner)):
                self.block.tiles(f, a, here, rows, corner, None, careful=False)
                self.waiting.end(f, here, rows.vectors)
                self._give_up(f, here, rows.vectors, odd)
                if self.block.put_away is None:
                    with f.when(kept[0]):
                        f.call(self.block.join[False], a, here, rows.vectors)
                else:
                    shelf = self._shelf(f, a, kept[1] + i, corner)
                    f.call(self.block.put_away, here, rows.vectors, shelf)
                    f.call(self.block.clear, here, rows.vectors)

    def _shrink(self, f: Function, w: Pointer, odd: Value) -> None:
        """With care values shrink, lest a sum overflow, but not if that would make tiny ones vanish."""
        one, by = f.value(1.0, self.k.compute), f.value(SHRINK, self.k.compute)
        self.k.place(self._of_block(w, f.value(0)), "shrink").store((odd == TINY_VALUE).where(one, by))

    def _give_up(self, f: Function, w: Pointer, vectors: Value, odd: Variable) -> None:
        """A row's l is NaN if the unit cannot do it: then it will be done with care."""
        k = self.k
        if k.key.dtype != "float32":
            return
        met = self.packs.met(f, w)
        odd.value = odd.value | met
        tiny = (met & TINY_VALUE) != 0
        with f.loop(0, vectors, name="rows") as g:
            total = k.table(w, "sum")
            total[g] = total[g] + tiny.where(f.value(NAN, k.vec), k.table(w, "unfit")[g])

    def _shelf(self, f: Function, a: Pointer, block: Value, corner: Value) -> Pointer:
        """Where a block's state of a period waits."""
        k = self.k
        shelf = k.address(a, "shelves") + block * k.argument(f, a, "shelf_bytes")
        return shelf + corner // k.key.period_keys * k.argument(f, a, "state_bytes")

    def _end(
        self,
        f: Function,
        a: Pointer,
        w: Pointer,
        count: Value,
        kept: tuple[Value, Value],
        run: Value,
        pieces: Value,
        odd: Value,
    ) -> None:
        """Out with the results; where periods were shared, by whom comes last."""
        k, block = self.k, self.block
        if block.take_out is None:
            self._shrink(f, w, odd)
            with f.loop(0, count, name="block") as i:
                here = self._of_block(w, i)
                rows = Rows.kept(k, here)
                with f.when(kept[0]):
                    f.call(block.take_up, here, rows.vectors)
                block.finish(f, a, here, rows)
            return
        # Beside how many pieces are done it counts those that met something odd, in higher bits.
        met = (f.value(1), ((odd & TINY_VALUE) << TINY_BITS), ((odd // HUGE_VALUE) << HUGE_BITS))
        done = (k.address(a, "finished") + run * 8).claim(met[0] + met[1] + met[2], "acq_rel")
        all_done = (done & (2**TINY_BITS - 1)) == pieces - 1
        with f.when(all_done):
            tiny, huge = ((done >> TINY_BITS) & (2**12 - 1)) != 0, (done >> HUGE_BITS) != 0
            others = tiny.unsigned(INT) * TINY_VALUE | huge.unsigned(INT) * HUGE_VALUE
            self._shrink(f, w, odd | others)
        with f.when(all_done), f.loop(0, count, name="block") as i:
            here = self._of_block(w, i)
            rows = Rows.kept(k, here)
            block.start(f, a, here, rows, careful=False)
            with f.loop(rows.first_period(k), rows.end, k.key.period_keys, name="period") as corner:
                f.call(block.take_out, here, rows.vectors, self._shelf(f, a, kept[1] + i, corner))
                f.call(block.join[False], a, here, rows.vectors)
            f.call(block.take_up, here, rows.vectors)
            block.finish(f, a, here, rows)
