"""The matrix products on Intel's matrix unit (AMX), in tiles of 16 × 16 sums, behind the interface of `tiles`.

    inner    Sᵀ = K·Qᵀ             a tile: 16 keys × 16 queries, summed over the columns 32 at a time
    outer    Oᵀ = Oᵀ + Vᵀ·Pᵀ       a tile: 16 columns × 16 queries, summed over the keys 32 at a time

The left factor comes from `packs`, the right one from `terms`: all of it lies as the unit reads it.

What decides about speed here was measured (benchmarks/NOTES.md): a tile's sums are begun by loading zeros, because
zeroing a register costs ten cycles; they are finished one tile after another, because four stores in a row keep
everything behind them waiting; and a store comes one tile late, when its sums are surely there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llvmlite import ir

from sightline.cpu.terms import PRODUCTS, tile_of
from sightline.cpu.tiles import PARAMETERS
from sightline.cpu.values import BYTE, I16, NEGATIVE_INFINITY
from sightline.cpu.workspace import TILE_BYTES, TILE_ROWS
from sightline.plan import MATRIX_KEYS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.tiles import Product
    from sightline.cpu.values import Pointer, Value

TILE_ROW_BYTES = 64
CONFIG_BYTES = 64
MOST_UNROLLED = 320  # tile instructions written out one after another


# ---- the unit's instructions ----


def _instruct(f: Function, name: str, *operands: Value | Pointer | int) -> None:
    made = [ir.Constant(BYTE, x) if isinstance(x, int) else x.ir for x in operands]
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
class _Strip:
    """Result[x, g] = start[x, g] + Σ_d left[x, d]·right[d, g], for every x < `tiles` and g < `vectors`.

    Left and right give the address of a tile's first term; start and result that of a tile and its bytes from
    row to row.
    """

    left: Callable[[Value, Value], Pointer]
    right: Callable[[Value, int], Pointer]
    start: Callable[[Value, int], tuple[Pointer, int]]
    result: Callable[[Value, int], tuple[Pointer, int]]
    tiles: Value
    depth: Value
    vectors: int


def _strip(f: Function, s: _Strip, terms: int, tiles: int | None, depth: int | None) -> None:
    """Write it. `tiles` and `depth` where they are known, else they are counted at run time."""
    late = _Late(f)
    right_stays = terms == 1 and depth is not None and depth * s.vectors <= 4
    if right_stays and depth:
        for d in range(depth):
            for g in range(s.vectors):
                _load(f, 4 + d * s.vectors + g, s.right(f.value(d), g))
    for x in _counted(f, s.tiles, tiles):
        if terms > 1 or depth is None or depth > 4:
            for g in range(0, s.vectors, 2):
                _by_terms(f, s, x, range(g, min(g + 2, s.vectors)), terms, depth, late)
        else:
            _one_term(f, s, x, depth, late, right_stays=right_stays)
        if tiles is None:
            late.flush()
    late.flush()


def _one_term(f: Function, s: _Strip, x: Value, depth: int, late: _Late, *, right_stays: bool) -> None:
    """A row of tiles. Up to four tiles of one factor stay in registers, the other's come one at a time."""
    left_stays = not right_stays
    ahead = range(depth) if left_stays or depth <= 2 else range(0)
    place = 4 if left_stays else 2
    for d in ahead:
        _load(f, place + d, s.left(x, f.value(d)))
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
                _load(f, left, s.left(x, f.value(d)))
            multiply(f, total, left, right)
        late.store(total, *s.result(x, g))


def _by_terms(
    f: Function, s: _Strip, x: Value, vectors: range, terms: int, depth: int | None, late: _Late
) -> None:
    """Two tiles beside each other, of sums of terms: the left factor's stay for both."""
    for total, g in enumerate(vectors):
        late.make_room(total)
        _load(f, total, *s.start(x, g))
    for d in _counted(f, s.depth, depth):
        for n in range(terms):
            _load(f, 2 + n, s.left(x, d) + n * TILE_BYTES)
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


# ---- the products ----


def inner(k: Kernel, p: Product) -> Function:
    """S[j, i] = Σ_d K[j, d]·Q[i, d] for keys j < n, −inf up to whole MATRIX_KEYS; top[i] if asked."""
    steps = -(-p.columns // MATRIX_KEYS)
    with k.module.function(p.name, *PARAMETERS) as f:
        w, keys, _, n, vectors, _, _ = f.arguments()
        scores = k.place(w, p.result)

        def of(vectors: int, first: Value) -> _Strip:
            return _Strip(
                left=lambda x, d: keys + (x * steps + d) * (k.key.terms * TILE_BYTES),
                right=lambda d, g: tile_of(k, k.place(w, "query_tiles"), d, first + g),
                start=lambda _x, _g: (k.place(w, "nothing"), TILE_ROW_BYTES),
                result=lambda x, g: _tile_at(k, scores, x, first + g),
                tiles=(n + (TILE_ROWS - 1)) // TILE_ROWS,
                depth=f.value(steps),
                vectors=vectors,
            )

        _either_way(k, f, of, (n == k.key.tile_keys), vectors, k.key.tile_keys // TILE_ROWS, steps)
        _beyond(k, f, w, p, n, vectors)
        if k.key.see and not k.key.modified:
            with f.loop(0, vectors, name="rows") as g:
                k.table(w, "top")[g] = largest_score(k, f, w, n, g)
    return f


def outer(k: Kernel, p: Product) -> Function:
    """O[d, i] = O[d, i] + Σ_j V[j, d]·P[j, i] over the n keys that wait.

    In halves there is one more row, of ones: where Vᵀ fills its tiles, it has a tile to itself.
    """
    tiles, steps = -(-p.columns // TILE_ROWS), k.key.group_keys // MATRIX_KEYS
    alone = k.key.in_halves and p.columns % TILE_ROWS == 0
    number = tiles + 1 if alone else tiles
    with k.module.function(p.name, *PARAMETERS) as f:
        w, values, _, n, vectors, _, _ = f.arguments()
        output = k.place(w, p.result)

        def left(x: Value, d: Value) -> Pointer:
            place: Pointer = values + (x * steps + d) * (k.key.terms * TILE_BYTES)
            if not alone:
                return place
            return (x == tiles).where(k.place(w, "ones").address(), place.address()).as_pointer()

        def of(vectors: int, first: Value) -> _Strip:
            return _Strip(
                left=left,
                right=lambda d, g: tile_of(k, k.place(w, "weight_tiles"), d, first + g),
                start=lambda x, g: _tile_at(k, output, x, first + g),
                result=lambda x, g: _tile_at(k, output, x, first + g),
                tiles=f.value(number),
                depth=(n + (MATRIX_KEYS - 1)) // MATRIX_KEYS,
                vectors=vectors,
            )

        _either_way(k, f, of, n == k.key.group_keys, vectors, number, steps)
    return f


def _tile_at(k: Kernel, table: Pointer, x: Value, g: Value) -> tuple[Pointer, int]:
    """A tile of a part with a row for each key or column."""
    return table + (x * (TILE_ROWS * k.row_bytes) + g * k.vector_bytes), k.row_bytes


def _either_way(
    k: Kernel,
    f: Function,
    of: Callable[[int, Value], _Strip],
    full: Value,
    vectors: Value,
    tiles: int,
    depth: int,
) -> None:
    """Whole tiles of keys with everything written out, if that is not too long; what is left over in loops."""
    terms, most = k.key.terms, k.block_rows // k.lanes
    length = tiles * most * depth * (len(PRODUCTS[terms]) + terms)
    with f.either(full & (vectors == most)) as (whole, part):
        with whole:
            if length <= MOST_UNROLLED * terms:
                _strip(f, of(most, f.value(0)), terms, tiles, depth)
            else:
                _strip(f, of(most, f.value(0)), terms, None, depth if depth <= 8 else None)
        with part, f.loop(0, vectors, name="rows") as g:
            _strip(f, of(1, g), terms, None, None)


def _beyond(k: Kernel, f: Function, w: Pointer, p: Product, n: Value, vectors: Value) -> None:
    """No key there: −inf."""
    table = k.table(w, p.result)
    with f.loop(n, whole_tiles(n), name="beyond") as j, f.loop(0, vectors, name="rows") as g:
        table[j, g] = f.value(NEGATIVE_INFINITY, k.vec)


def whole_tiles(n: Value) -> Value:
    """Keys of the tiles that hold n."""
    return (n + (MATRIX_KEYS - 1)) // MATRIX_KEYS * MATRIX_KEYS


def largest_score(k: Kernel, f: Function, w: Pointer, n: Value, g: Value) -> Value:
    """Each row's largest score in the tile."""
    table, by = k.table(w, "scores"), 8
    largest = [f.variable(f.value(NEGATIVE_INFINITY, k.vec)) for _ in range(2)]
    with f.loop(0, whole_tiles(n), by, name="keys") as j:
        for u in range(by):
            most = largest[u % 2]
            most.value = table[j + u, g].max(most.value)
    return largest[0].value.max(largest[1].value)
