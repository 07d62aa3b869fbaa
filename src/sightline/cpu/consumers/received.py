"""The attention each key received: Σ_i w_ij (or the largest) over the queries that count, and how many saw it.

Weights stand with a query in each lane, so a key's sum crosses the lanes: for as many keys as there are lanes
together, in log2(lanes) rounds that halve the number of vectors and leave one, which has a key in each lane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu.kinds import ADDRESS, INFINITY, INT, NEGATIVE_INFINITY

if TYPE_CHECKING:
    from collections.abc import Callable

    from sightline.cpu.consumers.consumer import Here
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.rows import Rows
    from sightline.cpu.values import Pointer, Value


class _OfKeys:
    """One number for each key, joined over the queries."""

    of_weights = True

    def __init__(self, k: Kernel, name: str) -> None:
        self.k, self.name = k, name
        self.largest = "received_max" in k.key.see and self.of_weights
        with k.module.function(name, ADDRESS, ADDRESS, INT, INT, INT) as f:
            _, w, first, n, vectors = f.arguments()
            place = k.place(w, f"{name}_at").follow() + first * k.element_bytes
            with f.loop(0, n, k.lanes, name="keys") as j:
                sums = [f.variable(f.zeros(k.vec)) for _ in range(k.lanes)]
                with f.loop(0, vectors, name="rows") as g:
                    for t, total in enumerate(sums):
                        there = j + t < n
                        total.value = self._join(total.value, there.where(self._part(w, j + t, g), 0.0))
                made = across_lanes([total.value for total in sums], self._join)
                at = place + j * k.element_bytes
                at.store(self._join(at.load(k.vec), made))
        self.tile = f

    def begin(self, f: Function, a: Pointer, w: Pointer, rows: Rows, here: Here) -> None:
        """This item's numbers."""
        k, item_bytes = self.k, self.k.argument(f, a, f"{self.name}_item")
        place = k.address(a, self.name) + here.item * item_bytes
        k.place(w, f"{self.name}_at").store(place.address())

    def end(self, f: Function, a: Pointer, w: Pointer, rows: Rows, here: Here) -> None:
        """All is written."""

    def _join(self, a: Value, b: Value) -> Value:
        if not self.largest:
            return a + b
        # As integers without sign, weights keep their order, and a NaN of either sign is above them all.
        return a.bits().below(b.bits()).where(b, a)

    def _counted(self, w: Pointer, g: Value, part: Value) -> Value:
        """`part` in the rows that count."""
        if "counted" not in self.k.key.see:
            return part
        return (self.k.table(w, "counted")[g] != 0.0).where(part, 0.0)

    def _part(self, w: Pointer, key: Value, g: Value) -> Value:
        raise NotImplementedError


class Received(_OfKeys):
    """Weights."""

    def __init__(self, k: Kernel) -> None:
        super().__init__(k, "received")

    def _part(self, w: Pointer, key: Value, g: Value) -> Value:
        return self._counted(w, g, self.k.table(w, "scores")[key, g])


class Visible(_OfKeys):
    """1 for every query that sees the key."""

    of_weights = False

    def __init__(self, k: Kernel) -> None:
        super().__init__(k, "visible")

    def _part(self, w: Pointer, key: Value, g: Value) -> Value:
        k = self.k
        seen = k.table(w, "scores")[key, g] != NEGATIVE_INFINITY
        sees = k.table(w, "sum")[g] != INFINITY  # a lane without a row sees nothing
        return self._counted(w, g, (seen & sees).where(w.f.value(1.0, k.vec), 0.0))


def across_lanes(rows: list[Value], join: Callable[[Value, Value], Value]) -> Value:
    """N vectors of n lanes → one vector, whose lane t is all lanes of vector t joined."""
    n, distance = len(rows), 1
    while len(rows) > 1:
        lower = [lane if not lane & distance else lane - distance + n for lane in range(n)]
        upper = [lane + distance if not lane & distance else lane + n for lane in range(n)]
        pairs = zip(rows[::2], rows[1::2], strict=True)
        rows = [join(a.shuffled(b, lower), a.shuffled(b, upper)) for a, b in pairs]
        distance *= 2
    return rows[0]
