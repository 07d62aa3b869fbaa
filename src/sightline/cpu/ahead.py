"""Rows are on their way into the cache before they are wanted.

There is only room for so many fetches at a time, and what finds none may be forgotten without a word: on Zen 4 a
loop of nothing but fetches "fetches" five times what the memory gives. So they are spread over other work, and
rows that are read once are fetched twice: far ahead, and again before they are read; those that are there by then
cost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu import formats

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.values import Pointer, Value
    from sightline.kernel_key import KernelKey

CACHE_LINE = 64
LINES_AHEAD = 128  # cache lines between what is read and what is fetched into the first-level cache, …
FAR_ROWS = 48  # … or a tile and so many rows, if that is the second level, …
FAR_LINES = 2048  # … but not more than that, …
AGAIN_ROWS = 32  # … and once more so many rows before


def fetch(row: Pointer, size: int, *, write: bool = False, near: bool = False) -> None:
    """Begin to bring a row of so many bytes into the cache."""
    for line in range(0, size, CACHE_LINE):
        (row + line).prefetch(write=write, near=near)


def fetches_output_late(key: KernelKey) -> bool:
    """Whether the output's rows are fetched by `fetch_output`, not when the block's rows are found."""
    return not (key.gradients or key.terms or key.few) and key.value_dim > 0


def fetch_output(k: Kernel, f: Function, w: Pointer, g: Value) -> None:
    """Begin to bring one vector's rows of the output into the cache, to be written."""
    with f.loop(0, k.lanes, name="fetch") as lane:
        row = (k.place(w, "out_rows") + (g * k.lanes + lane) * 8).follow()
        fetch(row, k.key.value_dim * formats.size(k.key.dtype), write=True)


class Ahead:
    """Rows that are read one after another, and then others: fetches what comes some rows later.

    Each is the address of the first row, bytes from row to row, and bytes of a row to fetch. Where `passes` go
    over the rows, each fetches a part of a row at every one, so that there is always something on its way.
    `least`: rows that are read together.
    """

    def __init__(
        self, k: Kernel, rows: tuple[Pointer, Value, int], then: tuple[Pointer, Value, int], n: Value,
        passes: int = 1, step: Value | int = 0, least: int = 1,
    ) -> None:  # fmt: skip
        self.k, self.rows, self.then, self.n = k, rows, then, n
        self.passes, self.step, self.least = passes, step, least
        lines = max(1, -(-max(rows[2], then[2]) // CACHE_LINE))
        far = min(k.key.tile_keys + FAR_ROWS, FAR_LINES // lines)
        self.distance = max(least, LINES_AHEAD // lines if k.isa.fetches_near else far)
        self.share = -(-lines // passes)  # lines of a row that each pass fetches

    def shared(self, passes: int, step: Value) -> Ahead:
        """What one of several passes fetches, `step` rows after its own number of a row."""
        return Ahead(self.k, self.rows, self.then, self.n, passes, step)

    def fetch(self, row: Value, count: int) -> None:
        """Begin to bring what comes after this row, and after the next ones, into the cache."""
        together = count if self.passes == 1 else 1
        for first in range(0, count, together):
            step = row + first + self.step
            number, part = step // self.passes, step % self.passes * (self.share * CACHE_LINE)
            self._far(number + self.distance, part, together)
            if not self.k.isa.fetches_near:
                start, size, _ = self.rows
                self._bring(start + ((number + (AGAIN_ROWS + self.least - 1)) * size + part), size, together)

    def _far(self, number: Value, part: Value, count: int) -> None:
        """Rows from this number on, or those that come then: all alike, at the end a few are the wrong ones."""
        (start, size, _), (other, other_size, _) = self.rows, self.then
        more = number < self.n
        here, there = start + number * size, other + (number - self.n) * other_size
        place = more.where(here.address(), there.address()).as_pointer()
        self._bring(place + part, more.where(size, other_size), count)

    def _bring(self, place: Pointer, size: Value, count: int) -> None:
        for u in range(count):
            fetch(place + size * u, self.share * CACHE_LINE, near=self.k.isa.fetches_near)
