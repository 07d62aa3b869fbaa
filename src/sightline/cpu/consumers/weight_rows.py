"""The weights of chosen queries in full, a row of Lk for each: transposed back from lanes, tile by tile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu.kinds import ADDRESS, INT
from sightline.cpu.transpose import transposed

if TYPE_CHECKING:
    from sightline.cpu.consumers.consumer import Here
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.rows import Rows
    from sightline.cpu.values import Pointer, Value


class WeightRows:
    """Rows that hold zeros until a tile is written."""

    of_weights = True

    def __init__(self, k: Kernel) -> None:
        self.k = k
        self.tile = self._tile()

    def begin(self, f: Function, a: Pointer, w: Pointer, rows: Rows, here: Here) -> None:
        """Each lane's row; none for lanes without one."""
        k, queries = self.k, self.k.argument(f, a, "queries")
        made = k.address(a, "weight_rows").address()
        pitch = k.argument(f, a, "keys") * k.element_bytes
        with f.loop(0, rows.vectors * k.lanes, name="row") as r:
            place = made + (here.head * queries + here.first + r) * pitch
            (k.place(w, "out_rows") + r * 8).store((r < rows.count).where(place, 0))

    def end(self, f: Function, a: Pointer, w: Pointer, rows: Rows, here: Here) -> None:
        """All is written."""

    def _tile(self) -> Function:
        """row_i[first + j] = W[j, i]."""
        k, size = self.k, self.k.element_bytes
        with k.module.function("weight_rows", ADDRESS, ADDRESS, INT, INT, INT) as f:
            _, w, first, n, vectors = f.arguments()
            table, patch = k.table(w, "scores"), k.place(w, "patch")
            with f.loop(0, vectors, name="rows") as g, f.loop(0, n, k.lanes, name="keys") as j:
                made = transposed([table[j + t, g] for t in range(k.lanes)])
                for lane, weights in enumerate(made):
                    row = (k.place(w, "out_rows") + (g * k.lanes + lane) * 8).load(INT, 8)
                    with f.when(row != 0):
                        place = (row + (first + j) * size).as_pointer()
                        _store(k, f, place, weights, (n - j, patch))
        return f


def _store(k: Kernel, f: Function, place: Pointer, weights: Value, few: tuple[Value, Pointer]) -> None:
    """Whole vectors, or the few that are left, through a patch of memory."""
    left, patch = few
    with f.either(left >= k.lanes) as (then, otherwise):
        with then:
            place.store(weights)
        with otherwise:
            patch.store(weights)
            with f.loop(0, left, name="left") as i:
                (place + i * k.element_bytes).store((patch + i * k.element_bytes).load(k.compute))
