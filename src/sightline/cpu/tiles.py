"""The two matrix products of attention, queries in lanes, behind one interface that every engine keeps.

    scores      Sᵀ = K·Qᵀ            n keys × the block's rows, and each row's largest score
    accumulate  Oᵀ = Oᵀ·fade + Vᵀ·Pᵀ  n keys summed from zero, then added: one rounding per tile, not per key

An engine is a pair of functions `scores(workspace, keys, key_row, n, vectors)` and
`accumulate(workspace, values, value_row, n, vectors)` that read and write the workspace's query, scores and
output parts. This is the engine of fused multiply-adds, for any vector length and number of registers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu.emit import ADDRESS, INT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sightline.cpu.emit import Function, Pointer, Value, Variable
    from sightline.cpu.kernel import Kernel

NEGATIVE_INFINITY = float("-inf")


def scores(k: Kernel) -> Function:
    """S[j, i] = Σ_d K[j, d]·Q[i, d] for keys j < n, and top[i] = max_j S[j, i]."""
    with k.module.function("scores", ADDRESS, ADDRESS, INT, INT, INT) as f:
        w, keys, key_row, n, vectors = f.arguments()
        top = k.scratch.table(w, "top")
        with f.loop(0, vectors) as g:
            top[g] = f.value(NEGATIVE_INFINITY, k.vec)
        for width, g in _vector_groups(k, f, vectors):
            with f.loop(0, n, k.tile.keys, name="keys") as j:
                # The last group repeats the last key: a harmless copy of a score, and no read past the end.
                rows = [keys + (j + t).min(n - 1) * key_row for t in range(k.tile.keys)]
                _scores_tile(k, f, w, rows, j, g, width)
    return f


def _scores_tile(k: Kernel, f: Function, w: Pointer, rows: list[Pointer], j: Value, g: Value, width: int) -> None:
    query, table, top = (k.scratch.table(w, part) for part in ("query", "scores", "top"))
    sums = _sums(k, f, len(rows), width)

    def step(d: Value) -> None:
        q = [query[d, g + i] for i in range(width)]
        for t, row in enumerate(rows):
            kd = (row + d * k.element_bytes).load(k.compute).splat(k.lanes)
            for i in range(width):
                sums[t][i].value = kd.fma(q[i], sums[t][i].value)

    _unrolled(f, 0, k.key.dim, step)
    for i in range(width):
        largest = top[g + i]
        for t in range(len(rows)):
            table[j + t, g + i] = sums[t][i].value
            largest = sums[t][i].value.max(largest)
        top[g + i] = largest


def accumulate(k: Kernel) -> Function:
    """O[d, i] = O[d, i]·fade[i] + Σ_j V[j, d]·P[j, i] over keys j < n."""
    with k.module.function("accumulate", ADDRESS, ADDRESS, INT, INT, INT) as f:
        w, values, value_row, n, vectors = f.arguments()
        whole = k.key.value_dim // k.tile.dims * k.tile.dims
        for width, g in _vector_groups(k, f, vectors):
            with f.loop(0, whole, k.tile.dims, name="dims") as d:
                _accumulate_tile(k, f, w, values, value_row, n, d, g, k.tile.dims, width)
            if whole < k.key.value_dim:
                rest = k.key.value_dim - whole
                _accumulate_tile(k, f, w, values, value_row, n, f.value(whole), g, rest, width)
    return f


def _accumulate_tile(
    k: Kernel, f: Function, w: Pointer, values: Pointer, value_row: Value, n: Value,
    d: Value, g: Value, dims: int, width: int,
) -> None:  # fmt: skip
    weights, output, fade = (k.scratch.table(w, part) for part in ("scores", "output", "fade"))
    sums = _sums(k, f, dims, width)
    corner = values + d * k.element_bytes
    with f.loop(0, n, name="keys") as j:
        p = [weights[j, g + i] for i in range(width)]
        row = corner + j * value_row
        for t in range(dims):
            vd = (row + t * k.element_bytes).load(k.compute).splat(k.lanes)
            for i in range(width):
                sums[t][i].value = vd.fma(p[i], sums[t][i].value)
    for i in range(width):
        faded = fade[g + i]
        for t in range(dims):
            output[d + t, g + i] = output[d + t, g + i].fma(faded, sums[t][i].value)


def accumulate_carefully(k: Kernel, unseen: float, shrink: float) -> Function:
    """The same with values times `shrink`, and keys of weight `unseen` (bit for bit) left out, whatever their value."""
    with k.module.function("accumulate.careful", ADDRESS, ADDRESS, INT, INT, INT) as f:
        w, values, value_row, n, vectors = f.arguments()
        weights, output, fade = (k.scratch.table(w, part) for part in ("scores", "output", "fade"))
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


def _sums(k: Kernel, f: Function, rows: int, width: int) -> list[list[Variable]]:
    """Accumulators, which stay in registers."""
    return [[f.variable(f.zeros(k.vec)) for _ in range(width)] for _ in range(rows)]


def _unrolled(f: Function, start: int, end: int, step: Callable[[Value], None], by: int = 4) -> None:
    """`for d in range(start, end)`, four steps at a time; both ends are known when the kernel is made."""
    whole = start + (end - start) // by * by
    with f.loop(start, whole, by, name="dim") as d:
        for u in range(by):
            step(d + u)
    for d_left in range(whole, end):
        step(f.value(d_left))


def _vector_groups(k: Kernel, f: Function, vectors: Value) -> Iterator[tuple[int, Value]]:
    """Cover the block's vectors of rows by register tiles: full ones, then at most one of each smaller power of two.

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
