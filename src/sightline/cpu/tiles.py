"""The two matrix products of attention, queries in lanes, behind one interface that every engine keeps.

    scores      Sᵀ = K·Qᵀ              n keys × the block's rows, and each row's largest score
    accumulate  Oᵀ = Oᵀ·fade + Vᵀ·Pᵀ   n keys summed from zero, then added: one rounding per tile, not per key

An engine is a pair of functions of (workspace, rows of K or V, bytes from row to row, n, vectors, soon,
soon_row) that read and write the workspace's query, scores and output parts. `soon` are rows that the next
step will read: each product fetches them into the cache while it computes, because K and V are read a number
here and a number there, which no processor foresees. This is the engine of multiply-adds, for any vector length
and number of registers: of numbers, or of pairs of bfloat16 (`Kernel.multiply_add`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu import formats
from sightline.cpu.values import ADDRESS, INT, NEGATIVE_INFINITY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.values import Pointer, Value, Variable

PARAMETERS = (ADDRESS, ADDRESS, INT, INT, INT, ADDRESS, INT)
CACHE_LINE = 64


def scores(k: Kernel) -> Function:
    """S[j, i] = Σ_d K[j, d]·Q[i, d] for keys j < n, and top[i] = max_j S[j, i]. Soon: the same rows of V."""
    with k.module.function("scores", *PARAMETERS) as f:
        w, keys, key_row, n, vectors, soon, soon_row = f.arguments()
        top = k.table(w, "top")
        with f.loop(0, vectors) as g:
            top[g] = f.value(NEGATIVE_INFINITY, k.vec)
        for width, g in _vector_groups(k, f, vectors):
            with f.loop(0, n, k.tile.keys, name="keys") as j:
                # The last group repeats the last key: a harmless copy of a score, and no read past the end.
                numbers = [(j + t).min(n - 1) for t in range(k.tile.keys)]
                for number in numbers:
                    _fetch(k, soon + number * soon_row, k.key.value_dim)
                _scores_tile(k, f, w, [keys + number * key_row for number in numbers], j, g, width)
    return f


def _scores_tile(
    k: Kernel, f: Function, w: Pointer, rows: list[Pointer], j: Value, g: Value, width: int
) -> None:
    """`width` vectors of queries against a few keys: for each dimension, every sum takes one product."""
    query, table, top = (k.table(w, part) for part in ("query", "scores", "top"))
    sums = _sums(k, f, len(rows), width)

    def step(d: Value) -> None:
        q = [query[d, g + i] for i in range(width)]
        for t, row in enumerate(rows):
            kd = (row + d * k.element_bytes).load(k.compute).splat(k.lanes)
            for i in range(width):
                sums[t][i].value = k.multiply_add(kd, q[i], sums[t][i].value)

    _unrolled(f, k.words(k.key.dim), step)
    for i in range(width):
        largest = top[g + i]
        for t in range(len(rows)):
            table[j + t, g + i] = sums[t][i].value
            largest = sums[t][i].value.max(largest)
        top[g + i] = largest


def accumulate(k: Kernel) -> Function:
    """O[d, i] = O[d, i]·fade[i] + Σ_j V[j, d]·P[j, i] over keys j < n. Soon: the next tile's rows of K."""
    with k.module.function("accumulate", *PARAMETERS) as f:
        w, values, value_row, n, vectors, soon, soon_row = f.arguments()
        steps, rest = divmod(k.key.value_dim, k.tile.dims)
        share = -(-k.key.tile_keys // max(steps, 1))  # rows to fetch at each step
        for width, g in _vector_groups(k, f, vectors):
            with f.loop(0, steps, name="dims") as step:
                for t in range(share):
                    _fetch(k, soon + (step * share + t) * soon_row, k.key.dim)
                _accumulate_tile(k, f, w, (values, value_row, n), step * k.tile.dims, g, k.tile.dims, width)
            if rest:
                last = f.value(steps * k.tile.dims)
                _accumulate_tile(k, f, w, (values, value_row, n), last, g, rest, width)
    return f


def _accumulate_tile(
    k: Kernel,
    f: Function,
    w: Pointer,
    rows: tuple[Pointer, Value, Value],
    d: Value,
    g: Value,
    dims: int,
    width: int,
) -> None:
    """`width` vectors of queries, a few dimensions: for each key, every sum takes one product."""
    values, value_row, n = rows
    weights, output, fade = (k.table(w, part) for part in ("scores", "output", "fade"))
    sums = _sums(k, f, dims, width)
    corner = values + d * k.element_bytes
    with f.loop(0, (n + (k.per_word - 1)) // k.per_word, name="keys") as j:
        p = [weights[j, g + i] for i in range(width)]
        row = corner + j * value_row
        for t in range(dims):
            vd = (row + t * k.element_bytes).load(k.compute).splat(k.lanes)
            for i in range(width):
                sums[t][i].value = k.multiply_add(vd, p[i], sums[t][i].value)
    for i in range(width):
        faded = fade[g + i]
        for t in range(dims):
            output[d + t, g + i] = output[d + t, g + i].fma(faded, sums[t][i].value)


def accumulate_carefully(k: Kernel, unseen: float, shrink: float) -> Function:
    """The same with values times `shrink`, without the keys of weight `unseen`, whatever V holds there."""
    with k.module.function("accumulate.careful", *PARAMETERS) as f:
        w, values, value_row, n, vectors, _, _ = f.arguments()
        weights, output, fade = (k.table(w, part) for part in ("scores", "output", "fade"))
        mark = f.value(unseen, k.vec).bits()
        with f.loop(0, k.key.value_dim, name="dim") as d, f.loop(0, vectors, name="rows") as g:
            total = f.variable(f.zeros(k.vec))
            with f.loop(0, n, name="key") as j:
                v = (values + j * value_row + d * k.element_bytes).load(k.compute) * shrink
                p = weights[j, g]
                more = p.fma(v.splat(k.lanes), total.value)
                total.value = (p.bits() == mark).where(total.value, more)
            output[d, g] = output[d, g].fma(fade[g], total.value)
    return f


def _fetch(k: Kernel, row: Pointer, columns: int) -> None:
    """Begin to bring a row of K or V into the cache."""
    for line in range(0, columns * formats.size(k.key.dtype), CACHE_LINE):
        (row + line).prefetch()


def _sums(k: Kernel, f: Function, rows: int, width: int) -> list[list[Variable]]:
    """Accumulators, which stay in registers."""
    return [[f.variable(f.zeros(k.vec)) for _ in range(width)] for _ in range(rows)]


def _unrolled(f: Function, end: int, step: Callable[[Value], None], by: int = 4) -> None:
    """`for d in range(end)`, four steps at a time; the end is known when the kernel is made."""
    whole = end // by * by
    with f.loop(0, whole, by, name="dim") as d:
        for u in range(by):
            step(d + u)
    for left in range(whole, end):
        step(f.value(left))


def _vector_groups(k: Kernel, f: Function, vectors: Value) -> Iterator[tuple[int, Value]]:
    """Cover the block's vectors of rows: full register tiles, then at most one of each smaller power of two.

    What the caller writes for each (width, first vector) is the body of a loop or of a branch.
    """
    width = k.tile.queries
    whole = vectors - vectors % width
    with f.loop(0, whole, width, name="rows") as g:
        yield width, g
    while width > 1:
        width //= 2
        with f.when((vectors & width) != 0):
            yield width, vectors - vectors % (2 * width)
