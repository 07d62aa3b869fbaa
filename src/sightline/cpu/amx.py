"""The matrix products on Intel's matrix unit (AMX), behind the interface of `tiles`.

    inner    Sᵀ = K·Qᵀ             a tile: 16 keys × 16 queries, summed over the columns 32 at a time
    outer    Oᵀ = Oᵀ + Vᵀ·Pᵀ       a tile: 16 columns × 16 queries, summed over the keys 32 at a time
    across   dV = dV + Pᵀ·dO       a tile: 16 keys × 16 columns, summed over the queries 32 at a time

K and V come from `operand`, all else from `terms`: it lies as the unit reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu import strips
from sightline.cpu.kinds import NEGATIVE_INFINITY
from sightline.cpu.strips import TILE_ROW_BYTES, Strip
from sightline.cpu.terms import PRODUCTS, ROWS, TILES, tile_of
from sightline.cpu.tiles import PARAMETERS
from sightline.cpu.workspace import TILE_BYTES, TILE_ROWS
from sightline.kernel_key import MATRIX_KEYS

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
        w, keys, row, n, vectors, soon, soon_row = f.arguments()
        scores = k.place(w, p.result)

        def left(x: Value, d: Value) -> tuple[Pointer, Value | int]:
            if not k.key.keys_in_place:
                return keys + (x * steps + d) * (k.key.terms * TILE_BYTES), TILE_ROW_BYTES
            for r in range(TILE_ROWS):  # the values that come next
                (soon + ((x * TILE_ROWS + r) * soon_row + d * TILE_ROW_BYTES)).prefetch(near=True)
            packed = k.place(w, "last_keys") + ((x - whole_groups(n)) * steps + d) * TILE_BYTES
            here, there = x < whole_groups(n), keys + (x * TILE_ROWS * row + d * TILE_ROW_BYTES)
            place = here.where(there.address(), packed.address()).as_pointer()
            return place, here.where(row, TILE_ROW_BYTES)

        def of(vectors: int, first: Value) -> Strip:
            return Strip(
                left=left,
                right=lambda d, g: tile_of(k, k.place(w, TILES[p.lanes]), d, first + g),
                start=lambda _x, _g: (k.place(w, "nothing"), TILE_ROW_BYTES),
                result=lambda x, g: _tile_at(k, scores, x, first + g),
                tiles=(n + (TILE_ROWS - 1)) // TILE_ROWS,
                depth=f.value(steps),
                vectors=vectors,
            )

        most = (k.key.tile_keys // TILE_ROWS, k.block_rows // k.lanes, steps)
        _either_way(k, f, of, (n == k.key.tile_keys) & (vectors == most[1]), vectors, most)
        _beyond(k, f, w, p, n, vectors)
        if p.top and (k.key.see or "sinks" in k.key.gradients) and not k.key.modified:
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

        def left(x: Value, d: Value) -> tuple[Pointer, int]:
            place: Pointer = values + (x * steps + d) * (k.key.terms * TILE_BYTES)
            if alone:
                ones = k.place(w, "ones").address()
                place = (x == tiles).where(ones, place.address()).as_pointer()
            return place, TILE_ROW_BYTES

        def of(vectors: int, first: Value) -> Strip:
            return Strip(
                left=left,
                right=lambda d, g: tile_of(k, k.place(w, TILES[p.lanes]), d, first + g),
                start=lambda x, g: _tile_at(k, output, x, first + g),
                result=lambda x, g: _tile_at(k, output, x, first + g),
                tiles=f.value(number),
                depth=(n + (MATRIX_KEYS - 1)) // MATRIX_KEYS,
                vectors=vectors,
            )

        most = (number, k.block_rows // k.lanes, steps)
        _either_way(k, f, of, (n == k.key.group_keys) & (vectors == most[1]), vectors, most)
    return f


def across(k: Kernel, p: Product) -> Function:
    """G[j, c] = G[j, c] + Σ_i A[j, i]·R[i, c] for keys j < n, and up to whole tiles of them.

    A is the part `lanes` and R the part `result`, both in terms; G are packed rows in memory.
    """
    steps, wide = k.block_rows // MATRIX_KEYS, k.column_vectors(p.columns)
    row, tile = wide * k.vector_bytes, k.key.terms * TILE_BYTES
    with k.module.function(p.name, *PARAMETERS) as f:
        w, sums, _, n, rows, _, _ = f.arguments()
        left, right = k.place(w, ROWS[p.lanes]), k.place(w, TILES[p.result])

        def of(vectors: int, first: Value) -> Strip:
            return Strip(
                left=lambda x, d: (left + (x * steps + d) * tile, TILE_ROW_BYTES),
                right=lambda d, g: right + (d * wide + (first + g)) * tile,
                start=lambda x, g: (sums + (x * (TILE_ROWS * row) + (first + g) * k.vector_bytes), row),
                result=lambda x, g: (sums + (x * (TILE_ROWS * row) + (first + g) * k.vector_bytes), row),
                tiles=(n + (TILE_ROWS - 1)) // TILE_ROWS,
                depth=rows // 2,
                vectors=vectors,
            )

        most = (k.key.tile_keys // TILE_ROWS, wide, steps)
        full = (n == k.key.tile_keys) & (rows == 2 * steps)
        _either_way(k, f, of, full, f.value(wide), most)
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
    most: tuple[int, int, int],
) -> None:
    """Whole tiles of keys with everything written out, if that is not too long; what is left over in loops.

    `most`: tiles, vectors and steps where all is `full`.
    """
    terms, (tiles, wide, depth) = k.key.terms, most
    length = tiles * wide * depth * (len(PRODUCTS[terms]) + terms)
    with f.either(full) as (whole, part):
        with whole:
            if length <= MOST_UNROLLED * terms:
                strips.write(f, of(wide, f.value(0)), terms, tiles, depth)
            else:
                strips.write(f, of(wide, f.value(0)), terms, None, depth if depth <= 8 else None)
        with part, f.loop(0, vectors, name="rows") as g:
            strips.write(f, of(1, g), terms, None, None)


def _beyond(k: Kernel, f: Function, w: Pointer, p: Product, n: Value, vectors: Value) -> None:
    """No key there: −inf."""
    table = k.table(w, p.result)
    with f.loop(n, whole_tiles(n), name="beyond") as j, f.loop(0, vectors, name="rows") as g:
        table[j, g] = f.value(NEGATIVE_INFINITY, k.vec)


def whole_groups(n: Value) -> Value:
    """Tiles of the n keys that come in whole MATRIX_KEYS."""
    return n // MATRIX_KEYS * (MATRIX_KEYS // TILE_ROWS)


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
