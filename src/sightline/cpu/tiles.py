"""The matrix products of attention, queries in lanes, behind one interface that every engine keeps.

    inner    Sᵀ = K·Qᵀ and dPᵀ = V·dOᵀ     n keys × the block's rows; of S also each row's largest
    outer    Oᵀ = Oᵀ·fade + Vᵀ·Pᵀ          n keys summed from zero, then added: one rounding a tile
             dQᵀ = dQᵀ + Kᵀ·dSᵀ
    across   dV = dV + Pᵀ·dO               the same for the block's rows: a sum across the lanes,
             dK = dK + dSᵀ·Q               which makes rows in memory, whole vectors of float32 or float64

An engine is three functions of (workspace, rows in memory, bytes from row to row, n, vectors, soon,
soon_row) that read and write parts of the workspace. `soon` are rows that the next step will read: each product
fetches them into the cache while it computes, because K and V are read a number here and a number there, which
no processor foresees. This is the engine of multiply-adds, for any vector length and number of registers: of
numbers, or of pairs of bfloat16 (`Kernel.multiply_add`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sightline.cpu.ahead import fetch
from sightline.cpu.kinds import ADDRESS, INT, NEGATIVE_INFINITY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.values import Pointer, Value, Variable

PARAMETERS = (ADDRESS, ADDRESS, INT, INT, INT, ADDRESS, INT)
CHAIN = 16  # products of a score that are added one to another, before these sums are


@dataclass(frozen=True, slots=True)
class Product:
    """Which product it is."""

    name: str
    columns: int  # of the rows in memory
    lanes: str  # the part that is multiplied by them
    result: str  # the part that is made
    soon: int  # bytes of each row to fetch
    top: bool = False  # `inner`: each row's largest is kept
    faded: bool = False  # `outer`: what was summed before fades


def inner(k: Kernel, p: Product) -> Function:
    """S[j, i] = Σ_d K[j, d]·Q[i, d] for keys j < n, and top[i] = max_j S[j, i] if asked.

    On a matrix unit's machine it is seldom called, and written for one vector of rows at a time: less to compile.
    """
    with k.module.function(p.name, *PARAMETERS) as f:
        w, keys, key_row, n, vectors, soon, soon_row = f.arguments()
        top = k.table(w, "top")
        if p.top:
            with f.loop(0, vectors) as g:
                top[g] = f.value(NEGATIVE_INFINITY, k.vec)
        for width, g in _vector_groups(k, f, vectors, 1 if k.key.terms else k.tile.queries):
            with f.loop(0, n, k.tile.keys, name="keys") as j:
                # The last group repeats the last key: a harmless copy of a score, and no read past the end.
                numbers = [(j + t).min(n - 1) for t in range(k.tile.keys)]
                for number in numbers:
                    fetch(soon + number * soon_row, p.soon)
                _inner_tile(k, f, w, p, [keys + number * key_row for number in numbers], j, g, width)
    return f


def _inner_tile(
    k: Kernel, f: Function, w: Pointer, p: Product, rows: list[Pointer], j: Value, g: Value, width: int
) -> None:
    """`width` vectors of queries against a few keys: for each dimension, every sum takes one product.

    A chain of sums loses digits as it grows: it ends after CHAIN products and is added to those before. The first
    one is written out apart: it has none to be added to, and a store less is 2 to 6 % of a short row's time.
    """
    lanes, table, top = (k.table(w, part) for part in (p.lanes, p.result, "top"))

    def chain(start: Value, length: int, *, first: bool = False) -> None:
        """So many dimensions."""
        sums = _sums(k, f, len(rows), width)

        def step(d: Value) -> None:
            numbers = [row + d * k.element_bytes for row in rows]
            _multiply(k, sums, numbers, [lanes[d, g + i] for i in range(width)])

        _unrolled(f, start, length, step)
        for t, row in enumerate(sums):
            for i, total in enumerate(row):
                made = total.value
                table[j + t, g + i] = made if first else table[j + t, g + i] + made

    words = k.words(p.columns)
    begun, whole = min(words, CHAIN), words // CHAIN * CHAIN
    chain(f.value(0), begun, first=True)
    if whole > begun:
        with f.loop(begun, whole, CHAIN, name="chain") as start:
            chain(start, CHAIN)
    if words > max(begun, whole):
        chain(f.value(whole), words - whole)
    if p.top:
        for i in range(width):
            largest = top[g + i]
            for t in range(len(rows)):
                largest = table[j + t, g + i].max(largest)
            top[g + i] = largest


def outer(k: Kernel, p: Product) -> Function:
    """O[d, i] = O[d, i]·fade[i] + Σ_j V[j, d]·P[j, i] over keys j < n."""
    with k.module.function(p.name, *PARAMETERS) as f:
        w, values, value_row, n, vectors, soon, soon_row = f.arguments()
        steps, rest = divmod(p.columns, k.tile.dims)
        share = -(-k.key.tile_keys // max(steps, 1))  # rows to fetch at each step
        for width, g in _vector_groups(k, f, vectors):
            with f.loop(0, steps, name="dims") as step:
                for t in range(share):
                    fetch(soon + (step * share + t) * soon_row, p.soon)
                rows = values, value_row, n
                _outer_tile(k, f, w, p, rows, step * k.tile.dims, g, k.tile.dims, width)
            if rest:
                last = f.value(steps * k.tile.dims)
                _outer_tile(k, f, w, p, (values, value_row, n), last, g, rest, width)
    return f


def _outer_tile(
    k: Kernel, f: Function, w: Pointer, p: Product, rows: tuple[Pointer, Value, Value],
    d: Value, g: Value, dims: int, width: int,
) -> None:  # fmt: skip
    """`width` vectors of queries, a few dimensions: for each key, every sum takes one product."""
    values, value_row, n = rows
    weights, output, fade = (k.table(w, part) for part in (p.lanes, p.result, "fade"))
    sums = _sums(k, f, dims, width)
    corner = values + d * k.element_bytes
    with f.loop(0, (n + (k.per_word - 1)) // k.per_word, name="keys") as j:
        row = corner + j * value_row
        numbers = [row + t * k.element_bytes for t in range(dims)]
        _multiply(k, sums, numbers, [weights[j, g + i] for i in range(width)])
    for i in range(width):
        faded = fade[g + i] if p.faded else None
        for t in range(dims):
            total, before = sums[t][i].value, output[d + t, g + i]
            output[d + t, g + i] = before + total if faded is None else before.fma(faded, total)


def outer_carefully(
    k: Kernel, p: Product, unseen: float, shrink: Callable[[Pointer], Value] | None = None
) -> Function:
    """The same with values times `shrink`, without the keys of weight `unseen`, whatever V holds there."""
    with k.module.function(f"{p.name}.careful", *PARAMETERS) as f:
        w, values, value_row, n, vectors, _, _ = f.arguments()
        weights, output, fade = (k.table(w, part) for part in (p.lanes, p.result, "fade"))
        mark, by = f.value(unseen, k.vec).bits(), shrink(w) if shrink else f.value(1.0, k.compute)
        with f.loop(0, p.columns, name="dim") as d, f.loop(0, vectors, name="rows") as g:
            total = f.variable(f.zeros(k.vec))
            with f.loop(0, n, name="key") as j:
                v = (values + j * value_row + d * k.element_bytes).load(k.compute) * by
                weight = weights[j, g]
                more = weight.fma(v.splat(k.lanes), total.value)
                total.value = (weight.bits() == mark).where(total.value, more)
            before = output[d, g]
            output[d, g] = before.fma(fade[g], total.value) if p.faded else before + total.value
    return f


def across(k: Kernel, p: Product) -> Function:
    """G[j, :] = G[j, :] + Σ_i A[j, i]·R[i, :] for keys j < n and the queries i in all lanes of `vectors`.

    A is the part `lanes` and R the part `result`, packed rows; G are the rows in memory.
    """
    with k.module.function(p.name, *PARAMETERS) as f:
        w, sums, sum_row, n, vectors, soon, soon_row = f.arguments()
        queries = vectors * (k.lanes // k.per_word)
        for width, c in _vector_groups(k, f, k.column_vectors(p.columns)):
            with f.loop(0, n, k.tile.keys, name="keys") as j:
                numbers = [(j + t).min(n - 1) for t in range(k.tile.keys)]
                for number in numbers:
                    fetch(soon + number * soon_row, p.soon)
                rows = [sums + (number * sum_row + c * k.vector_bytes) for number in numbers]
                _across_tile(k, f, w, p, rows, (numbers, c, queries), width)
    return f


def _across_tile(
    k: Kernel, f: Function, w: Pointer, p: Product, rows: list[Pointer],
    at: tuple[list[Value], Value, Value], width: int,
) -> None:  # fmt: skip
    """`width` vectors of columns, a few keys: for each query, every sum takes one product."""
    keys, c, queries = at
    weights, packed = k.in_words(w, p.lanes), k.packed(k.in_words(w, p.result), p.columns)
    corners = [weights + key * (k.row_bytes // k.per_word) for key in keys]
    sums, by = _sums(k, f, len(rows), width), min(4, k.lanes // k.per_word)
    with f.loop(0, queries, by, name="queries") as i:
        for u in range(by):
            numbers = [corner + (i + u) * k.element_bytes for corner in corners]
            _multiply(k, sums, numbers, [packed[i + u, c + x] for x in range(width)])
    # All loads before all stores: the last group's rows may be one and the same.
    places = [[row + x * k.vector_bytes for x in range(width)] for row in rows]
    totals = [
        [place.load(k.vec) + sums[t][x].value for x, place in enumerate(row)] for t, row in enumerate(places)
    ]
    for row, made in zip(places, totals, strict=True):
        for place, total in zip(row, made, strict=True):
            place.store(total)


def across_carefully(k: Kernel, p: Product, unseen: float) -> Function:
    """The same, of numbers, without the queries of weight `unseen`, whatever R holds there."""
    with k.module.function(f"{p.name}.careful", *PARAMETERS) as f:
        w, sums, sum_row, n, vectors, _, _ = f.arguments()
        mark = f.value(unseen, k.compute).bits()
        packed = k.packed(k.place(w, p.result), p.columns)
        with f.loop(0, n, name="key") as j, f.loop(0, k.column_vectors(p.columns), name="columns") as c:
            total = f.variable(f.zeros(k.vec))
            with f.loop(0, vectors * k.lanes, name="query") as i:
                weight = (k.place(w, p.lanes) + (j * k.row_bytes + i * k.element_bytes)).load(k.compute)
                with f.when(weight.bits() != mark):
                    total.value = packed[i, c].fma(weight.splat(k.lanes), total.value)
            row = sums + (j * sum_row + c * k.vector_bytes)
            row.store(row.load(k.vec) + total.value)
    return f


def _multiply(k: Kernel, sums: list[list[Variable]], numbers: list[Pointer], lanes: list[Value]) -> None:
    """Each sum takes the product of one number (or pair) and one vector."""
    for row, number in zip(sums, numbers, strict=True):
        broadcast = number.load(k.compute).splat(k.lanes)
        for total, vector in zip(row, lanes, strict=True):
            total.value = k.multiply_add(broadcast, vector, total.value)


def _sums(k: Kernel, f: Function, rows: int, width: int) -> list[list[Variable]]:
    """Accumulators, which stay in registers."""
    return [[f.variable(f.zeros(k.vec)) for _ in range(width)] for _ in range(rows)]


def _unrolled(f: Function, start: Value, count: int, step: Callable[[Value], None], by: int = 4) -> None:
    """`for d in range(start, start + count)`, four steps at a time; the count is known when the kernel is made."""
    whole = count // by * by
    with f.loop(start, start + whole, by, name="dim") as d:
        for u in range(by):
            step(d + u)
    for left in range(whole, count):
        step(start + left)


def _vector_groups(
    k: Kernel, f: Function, vectors: Value | int, most: int = 0
) -> Iterator[tuple[int, Value]]:
    """Cover vectors of rows or columns: full register tiles, then at most one of each smaller power of two.

    What the caller writes for each (width, first vector) is the body of a loop or of a branch; where the number
    is known, only those that are reached are written.
    """
    width = most or k.tile.queries
    if isinstance(vectors, int):
        yield from _known_groups(f, vectors, width)
        return
    whole = vectors - vectors % width
    with f.loop(0, whole, width, name="rows") as g:
        yield width, g
    while width > 1:
        width //= 2
        with f.when((vectors & width) != 0):
            yield width, vectors - vectors % (2 * width)


def _known_groups(f: Function, vectors: int, width: int) -> Iterator[tuple[int, Value]]:
    """The same of a number that is known when the kernel is made."""
    if whole := vectors - vectors % width:
        with f.loop(0, whole, width, name="rows") as g:
            yield width, g
    while width > 1:
        width //= 2
        if vectors & width:
            yield width, f.value(vectors - vectors % (2 * width))
