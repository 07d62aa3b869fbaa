"""The matrix products on Intel's matrix unit (AMX), behind the interface of `tiles`.

    inner    Sᵀ = K·Qᵀ             a tile: 16 keys × 16 queries, summed over the columns 32 at a time
    outer    Oᵀ = Oᵀ + Vᵀ·Pᵀ       a tile: 16 columns × 16 queries, summed over the keys 32 at a time

The left factor comes from `packs`, the right one from `terms`: all of it lies as the unit reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu import strips
from sightline.cpu.strips import TILE_ROW_BYTES, Strip
from sightline.cpu.terms import PRODUCTS, tile_of
from sightline.cpu.tiles import PARAMETERS
from sightline.cpu.values import NEGATIVE_INFINITY
from sightline.cpu.workspace import TILE_BYTES, TILE_ROWS
from sightline.plan import MATRIX_KEYS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.tiles import Product
    from sightline.cpu.values import Pointer, Value

MOST_UNROLLED = 320  # tile instructions written out one after another


def inner(k: Kernel, p: Product) -> Function:
    """S[j, i] = Σ_d K[j, d]·Q[i, d] for keys j < n, −inf up to whole MATRIX_KEYS; top[i] if asked."""
    steps = -(-p.columns // MATRIX_KEYS)
    with k.module.function(p.name, *PARAMETERS) as f:
        w, keys, _, n, vectors, _, _ = f.arguments()
        scores = k.place(w, p.result)

        def of(vectors: int, first: Value) -> Strip:
            return Strip(
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

        def of(vectors: int, first: Value) -> Strip:
            return Strip(
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
    of: Callable[[int, Value], Strip],
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
                strips.write(f, of(most, f.value(0)), terms, tiles, depth)
            else:
                strips.write(f, of(most, f.value(0)), terms, None, depth if depth <= 8 else None)
        with part, f.loop(0, vectors, name="rows") as g:
            strips.write(f, of(1, g), terms, None, None)


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
