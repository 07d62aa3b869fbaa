"""The matrix products where a block has few query rows, as in decoding: keys in lanes, then dimensions in lanes.

With queries in lanes, one query would use one lane of sixteen. Here all lanes work, and K and V are read once,
where they lie. The interface is that of `tiles`, but for the output, which stays in rows until it is turned.

Every bit of the results is as there: a score is summed over the dimensions in the same chains, an output over
the keys of a tile. So it may depend on anything which engine a block gets: it is only a question of time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu import formats
from sightline.cpu.kinds import I16, I32, NEGATIVE_INFINITY, vector
from sightline.cpu.tiles import CACHE_LINE, CHAIN, PARAMETERS
from sightline.cpu.transpose import transposed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.tiles import Product
    from sightline.cpu.values import Pointer, Value, Variable

LINES_AHEAD = (
    128  # cache lines between what is read and what is fetched: more would not stay in a first level
)


def inner(k: Kernel, p: Product) -> Function:
    """S[j, i] = Σ_d K[j, d]·Q[i, d] for keys j < n, and top[i] = max_j S[j, i] if asked."""
    with k.module.function(p.name, *PARAMETERS) as f:
        w, keys, key_row, n, _, soon, soon_row = f.arguments()
        if p.top:
            for g in range(_row_vectors(k)):
                k.table(w, "top")[g] = f.value(NEGATIVE_INFINITY, k.vec)
        row_bytes = p.columns * formats.size(k.key.dtype)
        ahead = _Ahead(f, (keys, key_row, row_bytes), (soon, soon_row, p.soon), n, k.lanes)
        whole = n - n % k.lanes
        with f.loop(0, whole, k.lanes, name="keys") as j:
            _group(k, f, w, p, [keys + (j + t) * key_row for t in range(k.lanes)], j, ahead)
        with f.when(whole < n):
            # The last group repeats the last key: a harmless copy of a score, and no read past the end.
            numbers = [(whole + t).min(n - 1) for t in range(k.lanes)]
            _group(k, f, w, p, [keys + number * key_row for number in numbers], whole, ahead)
    return f


def _group(
    k: Kernel, f: Function, w: Pointer, p: Product, rows: list[Pointer], j: Value, ahead: _Ahead
) -> None:
    """As many keys as there are lanes: their columns become vectors, and every query takes its product of each."""
    lanes, words = k.place(w, p.lanes), k.words(p.columns)
    totals = [f.variable(f.zeros(k.vec)) for _ in range(k.key.few)]
    share = -(-k.lanes // (words // k.lanes))  # rows to fetch at each square

    def square(start: Value, used: range, sums: list[Variable]) -> None:
        """Some columns of the square that begins at column `start`."""
        made = transposed([_words(k, row + start * (k.per_word * formats.size(k.key.dtype))) for row in rows])
        for u in used:
            for i, total in enumerate(sums):
                number = (lanes + (start + u) * k.row_bytes + i * k.element_bytes).load(k.compute)
                total.value = k.multiply_add(number.splat(k.lanes), made[u], total.value)

    def chain(first: Value, length: int) -> None:
        """So many columns, square by square; a last one overlaps the one before."""
        sums, rest = [f.variable(f.zeros(k.vec)) for _ in totals], length % k.lanes
        for s in range(0, length - rest, k.lanes):
            for t in range(share):
                ahead.fetch(j + (first + s) // k.lanes * share + t)
            square(first + s, range(k.lanes), sums)
        if rest:
            square(first + (length - k.lanes), range(k.lanes - rest, k.lanes), sums)
        for total, made in zip(totals, sums, strict=True):
            total.value = total.value + made.value

    whole = words // CHAIN * CHAIN
    with f.loop(0, whole, CHAIN, name="columns") as c:
        chain(c, CHAIN)
    if words > whole:
        chain(f.value(whole), words - whole)
    table, top = k.table(w, p.result), k.table(w, "top")
    for g in range(_row_vectors(k)):
        largest = top[g]
        for t, s in enumerate(_rows_in_lanes(k, [total.value for total in totals], g)):
            table[j + t, g] = s
            largest = s.max(largest)
        if p.top:
            top[g] = largest


def outer(k: Kernel, p: Product) -> Function:
    """O[i, d] = O[i, d]·fade[i] + Σ_j V[j, d]·P[j, i] over keys j < n, in rows."""
    with k.module.function(p.name, *PARAMETERS) as f:
        w, values, value_row, n, _, soon, soon_row = f.arguments()
        size = formats.size(k.key.dtype)
        parts = _parts(k, p.columns)
        passes: list[tuple[Pointer, Value, int]] = []  # what each part reads that no earlier one has
        for part in parts:
            first, last = part.dims[0], part.dims[-1] + k.lanes
            unread = (last - first) * size if part.queries.start == 0 else 0
            passes.append((values + first * size, value_row, unread))
        passes.append((soon, soon_row, p.soon))
        for part, here, then in zip(parts, passes, passes[1:], strict=False):
            _accumulate(k, f, w, p, (values, value_row, n), part, _Ahead(f, here, then, n, 1))
    return f


class _Part:
    """What has its sums in the registers together: some vectors of dimensions, for some queries."""

    def __init__(self, place: int, dims: Sequence[int], queries: range) -> None:
        self.place, self.dims, self.queries = place, dims, queries  # place: in a row of the result


def _parts(k: Kernel, columns: int) -> list[_Part]:
    starts = [*range(0, columns - k.lanes + 1, k.lanes)]
    if columns % k.lanes:
        starts.append(columns - k.lanes)  # it overlaps the one before, and has a place of its own
    wide = min(len(starts), k.tile.few)
    rows = max(1, k.tile.few // wide)
    return [
        _Part(c * k.lanes, starts[c : c + wide], range(i, min(i + rows, k.key.few)))
        for c in range(0, len(starts), wide)
        for i in range(0, k.key.few, rows)
    ]


def _accumulate(
    k: Kernel,
    f: Function,
    w: Pointer,
    p: Product,
    rows: tuple[Pointer, Value, Value],
    part: _Part,
    ahead: _Ahead,
) -> None:
    """One part, all keys of the tile."""
    values, value_row, n = rows
    size, fade = formats.size(k.key.dtype), k.place(w, "fade")
    sums = [[f.variable(f.zeros(k.vec)) for _ in part.queries] for _ in part.dims]

    def add(j: Value, columns: list[Value]) -> None:
        for i, query in enumerate(part.queries):
            weight = (k.place(w, p.lanes) + j * k.row_bytes + query * k.element_bytes).load(k.compute)
            for column, totals in zip(columns, sums, strict=True):
                totals[i].value = k.multiply_add(weight.splat(k.lanes), column, totals[i].value)

    with f.loop(0, n // k.per_word, name="keys") as j:
        for u in range(k.per_word):
            ahead.fetch(j * k.per_word + u)
        row = values + j * k.per_word * value_row
        add(j, [_columns(k, row + d * size, value_row) for d in part.dims])
    if k.per_word > 1:
        with f.when(n % 2 == 1):  # a last key that is alone
            row = values + (n - 1) * value_row
            add(n // 2, [_columns(k, row + d * size, None) for d in part.dims])
    for i, query in enumerate(part.queries):
        faded = (fade + query * k.element_bytes).load(k.compute).splat(k.lanes)
        row = k.place(w, ROWS) + query * _row_bytes(k, p.columns)
        for c, totals in enumerate(sums):
            here = row + (part.place + c * k.lanes) * k.element_bytes
            here.store(here.load(k.vec).fma(faded, totals[i].value))


# ---- the output in rows ----

ROWS = "output_rows"


def _row_bytes(k: Kernel, columns: int) -> int:
    return -(-columns // k.lanes) * k.vector_bytes


def clear(k: Kernel, f: Function, w: Pointer) -> None:
    """The output's rows are 0."""
    with f.loop(0, k.key.few * _row_bytes(k, k.key.value_dim), k.vector_bytes, name="clear") as place:
        (k.place(w, ROWS) + place).store(f.zeros(k.vec))


def turn(k: Kernel) -> Function:
    """From the output's rows to lanes, as every other part of a kernel expects it. Parameter: workspace."""
    columns = k.key.value_dim
    with k.module.function("turn", PARAMETERS[0]) as f:
        (w,) = f.arguments()
        output = k.table(w, "output")

        def vectors(place: Value, first: Value, used: range) -> None:
            start = k.place(w, ROWS) + place * k.element_bytes
            rows = [(start + i * _row_bytes(k, columns)).load(k.vec) for i in range(k.key.few)]
            for g in range(_row_vectors(k)):
                made = _rows_in_lanes(k, rows, g)
                for u in used:
                    output[first + u, g] = made[u]

        rest = columns % k.lanes
        with f.loop(0, columns - rest, k.lanes, name="turn") as d:
            vectors(d, d, range(k.lanes))
        if rest:
            overlapping = range(k.lanes - rest, k.lanes)
            vectors(f.value(columns - rest), f.value(columns - k.lanes), overlapping)
    return f


# ---- what both products use ----


class _Ahead:
    """Rows that are read one after another, and then others: fetches what comes LINES_AHEAD after a row.

    Each is the address of the first row, bytes from row to row, and bytes of a row to fetch.
    """

    def __init__(
        self,
        f: Function,
        rows: tuple[Pointer, Value, int],
        then: tuple[Pointer, Value, int],
        n: Value,
        together: int,
    ) -> None:
        self.f, self.rows, self.then, self.n = f, rows, then, n
        lines = max(1, -(-max(rows[2], then[2]) // CACHE_LINE))
        self.distance = max(1, LINES_AHEAD // lines // together) * together

    def fetch(self, row: Value) -> None:
        """Begin to bring it into the cache."""
        ahead = row + self.distance
        numbers = ahead, ahead - self.n
        with self.f.either(ahead < self.n) as branches:
            for branch, number, rows in zip(branches, numbers, (self.rows, self.then), strict=True):
                start, step, size = rows
                with branch:
                    for line in range(0, size, CACHE_LINE):
                        (start + (number * step + line)).prefetch(near=self.f.isa.fetches_near)


def _row_vectors(k: Kernel) -> int:
    """Vectors that hold the rows."""
    return -(-k.key.few // k.lanes)


def _rows_in_lanes(k: Kernel, rows: list[Value], g: int) -> list[Value]:
    """Vectors of one query each → vectors with a query in each lane; lanes that are left hold copies."""
    return transposed([rows[(g * k.lanes + i) % k.key.few] for i in range(k.lanes)])


def _words(k: Kernel, place: Pointer) -> Value:
    """A vector of neighbouring words of a row of K."""
    return place.load(k.vec) if k.key.paired else formats.load(place, k.key.dtype, k.compute, k.lanes)


def _columns(k: Kernel, place: Pointer, next_row: Value | None) -> Value:
    """A vector of neighbouring numbers of a row of V; of pairs, each beside the number in the next row, or 0."""
    if not k.key.paired:
        return formats.load(place, k.key.dtype, k.compute, k.lanes)
    kind = vector(I16, k.lanes)
    lower = place.load(kind).unsigned(I32)
    if next_row is None:
        return lower.as_bits_of(k.vec)
    upper = (place + next_row).load(kind).unsigned(I32) << 16
    return (lower | upper).as_bits_of(k.vec)
