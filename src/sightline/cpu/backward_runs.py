"""The backward program on a matrix unit: a run of blocks meets each tile of keys together, packed once for all.

    for each run of blocks                                   most_sharing of them at most
        Q and dO of every block → tiles                      recompute.load
        for each tile of keys that some block may see
            K, Kᵀ and V → tiles                              operand
            G_K = G_V = 0
            for each block
                S = Q·Kᵀ, modified and masked, dP = dO·Vᵀ    amx.inner
                P and dS in terms                            derivative_terms
                dQ = dQ + dS·K                               amx.outer
                G_V = G_V + Pᵀ·dO, G_K = G_K + dSᵀ·Q         amx.across
            dK = dK + G_K, dV = dV + G_V
        write every block's dQ

Scores are made as the forward program made them, product by product, so that lse fits them to the last bit.
Numbers that are no sums of terms (see terms) are for multiply-adds: a block's with every tile, a tile's with every
block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sightline.cpu import amx, derivative, packing
from sightline.cpu.kinds import ADDRESS, BOOL, INT
from sightline.cpu.operand import Operand
from sightline.cpu.rows import Rows, gather, vectors_of
from sightline.kernel_key import PERIOD_TILES

if TYPE_CHECKING:
    from collections.abc import Callable

    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.key_sums import Reach
    from sightline.cpu.recompute import Recompute
    from sightline.cpu.rows import Place
    from sightline.cpu.values import Pointer, Value

FITS, FAR = 7, 8  # where a block remembers whether its rows fit the unit, and whether some lse does not tell


class Block(Protocol):
    """What a run asks of a block: that of `backward`, or that of `bias_gradient`."""

    again: Recompute
    makes_query: bool
    sums_over_queries: dict[str, int]
    derive: dict[bool, Function]
    across: dict[str, dict[bool, Function]]
    accumulate: dict[bool, Function]
    sums: dict[bool, Function]

    def clear(self, f: Function, w: Pointer, rows: Rows) -> None:
        """Before a block's first key."""

    def settle(self, f: Function, w: Pointer, rows: Rows) -> None:
        """After every PERIOD_TILES tiles, if it makes dQ."""

    def store(self, f: Function, a: Pointer, w: Pointer, rows: Rows) -> None:
        """After its last key."""


class BackwardRun:
    """A run of blocks, and the functions that it is made of."""

    def __init__(self, k: Kernel, block: Block) -> None:
        key = k.key
        self.k, self.block, self.again = k, block, block.again
        self.sums_over_queries = block.sums_over_queries
        forms = ("rows", "columns") if block.makes_query else ("rows",)
        self.operands = {
            "key": Operand(k, "key", key.dim, forms),
            "value": Operand(k, "value", key.value_dim, ("rows",)),
        }
        self.pack = {name: operand.pack_tile() for name, operand in self.operands.items()}
        self.far_tile, self.tile = self._tile(far=True), self._tile(far=False)

    def differentiate(
        self, f: Function, a: Pointer, w: Pointer, count: Value, place: Callable[[Value], Place],
        reach: Reach | None,
    ) -> None:  # fmt: skip
        """Everything for a run of `count` blocks, against all keys or those in reach."""
        k, size = self.k, self.k.key.tile_keys
        begin, end, far = (f.variable(f.value(start)) for start in (2**62, 0, 0))
        one = k.begin_run(f, w, count)
        for name, columns in self.sums_over_queries.items():
            k.clear(f, one, f"{name}_sums", k.key.tile_keys * self._row(columns))
        with f.loop(0, count, name="block") as i:
            here = self.k.block(w, i)
            rows = self._set_up(f, a, here, place(i), reach)
            begin.value, end.value = begin.value.min(rows.begin), end.value.max(rows.end)
            far.value = far.value | self._remembered(here, FAR).load(INT, 8)
        with f.when(far.value != 0):
            self._again_with_care(f, a, w, count, (begin.value, end.value))
        with f.loop(begin.value, end.value, size, name="tile") as corner:
            n = (end.value - corner).min(size)
            fine = self._packed(f, a, w, corner, n, ("key", "value"))
            self._each_block(f, a, w, count, (corner, fine), self.tile)
            if reach is not None:
                self._join(f, w, reach, corner, n)
            if self.block.makes_query:
                ends = corner // size % PERIOD_TILES == PERIOD_TILES - 1
                with f.loop(0, ends.where(count, 0), name="block") as i:
                    here = self.k.block(w, i)
                    self.block.settle(f, here, Rows.kept(k, here))
        with f.loop(0, count, name="block") as i:
            here = self.k.block(w, i)
            self.block.store(f, a, here, Rows.kept(k, here))

    def _remembered(self, w: Pointer, slot: int) -> Pointer:
        return self.k.place(w, "rows") + 8 * slot

    def _set_up(self, f: Function, a: Pointer, w: Pointer, place: Place, reach: Reach | None) -> Rows:
        """A block before its first key."""
        k = self.k
        rows = gather(k, f, a, w, place)
        if reach is not None:
            rows.begin, rows.end = rows.begin.max(reach.begin), rows.end.min(reach.end)
        rows.keep(k, w)
        fits, far = self.again.load(f, a, w, rows)
        for slot, flag in (FITS, fits & self._finite(f, w, "delta", rows.vectors)), (FAR, far):
            self._remembered(w, slot).store(flag.unsigned(INT), 8)
        self.block.clear(f, w, rows)
        return rows

    def _finite(self, f: Function, w: Pointer, part: str, vectors: Value) -> Value:
        """Whether a number for each row is neither NaN nor Inf."""
        odd = f.variable(f.value(0, BOOL))
        with f.loop(0, vectors, name="rows") as g:
            odd.value = odd.value | (self.k.table(w, part)[g] * 0.0 != 0.0).any()
        return ~odd.value

    def _row(self, columns: int) -> int:
        return self.k.column_vectors(columns) * self.k.vector_bytes

    # ---- tiles of keys ----

    def _packed(
        self, f: Function, a: Pointer, w: Pointer, first: Value, n: Value, names: tuple[str, ...]
    ) -> Value:
        """Pack a tile for all blocks; whether all of it fits the unit."""
        one = self.k.block(w, f.value(0))
        rows, odd = Rows.kept(self.k, one), f.value(0)
        for name in names:
            head = self.again.scoring.of_head(f, a, rows, name)
            place = head + first * self.k.argument(f, a, f"{name}_row")
            odd = odd | f.call(self.pack[name], a, one, place, n)
        return (odd == 0).unsigned(INT)

    def _each_block(
        self, f: Function, a: Pointer, w: Pointer, count: Value, tile: tuple[Value, Value], do: Function
    ) -> None:
        """Every block of which some row may see the tile: its first key, whether it fits the unit."""
        k, (corner, fine) = self.k, tile
        with f.loop(0, count, name="block") as i:
            here = self.k.block(w, i)
            rows = Rows.kept(k, here)
            last = (corner + k.key.tile_keys).min(rows.end)
            full = ((corner >= rows.full_begin) & (last <= rows.full_end)).unsigned(INT)
            fits = fine & self._remembered(here, FITS).load(INT, 8)
            with f.when((rows.begin <= corner) & (corner < rows.end)):
                f.call(do, a, here, corner, last - corner, rows.count, full, fits)

    def _again_with_care(
        self, f: Function, a: Pointer, w: Pointer, count: Value, keys: tuple[Value, Value]
    ) -> None:
        """Largest score and sum of weights of each row, where some row's lse does not tell."""
        k = self.k
        with f.loop(0, count, name="block") as i:
            here = self.k.block(w, i)
            self.again.begin_far(f, a, here, Rows.kept(k, here))
        with f.loop(*keys, k.key.tile_keys, name="tile") as corner:
            fine = self._packed(f, a, w, corner, (keys[1] - corner).min(k.key.tile_keys), ("key",))
            self._each_block(f, a, w, count, (corner, fine), self.far_tile)
        with f.loop(0, count, name="block") as i:
            here = self.k.block(w, i)
            derivative.replace_far(k, f, a, here, Rows.kept(k, here).vectors)

    def _join(self, f: Function, w: Pointer, reach: Reach, first: Value, n: Value) -> None:
        """What the run adds to dK and dV of the tile joins what those before did."""
        one = self.k.block(w, f.value(0))
        for name, columns in self.sums_over_queries.items():
            sums, size = self.k.place(one, f"{name}_sums"), n * self._row(columns)
            packing.join(self.k, f, sums, reach.of_key(name, first), f.value(0), size)

    # ---- one tile against one block ----

    def _tile(self, *, far: bool) -> Function:
        """One packed tile of keys against the block's rows; `far`: only for the sums that an lse stands for.

        Parameters: arguments, workspace, the tile's first key, keys in it, rows, whether every row may see all of
        it (as far as causal and window go), whether all numbers fit the unit.
        """
        k = self.k
        with k.module.function(f"tile{'.far' * far}", *[ADDRESS] * 2, *[INT] * 5, returns=INT) as f:
            a, w, first, n, rows, full, fits = f.arguments()
            scoring, vectors = self.again.scoring, vectors_of(k, rows)
            full = scoring.skip_empty(f, a, w, first, n, rows, full)
            heads = {name: scoring.of_head(f, a, Rows.kept(k, w), name) for name in ("key", "value")}
            keys, values = (head + first * k.argument(f, a, f"{name}_row") for name, head in heads.items())
            nowhere = f.value(0).as_pointer(), f.value(0)
            with f.either(fits != 0) as (on_unit, with_care):
                with on_unit:
                    packed = self.operands["key"].packed(w, "rows")
                    scoring.scores(f, a, w, (packed, first, n), vectors, full, nowhere)
                    self._multiply(f, a, w, first, n, vectors) if not far else self._top(f, w, n, vectors)
                with with_care:
                    soon = values, k.argument(f, a, "value_row")
                    packed, row = scoring.scores(f, a, w, (keys, first, n), vectors, full, soon, careful=True)
                    if not far:
                        self._carefully(f, a, w, (keys, values, first, n), (packed, row), vectors)
            if far:
                f.call(self.again.weights, a, w, first, n, vectors)
            f.give(1)
        return f

    def _top(self, f: Function, w: Pointer, n: Value, vectors: Value) -> None:
        """Each row's largest score."""
        with f.loop(0, vectors, name="rows") as g:
            self.k.table(w, "top")[g] = amx.largest_score(self.k, f, w, n, g)

    def _multiply(self, f: Function, a: Pointer, w: Pointer, first: Value, n: Value, vectors: Value) -> None:
        """From S to all that the tile adds, on the unit."""
        k, block, nowhere = self.k, self.block, (f.value(0).as_pointer(), f.value(0))
        derivative.look(k, f, w, vectors)
        f.call(
            self.again.d_weights,
            w,
            self.operands["value"].packed(w, "rows"),
            f.value(0),
            n,
            vectors,
            *nowhere,
        )
        f.call(block.derive[False], a, w, first, n, vectors)
        for name in block.across:
            sums = k.place(w, f"{name}_sums")
            f.call(block.across[name][False], w, sums, f.value(0), n, vectors, *nowhere)
        if block.makes_query:
            columns = self.operands["key"].packed(w, "columns")
            f.call(block.accumulate[False], w, columns, f.value(0), amx.whole_tiles(n), vectors, *nowhere)

    def _carefully(
        self, f: Function, a: Pointer, w: Pointer, tile: tuple[Pointer, Pointer, Value, Value],
        packed: tuple[Pointer, Value], vectors: Value,
    ) -> None:  # fmt: skip
        """From S to all that the tile adds, by multiply-adds."""
        k, (keys, values, first, n) = self.k, tile
        derivative.look(k, f, w, vectors)
        copied, row = self.again.scoring.packed(f, a, w, "value", values, n, self.again.scoring.rows_to_rows)
        f.call(self.again.careful_d_weights, w, copied, row, n, vectors, copied, row)
        sums = [
            k.place(w, f"{name}_sums") if name in self.block.across else f.value(0).as_pointer()
            for name in ("d_key", "d_value")
        ]
        f.call(self.block.sums[True], a, w, keys, *packed, *sums, first, n, vectors)
