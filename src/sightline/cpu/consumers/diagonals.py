"""The sum of the weights along each diagonal j − i.

Queries stand in lanes, one after another. So while the key moves on by one, a diagonal moves on by one lane: a
vector of running sums is shifted up a lane for every key, and the sum that leaves it at the top is complete.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu.kinds import ADDRESS, INT

if TYPE_CHECKING:
    from sightline.cpu.consumers.consumer import Here
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.rows import Rows
    from sightline.cpu.values import Pointer, Value


class Diagonals:
    """An item's diagonals, from its last possible row's first key up."""

    of_weights = True

    def __init__(self, k: Kernel) -> None:
        self.k = k
        self.tile = self._tile()

    def begin(self, f: Function, a: Pointer, w: Pointer, rows: Rows, here: Here) -> None:
        """Where the diagonal of this block's first row and the first key lies."""
        k = self.k
        item = k.address(a, "diagonals") + here.item * k.argument(f, a, "diagonals_item")
        farthest = k.argument(f, a, "run_blocks") * k.block_rows - 1
        place = item + (farthest - here.first_of_run) * k.element_bytes
        k.place(w, "diagonals_at").store(place.address())

    def end(self, f: Function, a: Pointer, w: Pointer, rows: Rows, here: Here) -> None:
        """All is written."""

    def _tile(self) -> Function:
        """sum[first + j − i] += W[j, i] over the tile's keys and the block's rows."""
        k, top = self.k, self.k.lanes - 1
        with k.module.function("diagonals", ADDRESS, ADDRESS, INT, INT, INT) as f:
            _, w, first, n, vectors = f.arguments()
            table, corner = k.table(w, "scores"), k.place(w, "diagonals_at").follow()
            upward = [k.lanes, *range(top)]  # a new 0 at the bottom
            with f.loop(0, vectors, name="rows") as g:
                # The diagonal of key `first` and this vector's top lane.
                place = corner + (first - (g * k.lanes + top)) * k.element_bytes
                sums = f.variable(f.zeros(k.vec))
                with f.loop(0, n, name="key") as j:
                    sums.value = sums.value + table[j, g]
                    _add(k, place + j * k.element_bytes, sums.value.lane(top))
                    sums.value = sums.value.shuffled(f.zeros(k.vec), upward)
                for lane in range(1, k.lanes):  # those that have not reached the top
                    _add(k, place + (n + (top - lane)) * k.element_bytes, sums.value.lane(lane))
        return f


def _add(k: Kernel, place: Pointer, number: Value) -> None:
    place.store(place.load(k.compute) + number)
