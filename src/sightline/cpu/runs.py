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

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sightline.cpu import terms
from sightline.cpu.kinds import ADDRESS, BOOL, INT
from sightline.cpu.rows import Place, Rows, gather, of_sequence, place_of, sequence_number
from sightline.cpu.softmax import SHRINK
from sightline.cpu.terms import HUGE_VALUE, TINY_VALUE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sightline.cpu.emit import Function
    from sightline.cpu.forward import Block
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.packs import Packs
    from sightline.cpu.patient import Waiting
    from sightline.cpu.values import Pointer, Value, Variable

NAN = float("nan")
TINY_BITS, HUGE_BITS = 32, 44


@dataclass(frozen=True)
class Item:
    """The work item at hand: a run of blocks against its keys, or against a piece of them."""

    f: Function  # that is being written
    a: Pointer  # the call's arguments
    w: Pointer  # the run's working memory
    run: Value  # its number
    piece: Value  # of the keys, …
    pieces: Value  # … of so many
    place: Place  # of its first block
    count: Value  # its blocks

    @staticmethod
    def of(k: Kernel, f: Function, a: Pointer, w: Pointer, number: Value) -> Item:
        """What the item with that number is about."""
        pieces = k.argument(f, a, "pieces") if k.key.split else f.value(1)
        run, piece = number // pieces, number % pieces
        size, blocks = k.argument(f, a, "run_blocks"), k.argument(f, a, "blocks")
        place = place_of(k, f, a, run, "runs")
        first = place.block * size
        count = (blocks - first).min(size)
        return Item(f, a, w, run, piece, pieces, Place(place.batch, place.space, first), count)

    def place_of(self, i: Value) -> Place:
        """Of one of its blocks."""
        return Place(self.place.batch, self.place.space, self.place.block + i)


@dataclass(frozen=True)
class Met:
    """What is known of the keys, and of what is kept of them from period to period."""

    several: Value  # whether states are kept: there is more than one period, or a sink
    block: Value  # the first block's number among all, if states wait on shelves
    odd: Variable  # what was odd in keys and values so far (terms)


class Run:
    """One run of blocks against the keys."""

    def __init__(self, k: Kernel, block: Block, waiting: Waiting, packs: Packs) -> None:
        self.k, self.block, self.waiting, self.packs = k, block, waiting, packs
        pack = terms.pack_query_rows(k) if k.key.queries_in_rows else terms.pack_lanes(k, "query", k.key.dim)
        self.pack_queries = pack
        self.set_up, self.finish = self._set_up(), self._finish()

    def attend(self, f: Function, a: Pointer, w: Pointer, item: Value) -> None:
        """Everything for one work item."""
        k = self.k
        at = Item.of(k, f, a, w, item)
        self.waiting.begin_run(f, k.begin_run(f, w, at.count))
        # A sink waits for the first period, and a float32's odd numbers say how the whole run is done with care.
        if k.key.split or k.key.sinks or k.key.dtype == "float32":
            self._together(at)
            return
        length = of_sequence(sequence_number(k, a, at.place.batch), "length")
        with f.either(length <= k.key.period_keys) as (short, long):
            with short:
                self._one_by_one(at, length)
            with long:
                self._together(at)

    def _one_by_one(self, at: Item, length: Value) -> None:
        """All keys are in one period, so no block waits for another: all of them take the first one's memory."""
        f, scoring = at.f, self.block.scoring
        here = self.k.block(at.w, f.value(0))
        self._shrink(at, f.value(0))
        with f.loop(0, at.count, name="block") as i:
            rows = self._ready(at, here, i)
            with f.when(i == 0):
                heads = {name: scoring.of_head(f, at.a, rows, name) for name in ("key", "value")}
                self.packs.begin(f, here, heads, f.value(0), length)
            self.block.tiles(f, at.a, here, rows, f.value(0), None, careful=False)
            self.waiting.end(f, here, rows.vectors)
            f.call(self.finish, at.a, here)

    def _together(self, at: Item) -> None:
        """Period after period, every block of the run."""
        k, f, a = self.k, at.f, at.a
        blocks = k.argument(f, a, "blocks")
        begin, end = self._set_up_all(at)
        first, last = begin.value // k.key.period_keys * k.key.period_keys, end.value
        several = f.value(1, BOOL) if k.key.sinks else last - first > k.key.period_keys
        if k.key.split:
            share = k.argument(f, a, "piece_keys")
            first, last = (at.piece * share).max(first), (at.piece * share + share).min(last)
        else:
            with f.when(several), self._each_block(at) as (_, here):
                self.block.start(f, a, here, Rows.kept(k, here), careful=False)
        odd = f.variable(f.value(0))
        number = at.place.batch * k.argument(f, a, "spaces") * blocks + at.place.space * blocks
        met = Met(several, number + at.place.block, odd)
        with f.loop(first, last, k.key.period_keys, name="period") as corner:
            self._period(at, met, corner, end.value)
        if self.block.take_out is None:
            self._end(at, met)
        else:
            self._end_together(at, met, self.block.take_out)

    @contextmanager
    def _each_block(self, at: Item) -> Iterator[tuple[Value, Pointer]]:
        """A loop over the run's blocks: which one, and its working memory."""
        with at.f.loop(0, at.count, name="block") as i:
            yield i, self.k.block(at.w, i)

    # ---- before the first key ----

    def _set_up_all(self, at: Item) -> tuple[Variable, Variable]:
        """Make every block ready; the keys that some of them may see, from first to one past last."""
        f = at.f
        begin, end = (f.variable(f.value(start)) for start in (2**62, 0))
        with self._each_block(at) as (i, here):
            rows = self._ready(at, here, i)
            begin.value, end.value = begin.value.min(rows.begin), end.value.max(rows.end)
        return begin, end

    def _ready(self, at: Item, here: Pointer, i: Value) -> Rows:
        """A block before its first key."""
        place = at.place_of(i)
        at.f.call(self.set_up, at.a, here, place.batch, place.space, place.block)
        return Rows.kept(self.k, here)

    def _set_up(self) -> Function:
        """Make a block ready. Parameters: arguments, workspace, the block's sequence, space and number."""
        k = self.k
        with k.module.function("set_up", ADDRESS, ADDRESS, INT, INT, INT) as f:
            a, w, *place = f.arguments()
            rows = gather(k, f, a, w, Place(*place))
            rows.keep(k, w)
            self.waiting.begin(f, w)
            if k.key.queries_in_rows:
                step = k.argument(f, a, "query_step")
                f.call(self.pack_queries, k.place(w, "query_rows"), step, rows.vectors, w)
            else:
                self.block.scoring.load_queries(f, a, w, rows)
                f.call(self.pack_queries, w, rows.vectors)
            f.call(self.block.clear, w, rows.vectors)
        return f

    # ---- a period of keys ----

    def _period(self, at: Item, met: Met, corner: Value, end: Value) -> None:
        """Every block's tiles of the period that begins at key `corner`; the run's keys end at `end`."""
        k, f, scoring = self.k, at.f, self.block.scoring
        one = self.k.block(at.w, f.value(0))
        heads = {name: scoring.of_head(f, at.a, Rows.kept(k, one), name) for name in ("key", "value")}
        self.packs.begin(f, one, heads, corner, end)
        with self._each_block(at) as (i, here):
            rows = Rows.kept(k, here)
            with f.when((rows.begin < corner + k.key.period_keys) & (rows.end > corner)):
                self.block.tiles(f, at.a, here, rows, corner, None, careful=False)
                self.waiting.end(f, here, rows.vectors)
                self._give_up(f, here, rows.vectors, met.odd)
                self._keep(at, met, (i, here, rows.vectors), corner)

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

    def _keep(self, at: Item, met: Met, block: tuple[Value, Pointer, Value], corner: Value) -> None:
        """A block's state of a period joins the periods before, or waits on its shelf until all are there."""
        f, (i, here, vectors) = at.f, block
        if self.block.put_away is None:
            with f.when(met.several):
                f.call(self.block.join[False], at.a, here, vectors)
        else:
            f.call(self.block.put_away, here, vectors, self._shelf(at, met.block + i, corner))
            f.call(self.block.clear, here, vectors)

    def _shelf(self, at: Item, block: Value, corner: Value) -> Pointer:
        """Where a block's state of a period waits."""
        k, f, a = self.k, at.f, at.a
        shelf = k.address(a, "shelves") + block * k.argument(f, a, "shelf_bytes")
        return shelf + corner // k.key.period_keys * k.argument(f, a, "state_bytes")

    # ---- after the last key ----

    def _end(self, at: Item, met: Met) -> None:
        """Out with the results."""
        k, f, block = self.k, at.f, self.block
        self._shrink(at, met.odd.value)
        with self._each_block(at) as (_, here):
            rows = Rows.kept(k, here)
            with f.when(met.several):
                f.call(block.take_up, here, rows.vectors)
            f.call(self.finish, at.a, here)

    def _end_together(self, at: Item, met: Met, take_out: Function) -> None:
        """Out with the results, by whom comes last of those who share the run's keys."""
        k, f, block, odd = self.k, at.f, self.block, met.odd.value
        # Beside how many pieces are done it counts those that met something odd, in higher bits.
        own = (f.value(1), ((odd & TINY_VALUE) << TINY_BITS), ((odd // HUGE_VALUE) << HUGE_BITS))
        done = (k.address(at.a, "finished") + at.run * 8).claim(own[0] + own[1] + own[2], "acq_rel")
        all_done = (done & (2**TINY_BITS - 1)) == at.pieces - 1
        with f.when(all_done):
            tiny, huge = ((done >> TINY_BITS) & (2**12 - 1)) != 0, (done >> HUGE_BITS) != 0
            others = tiny.unsigned(INT) * TINY_VALUE | huge.unsigned(INT) * HUGE_VALUE
            self._shrink(at, odd | others)
        with f.when(all_done), self._each_block(at) as (i, here):
            rows = Rows.kept(k, here)
            block.start(f, at.a, here, rows, careful=False)
            with f.loop(rows.first_period(k), rows.end, k.key.period_keys, name="period") as corner:
                f.call(take_out, here, rows.vectors, self._shelf(at, met.block + i, corner))
                f.call(block.join[False], at.a, here, rows.vectors)
            f.call(block.take_up, here, rows.vectors)
            f.call(self.finish, at.a, here)

    def _finish(self) -> Function:
        """A block's results. Parameters: arguments, workspace."""
        with self.k.module.function("finish", ADDRESS, ADDRESS) as f:
            a, w = f.arguments()
            self.block.finish(f, a, w, Rows.kept(self.k, w))
        return f

    def _shrink(self, at: Item, odd: Value) -> None:
        """With care values shrink, lest a sum overflow, but not if that would make tiny ones vanish."""
        one, by = at.f.value(1.0, self.k.compute), at.f.value(SHRINK, self.k.compute)
        place = self.k.place(self.k.block(at.w, at.f.value(0)), "shrink")
        place.store((odd == TINY_VALUE).where(one, by))
