"""The online softmax before a matrix unit: O lies in tiles, so it is touched as seldom as can be.

    p = 2^(S·c − m)  with m as it was; Σ p of the tile is needed anyway, and tells
    if Σ p > LIMIT (or NaN, or nothing was seen before): what waits is multiplied by its values, m = the tile's
        largest, O = O·2^(m_old − m), and p once more
    p waits until the tiles of a group are there, `group_keys` keys: then O = O + P·V

So no score is looked at twice, O hardly ever fades, and its tiles are loaded and stored once for several tiles of
keys. What a row decides depends on its own scores alone, a sum takes the keys in the same order whenever they stop
waiting, and p may be as large as LIMIT: nothing but l and O, both summed from it, takes notice of m.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu import amx, dropout, halves, statistics, terms, weighing
from sightline.cpu.kinds import ADDRESS, BOOL, I16, INT, NEGATIVE_INFINITY, vector
from sightline.cpu.modify import Allowed
from sightline.cpu.softmax import LOWEST, UNROLL, seen_nothing
from sightline.cpu.workspace import TILE_BYTES

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.values import Pointer, Value

LIMIT = 2.0**16
TOGETHER = 2 * UNROLL  # keys at a time


class Waiting:
    """Weights that wait, and the functions that make them and multiply them."""

    def __init__(self, k: Kernel, accumulate: Function, modify: Function | None) -> None:
        self.k, self.accumulate = k, accumulate
        self.flush = self._flush()
        # Where m rises, the mask has to be in the scores. (If they are modified, it is.)
        mask = modify if k.key.masks_weights and not k.key.modified else None
        self.weights = (halves.weights if k.key.in_halves else _weights)(k, self.flush, mask)

    def begin_run(self, f: Function, w: Pointer) -> None:
        """The tile whose first row is ones."""
        k = self.k
        if k.key.in_halves:
            k.clear(f, w, "ones", TILE_BYTES)
            k.place(w, "ones").store(f.value(0x3F80, vector(I16, 2 * k.lanes)), k.vector_bytes)

    def begin(self, f: Function, w: Pointer) -> None:
        """Nothing waits."""
        k = self.k
        self._keys(w).store(f.value(0), 8)
        if k.key.in_halves:
            with f.loop(0, k.block_rows // k.lanes, name="rows") as g:
                k.table(w, "output")[k.key.value_dim, g] = f.zeros(k.vec)

    def take(
        self, f: Function, a: Pointer, w: Pointer, tile: tuple[Pointer, Value, Value], vectors: Value
    ) -> None:
        """A tile's weights; at the end of a group O = O + P·V. Tile: its values, first key, keys."""
        values, first, n = tile
        f.call(self.weights, a, w, first, n, vectors)
        waiting = self._keys(w).load(INT, 8)
        with f.when(waiting == 0):
            (self._keys(w) + 8).store(values.address(), 8)
        self._keys(w).store(waiting + n, 8)
        with f.when((first + n) % self.k.key.group_keys == 0):
            f.call(self.flush, w, vectors)

    def end(self, f: Function, w: Pointer, vectors: Value) -> None:
        """What still waits."""
        f.call(self.flush, w, vectors)
        if self.k.key.in_halves:
            total, output, row = self.k.table(w, "sum"), self.k.table(w, "output"), self.k.key.value_dim
            with f.loop(0, vectors, name="rows") as g:
                total[g] = total[g] + output[row, g]
                output[row, g] = f.zeros(self.k.vec)

    def _keys(self, w: Pointer) -> Pointer:
        return self.k.place(w, "waiting")

    def _flush(self) -> Function:
        """O = O + P·V of what waits. Parameters: workspace, vectors of rows."""
        with self.k.module.function("flush", ADDRESS, INT) as f:
            w, vectors = f.arguments()
            n = self._keys(w).load(INT, 8)
            with f.when(n > 0):
                values = (self._keys(w) + 8).follow()
                f.call(self.accumulate, w, values, f.value(0), n, vectors, values, f.value(0))
                self._keys(w).store(f.value(0), 8)
        return f


def _weights(k: Kernel, flush: Function, mask: Function | None) -> Function:
    """P in terms, behind those that wait; m, l and, where m rises, O brought up to date.

    Parameters: arguments, workspace, first key of the tile, keys in it, vectors of rows.
    """
    attempt, rise = _attempt(k), _rise(k)
    with k.module.function("weights", ADDRESS, ADDRESS, INT, INT, INT) as f:
        a, w, first, n, vectors = f.arguments()
        total, tile_sum, fade = (k.table(w, part) for part in ("sum", "tile_sum", "fade"))
        misfit = f.variable(f.value(0, BOOL))
        with f.loop(0, vectors, name="rows") as g:
            f.call(attempt, a, w, first, n, g)
            misfit.value = misfit.value | (~_fits(k, w, g)).any()
        with f.when(misfit.value):
            f.call(flush, w, vectors)
            if mask is not None:
                f.call(mask, a, w, first, n, vectors)
            with f.loop(0, vectors, name="rows") as g:
                f.call(rise, a, w, n, g)
                f.call(attempt, a, w, first, n, g)
        with f.loop(0, vectors, name="rows") as g:
            with f.either(misfit.value) as (risen, same):
                with risen:
                    total[g] = total[g].fma(fade[g], tile_sum[g])
                with same:
                    total[g] = total[g] + tile_sum[g]
            if k.key.see:
                _see(k, f, w, g, misfit.value)
    return f


def _fits(k: Kernel, w: Pointer, g: Value) -> Value:
    """Rows whose maximum may stay as it is."""
    return (k.table(w, "tile_sum")[g] <= LIMIT) & (k.table(w, "high")[g] > NEGATIVE_INFINITY)


def _see(k: Kernel, f: Function, w: Pointer, g: Value, misfit: Value) -> None:
    """Statistics take part in what happened; `climbed` is where the row's maximum climbed from."""
    faded = misfit.where(k.table(w, "fade")[g], f.value(1.0, k.vec))
    climbed = misfit.where(k.table(w, "climbed")[g], f.zeros(k.vec))
    seen = statistics.Tile(k, f, w, g, UNROLL)
    seen.rise(k.table(w, "top")[g], climbed, faded)
    seen.end(k.table(w, "tile_sum")[g], {part: k.table(w, f"tile_{part}")[g] for part in seen.totals()})


def _rise(k: Kernel) -> Function:
    """M = the tile's largest score, of rows that do not fit; fade = 2^(m_old − m), O = O·fade.

    Parameters: arguments, workspace, keys of the tile, vector of rows.
    """
    with k.module.function("rise", ADDRESS, ADDRESS, INT, INT) as f:
        a, w, n, g = f.arguments()
        largest = amx.largest_score(k, f, w, n, g)
        scaled = (largest * k.number(a, "exponent")).max(LOWEST[k.element_bytes])
        m = seen_nothing(largest).where(NEGATIVE_INFINITY, scaled)
        weighing.rise(k, f, w, g, _fits(k, w, g), m, k.key.value_dim)
    return f


def _attempt(k: Kernel) -> Function:
    """P in terms and its sums over the tile, with m as it is; P = 0 for keys past the end.

    Parameters: arguments, workspace, first key of the tile, keys in it, vector of rows.
    """
    with k.module.function("attempt", ADDRESS, ADDRESS, INT, INT, INT) as f:
        a, w, first, n, g = f.arguments()
        made = weighing.Weighing(k, f, a, w, g)
        drop = dropout.Dropped(k, f, a, w, g) if k.key.dropout else None
        tiles, waiting = k.place(w, "weight_tiles"), k.place(w, "waiting").load(INT, 8)

        def weight(j: Value, u: int, allowed: Allowed | None) -> Value:
            p = made.weight(j, u, first + j + u, allowed)
            return p if drop is None else drop.kept(first + j + u).where(p, 0.0)

        with f.loop(0, amx.whole_tiles(n), TOGETHER, name="keys") as j:
            place = terms.pair_of(k, tiles, waiting + j, g)
            allowed = Allowed(k, w, g, j) if k.key.masks_weights else None
            for u in range(0, TOGETHER, 2):
                both = (weight(j, v, allowed) for v in (u, u + 1))
                terms.store_pair(k, place + u // 2 * k.vector_bytes, *both)
        k.table(w, "tile_sum")[g] = made.total()
        for part, total in made.seen.totals().items():
            k.table(w, f"tile_{part}")[g] = total
    return f
