"""The k largest weights of each query, and their keys: a sorted list per lane, kept in order of score.

Scores are compared, not weights: their order is the same, and the weights need not be made. A tile in which no
row's largest score beats its k-th is left at once, and a key is looked at closely only if some lane takes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu.kinds import ADDRESS, INT, NEGATIVE_INFINITY
from sightline.cpu.values import Table
from sightline.cpu.vmath import exp2

if TYPE_CHECKING:
    from sightline.cpu.consumers.consumer import Here
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.rows import Rows
    from sightline.cpu.values import Pointer, Value


class TopKeys:
    """Lists of scores and keys, [place in the list, vector of rows], in the workspace."""

    of_weights = False

    def __init__(self, k: Kernel) -> None:
        self.k = k
        self.insert = self._insert()
        self.tile = self._tile()

    def begin(self, f: Function, a: Pointer, w: Pointer, rows: Rows, here: Here) -> None:
        """Lists in which any score finds a place."""
        scores, _ = self._lists(a, w)
        count = self.k.argument(f, a, "top_keys")
        with f.loop(0, count, name="place") as t, f.loop(0, rows.vectors, name="rows") as g:
            scores[t, g] = f.value(NEGATIVE_INFINITY, self.k.vec)

    def end(self, f: Function, a: Pointer, w: Pointer, rows: Rows, here: Here) -> None:
        """Scores become weights; the lists are written out, one row of k after another."""
        k, count = self.k, self.k.argument(f, a, "top_keys")
        self._finish(f, a, w, rows.vectors)
        scores, keys = self._lists(a, w)
        first = here.head * k.argument(f, a, "queries") + here.first
        number = k.integers.element
        size = k.element_bytes
        with f.loop(0, rows.count, name="row") as r, f.loop(0, count, name="place") as t:
            place, lane = (first + r) * count + t, r * size
            weight = (scores.pointer(t, 0) + lane).load(k.compute)
            key = (keys.pointer(t, 0) + lane).load(number)
            (k.address(a, "top_weights") + place * size).store(weight)
            (k.address(a, "top_indices") + place * 8).store(key.to(INT))

    def _lists(self, a: Pointer, w: Pointer) -> tuple[Table, Table]:
        k = self.k
        at = w + k.argument(w.f, a, "top")
        pitch = 2 * k.row_bytes
        scores = Table(at, k.vec, pitch, k.vector_bytes, align=k.vector_bytes)
        return scores, Table(at + k.row_bytes, k.integers, pitch, k.vector_bytes, align=k.vector_bytes)

    def _tile(self) -> Function:
        """Take what belongs into the lists from a tile of scores."""
        k = self.k
        with k.module.function("top_keys", ADDRESS, ADDRESS, INT, INT, INT) as f:
            a, w, first, n, vectors = f.arguments()
            table, top = k.table(w, "scores"), k.table(w, "top")
            scores, _ = self._lists(a, w)
            last = k.argument(f, a, "top_keys") - 1
            with (
                f.loop(0, vectors, name="rows") as g,
                f.when((top[g] > scores[last, g]).any()),
                f.loop(0, n, name="key") as j,
                f.when((table[j, g] > scores[last, g]).any()),
            ):
                f.call(self.insert, a, w, j, first + j, g)
        return f

    def _insert(self) -> Function:
        """One key into the lists of one vector of rows. What is smaller moves down; of equals the first stays.

        Parameters: arguments, workspace, number of the key in the tile, and in the sequence, vector of rows.
        """
        k = self.k
        with k.module.function("insert", ADDRESS, ADDRESS, INT, INT, INT) as f:
            a, w, j, key, g = f.arguments()
            scores, keys = self._lists(a, w)
            s, number = k.table(w, "scores")[j, g], key.to(k.integers.element).splat(k.lanes)
            above = f.variable(f.value(float("inf"), k.vec))  # what stood one place higher
            above_key = f.variable(f.zeros(k.integers))
            with f.loop(0, k.argument(f, a, "top_keys"), name="place") as t:
                here, here_key = scores[t, g], keys[t, g]
                below, moved = s > here, s > above.value
                scores[t, g] = below.where(moved.where(above.value, s), here)
                keys[t, g] = below.where(moved.where(above_key.value, number), here_key)
                above.value, above_key.value = here, here_key
        return f

    def _finish(self, f: Function, a: Pointer, w: Pointer, vectors: Value) -> None:
        """S → w = 2^((S − shift)·c − log_sum); −1 and 0 where a query sees fewer keys, −1 and NaN if undefined."""
        k = self.k
        shift, log_sum, c = k.table(w, "high"), k.table(w, "sum"), k.number(a, "exponent")
        scores, keys = self._lists(a, w)
        count = k.argument(f, a, "top_keys")
        with f.loop(0, count, name="place") as t, f.loop(0, vectors, name="rows") as g:
            s, total = scores[t, g], log_sum[g]
            defined = total == total  # noqa: PLR0124 (NaN)
            found = (s != NEGATIVE_INFINITY) & defined
            weight = exp2((s - shift[g]).fma(c, -total))
            scores[t, g] = defined.where(found.where(weight, 0.0), total)
            keys[t, g] = found.where(keys[t, g], f.value(-1, k.integers))
