"""Intel's matrix unit (AMX): its instructions, and strips of tiles of 16 × 16 sums.

What decides about speed here was measured (benchmarks/NOTES.md): a tile's sums are begun by loading zeros, because
zeroing a register costs ten cycles; they are finished one tile after another, because four stores in a row keep
everything behind them waiting; and a store comes one tile late, when its sums are surely there. Left factors come
from the second-level cache and are hinted to be done with soon, so that they leave the first level to the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llvmlite import ir

from sightline.cpu.kinds import BYTE, I16, constant
from sightline.cpu.terms import PRODUCTS
from sightline.cpu.workspace import TILE_BYTES, TILE_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sightline.cpu.emit import Function
    from sightline.cpu.values import Pointer, Value

TILE_ROW_BYTES = 64
CONFIG_BYTES = 64


# ---- the unit's instructions ----


def _instruct(f: Function, name: str, *operands: Value | Pointer | int) -> None:
    made = [constant(BYTE, x) if isinstance(x, int) else x.ir for x in operands]
    f.builder.call(f.module.declared(f"llvm.x86.{name}", ir.VoidType(), [x.type for x in made]), made)


def configure(f: Function, place: Pointer) -> None:
    """Every register is 16 rows of 64 bytes. `place` holds the words that say so."""
    for offset in range(0, CONFIG_BYTES, 8):
        (place + offset).store(f.value(1 if offset == 0 else 0))
    for register in range(8):
        (place + (16 + 2 * register)).store(f.value(TILE_ROW_BYTES, I16))
        (place + (48 + register)).store(f.value(TILE_ROWS, BYTE))
    _instruct(f, "ldtilecfg", place)


def release(f: Function) -> None:
    """The registers are empty again: the system need not save them."""
    _instruct(f, "tilerelease")


def _load(f: Function, register: int, place: Pointer, row: int = TILE_ROW_BYTES) -> None:
    _instruct(f, "tileloadd64", register, place, f.value(row))


def _stream(f: Function, register: int, tile: tuple[Pointer, Value | int], *, once: bool) -> None:
    """Load a left factor's tile; `once`: it need not stay in the first level."""
    name, (place, row) = "tileloaddt164" if once else "tileloadd64", tile
    _instruct(f, name, register, place, f.value(row))


def _store(f: Function, register: int, place: Pointer, row: int) -> None:
    _instruct(f, "tilestored64", register, place, f.value(row))


def clear(f: Function, register: int) -> None:
    """Zeros, slowly: before sums, load a tile of zeros instead."""
    _instruct(f, "tilezero", register)


def multiply(f: Function, total: int, left: int, right: int) -> None:
    """Total[i, j] += Σ left[i, 2c + u] · right[c, 2j + u] over c < 16 and u < 2."""
    _instruct(f, "tdpbf16ps", total, left, right)


# ---- a strip of tiles ----


@dataclass(frozen=True)
class Strip:
    """Result[x, g] = start[x, g] + Σ_d left[x, d]·right[d, g], for every x < `tiles` and g < `vectors`.

    Right gives the address of a tile's first term; left, start and result that of a tile and its bytes from row to
    row.
    """

    left: Callable[[Value, Value], tuple[Pointer, Value | int]]
    right: Callable[[Value, int], Pointer]
    start: Callable[[Value, int], tuple[Pointer, int]]
    result: Callable[[Value, int], tuple[Pointer, int]]
    tiles: Value
    depth: Value
    vectors: int


def write(f: Function, s: Strip, terms: int, tiles: int | None, depth: int | None) -> None:
    """Multiply. `tiles` and `depth` where they are known, else they are counted at run time."""
    late = _Late(f)
    right_stays = terms == 1 and depth is not None and depth * s.vectors <= 4
    if right_stays and depth:
        for d in range(depth):
            for g in range(s.vectors):
                _load(f, 4 + d * s.vectors + g, s.right(f.value(d), g))
    if terms == 1 and depth is not None and depth >= 3 and tiles is not None and s.vectors == 2:
        for first in range(0, tiles, 2):
            _square(f, s, range(first, min(first + 2, tiles)), depth, late)
        late.flush()
        return
    for x in _counted(f, s.tiles, tiles):
        if terms > 1 or depth is None or depth > 4:
            for g in range(0, s.vectors, 2):
                _by_terms(f, s, x, range(g, min(g + 2, s.vectors)), terms, depth, late)
        else:
            _one_term(f, s, x, depth, late, right_stays=right_stays)
        if tiles is None:
            late.flush()
    late.flush()


def _one_term(f: Function, s: Strip, x: Value, depth: int, late: _Late, *, right_stays: bool) -> None:
    """A row of tiles. Up to four tiles of one factor stay in registers, the other's come one at a time."""
    left_stays = not right_stays
    ahead = range(depth) if left_stays or depth <= 2 else range(0)
    place = 4 if left_stays else 2
    for d in ahead:
        _stream(f, place + d, s.left(x, f.value(d)), once=True)
    for g in range(s.vectors):
        total = g % 2
        late.make_room(total)
        _load(f, total, *s.start(x, g))
        for d in range(depth):
            left, right = place + d if ahead else 3, 4 + d * s.vectors + g
            if not right_stays:
                right = 2 + d % 2
                _load(f, right, s.right(f.value(d), g))
            if not ahead:
                _stream(f, left, s.left(x, f.value(d)), once=True)
            multiply(f, total, left, right)
        late.store(total, *s.result(x, g))


def _square(f: Function, s: Strip, tiles: range, depth: int, late: _Late) -> None:
    """Two tiles above each other, two beside: each one that is loaded is multiplied twice."""
    places = [(f.value(x), g) for x in tiles for g in range(2)]
    for total, (x, g) in enumerate(places):
        late.make_room(total)
        _load(f, total, *s.start(x, g))
    for d in map(f.value, range(depth)):
        for g in range(2):
            _load(f, 6 + g, s.right(d, g))
        for total, (x, g) in enumerate(places):
            left = 4 + total // 2
            if g == 0:
                _stream(f, left, s.left(x, d), once=True)
            multiply(f, total, left, 6 + g)
    for total, (x, g) in enumerate(places):
        late.store(total, *s.result(x, g))


def _by_terms(
    f: Function, s: Strip, x: Value, vectors: range, terms: int, depth: int | None, late: _Late
) -> None:
    """Two tiles beside each other, of sums of terms: the left factor's stay for both."""
    for total, g in enumerate(vectors):
        late.make_room(total)
        _load(f, total, *s.start(x, g))
    for d in _counted(f, s.depth, depth):
        left, row = s.left(x, d)
        for n in range(terms):
            _stream(f, 2 + n, (left + n * TILE_BYTES, row), once=terms == 1)
        for total, g in enumerate(vectors):
            for n in range(terms):
                _load(f, 5 + n, s.right(d, g) + n * TILE_BYTES)
            for a, b in PRODUCTS[terms]:
                multiply(f, total, 2 + a, 5 + b)
    for total, g in enumerate(vectors):
        late.store(total, *s.result(x, g))


def _counted(f: Function, count: Value, known: int | None) -> Iterable[Value]:
    """0, 1, …: written out where the end is known, else the body of a loop."""
    if known is not None:
        yield from map(f.value, range(known))
    else:
        with f.loop(0, count, name="tiles") as i:
            yield i


class _Late:
    """Stores that wait until the next tile has been begun."""

    def __init__(self, f: Function) -> None:
        self.f, self.waiting = f, list[tuple[int, "Pointer", int]]()

    def store(self, register: int, place: Pointer, row: int) -> None:
        self.waiting.append((register, place, row))

    def make_room(self, register: int) -> None:
        """For another tile's sums."""
        while any(waiting[0] == register for waiting in self.waiting):
            _store(self.f, *self.waiting.pop(0))

    def flush(self) -> None:
        while self.waiting:
            _store(self.f, *self.waiting.pop(0))
