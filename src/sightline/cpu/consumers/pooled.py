"""The weight matrix summed down to R × C: query i goes to row i·R // Lq, key j to column j·C // Lk.

Within a block of queries, the keys of a column are summed with a query in each lane, into a strip C vectors
long. At the block's end the strip is transposed, and each query's row of it added to its row of the picture.

The items of a head are runs of queries in order, and two neighbours may meet in one row of the picture. So each
item's rows begin one further down than they belong (run number r: row + r), and `sweep` adds up where they meet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu.kinds import ADDRESS, INT
from sightline.cpu.transpose import transposed
from sightline.cpu.values import Table

if TYPE_CHECKING:
    from sightline.cpu.consumers.consumer import Here
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.rows import Rows
    from sightline.cpu.values import Pointer, Value


class Pooled:
    """Sums over blocks of queries and keys."""

    of_weights = True

    def __init__(self, k: Kernel) -> None:
        self.k = k
        self.tile = self._tile()
        self.add_strip = self._add_strip()

    def begin(self, f: Function, a: Pointer, w: Pointer, rows: Rows, here: Here) -> None:
        """An empty strip; where each query's row of the picture lies."""
        k, strip = self.k, self._strip(a, w)
        first, last = self._columns(f, a, rows.begin, rows.end)
        with f.loop(first, last + k.lanes, name="column") as c, f.loop(0, rows.vectors, name="rows") as g:
            strip[c, g] = f.zeros(k.vec)
        rows_of_picture, queries = k.argument(f, a, "pool_rows"), k.argument(f, a, "queries")
        picture = k.address(a, "pooled") + here.head * k.argument(f, a, "pooled_space")
        with f.loop(0, rows.vectors * k.lanes, name="row") as r:
            row = (here.first + r).min(queries - 1) * rows_of_picture // queries
            place = picture + (row + here.run) * k.argument(f, a, "pooled_row")
            (k.place(w, "pooled_at") + r * 8).store(place.address())

    def end(self, f: Function, a: Pointer, w: Pointer, rows: Rows, here: Here) -> None:
        """The strip joins the picture."""
        first, last = self._columns(f, a, rows.begin, rows.end)
        f.call(self.add_strip, a, w, first, last, rows.vectors)

    def _strip(self, a: Pointer, w: Pointer) -> Table:
        k = self.k
        at = w + k.argument(w.f, a, "strip")
        return Table(at, k.vec, k.row_bytes, k.vector_bytes, align=k.vector_bytes)

    def _columns(self, f: Function, a: Pointer, begin: Value, end: Value) -> tuple[Value, Value]:
        """First and one past the last column that keys begin ≤ j < end fall into."""
        columns, keys = self.k.argument(f, a, "pool_columns"), self.k.argument(f, a, "keys").max(1)
        last = ((end - 1).max(0) * columns) // keys + 1
        return (begin.max(0) * columns) // keys, (end > begin).where(last, 0)

    def _tile(self) -> Function:
        """Strip[c] += Σ of the weights of the tile's keys that belong to column c."""
        k = self.k
        with k.module.function("pooled", ADDRESS, ADDRESS, INT, INT, INT) as f:
            a, w, first, n, vectors = f.arguments()
            columns, keys = k.argument(f, a, "pool_columns"), k.argument(f, a, "keys")
            strip, table = self._strip(a, w), k.table(w, "scores")
            begin, end = self._columns(f, a, first, first + n)
            with f.loop(begin, end, name="column") as c:
                # j·C // Lk = c for ⌈c·Lk / C⌉ ≤ j < ⌈(c + 1)·Lk / C⌉
                start = ((c * keys + (columns - 1)) // columns - first).max(0)
                stop = (((c + 1) * keys + (columns - 1)) // columns - first).min(n)
                with f.loop(0, vectors, name="rows") as g:
                    total = f.variable(strip[c, g])
                    with f.loop(start, stop, name="key") as j:
                        total.value = total.value + table[j, g]
                    strip[c, g] = total.value
        return f

    def _add_strip(self) -> Function:
        """Each query's row of the strip joins its row of the picture.

        Parameters: arguments, workspace, first column, one past the last, vectors of rows.
        """
        k = self.k
        with k.module.function("add_strip", ADDRESS, ADDRESS, INT, INT, INT) as f:
            a, w, first, last, vectors = f.arguments()
            strip, rows = self._strip(a, w), k.place(w, "pooled_at")
            with f.loop(first, last, k.lanes, name="columns") as c, f.loop(0, vectors, name="rows") as g:
                made = transposed([strip[c + t, g] for t in range(k.lanes)])
                for lane, columns in enumerate(made):
                    at = (rows + (g * k.lanes + lane) * 8).follow() + c * k.element_bytes
                    at.store(at.load(k.vec) + columns)
        return f
