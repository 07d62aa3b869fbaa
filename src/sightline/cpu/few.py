"""The matrix products where a block has few query rows, as in decoding: keys in lanes, then dimensions in lanes.

With queries in lanes, one query would use one lane of sixteen. Here all lanes work, and K and V are read once,
where they lie. The interface is that of `tiles`, but for the output, which stays in rows until it is turned.

Every bit of the results is as there: a score is summed over the dimensions in the same chains, an output over
the keys of a tile. So it may depend on anything which engine a block gets: it is only a question of time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu import formats
from sightline.cpu.ahead import Ahead
from sightline.cpu.kinds import I16, I32, NEGATIVE_INFINITY, vector
from sightline.cpu.tiles import CHAIN, PARAMETERS
from sightline.cpu.transpose import transposed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.tiles import Product
    from sightline.cpu.values import Pointer, Value, Variable

CHUNK_BYTES = 8192  # of values that every part of the output takes, one after another, while they are near


def inner(k: Kernel, p: Product) -> Function:
    """S[j, i] = Σ_d K[j, d]·Q[i, d] for keys j < n, and top[i] = max_j S[j, i] if asked."""
    with k.module.function(p.name, *PARAMETERS) as f:
        w, keys, key_row, n, _, soon, soon_row = f.arguments()
        if p.top:
            for g in range(_row_vectors(k)):
                k.table(w, "top")[g] = f.value(NEGATIVE_INFINITY, k.vec)
        row_bytes = p.columns * formats.size(k.key.dtype)
        ahead = Ahead(k, (keys, key_row, row_bytes), (soon, soon_row, p.soon), n, least=k.lanes)
        whole = n - n % k.lanes
        with f.loop(0, whole, k.lanes, name="keys") as j:
            _group(k, f, w, p, [keys + (j + t) * key_row for t in range(k.lanes)], j, ahead)
        with f.when(whole < n):
            # The last group repeats the last key: a harmless copy of a score, and no read past the end.
            numbers = [(whole + t).min(n - 1) for t in range(k.lanes)]
            _group(k, f, w, p, [keys + number * key_row for number in numbers], whole, ahead)
    return f


def _group(
    k: Kernel, f: Function, w: Pointer, p: Product, rows: list[Pointer], j: Value, ahead: Ahead
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
            ahead.fetch(j + (first + s) // k.lanes * share, share)
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
        rows, then = (values, value_row, p.columns * formats.size(k.key.dtype)), (soon, soon_row, p.soon)
        parts, ahead = _parts(k, p.columns), Ahead(k, rows, then, n)
        chunk = _chunk(rows[2]) if len(parts) > 1 else k.key.tile_keys
        _clear(k, f, w, RECENT)
        with f.loop(0, n, chunk, name="chunk") as first:
            keys = first, (first + chunk).min(n)
            for i, part in enumerate(parts):
                # All parts together fetch as many rows as they read: key j is the step j + step of them all.
                step = first * (len(parts) - 1) + chunk * i
                _accumulate(k, f, w, p, (values, value_row, *keys), part, ahead.shared(len(parts), step))
        for i in range(k.key.few):
            fade = (k.place(w, "fade") + i * k.element_bytes).load(k.compute).splat(k.lanes)
            start = i * _row_bytes(k, p.columns)
            with f.loop(start, start + _row_bytes(k, p.columns), k.vector_bytes, name="join") as place:
                total, recent = (k.place(w, part) + place for part in (ROWS, RECENT))
                total.store(total.load(k.vec).fma(fade, recent.load(k.vec)))
    return f


def _chunk(row_bytes: int) -> int:
    """Keys of a chunk: an even number, for those that come in pairs."""
    return max(2, CHUNK_BYTES // row_bytes // 2 * 2)


class _Part:
    """What has its sums in the registers together: some vectors of dimensions, for some queries."""

    def __init__(self, place: int, dims: Sequence[int], queries: range) -> None:
        self.place, self.dims, self.queries = place, dims, queries  # place: in a row of the result


def _parts(k: Kernel, columns: int) -> list[_Part]:
    """Whole rows of few queries, or pieces of rows of many where numbers are converted, which is done once so."""
    starts = [*range(0, columns - k.lanes + 1, k.lanes)]
    if columns % k.lanes:
        starts.append(columns - k.lanes)  # it overlaps the one before, and has a place of its own
    converted = formats.size(k.key.dtype) < k.element_bytes
    wide = min(len(starts), max(1, k.tile.few // k.key.few) if converted else k.tile.few)
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
    rows: tuple[Pointer, Value, Value, Value],
    part: _Part,
    ahead: Ahead,
) -> None:
    """One part, keys of a chunk: the first value, bytes to the next, and the keys' numbers."""
    values, value_row, begin, end = rows
    size, whole = formats.size(k.key.dtype), _row_bytes(k, p.columns)
    places = [
        [
            k.place(w, RECENT) + (query * whole + (part.place + c * k.lanes) * k.element_bytes)
            for query in part.queries
        ]
        for c in range(len(part.dims))
    ]
    sums = [[f.variable(place.load(k.vec)) for place in column] for column in places]

    def add(j: Value, columns: list[Value]) -> None:
        for i, query in enumerate(part.queries):
            weight = (k.place(w, p.lanes) + j * k.row_bytes + query * k.element_bytes).load(k.compute)
            for column, totals in zip(columns, sums, strict=True):
                totals[i].value = k.multiply_add(weight.splat(k.lanes), column, totals[i].value)

    with f.loop(begin // k.per_word, end // k.per_word, name="keys") as j:
        ahead.fetch(j * k.per_word, k.per_word)
        row = values + j * k.per_word * value_row
        add(j, [_columns(k, row + d * size, value_row) for d in part.dims])
    if k.per_word > 1:
        with f.when(end % 2 == 1):  # a last key that is alone
            row = values + (end - 1) * value_row
            add(end // 2, [_columns(k, row + d * size, None) for d in part.dims])
    for column, totals in zip(places, sums, strict=True):
        for place, total in zip(column, totals, strict=True):
            place.store(total.value)


# ---- the output in rows ----

ROWS, RECENT = "output_rows", "recent_rows"  # of all tiles, and of the one at hand


def _row_bytes(k: Kernel, columns: int) -> int:
    return -(-columns // k.lanes) * k.vector_bytes


def clear(k: Kernel, f: Function, w: Pointer) -> None:
    """The output's rows are 0."""
    _clear(k, f, w, ROWS)


def _clear(k: Kernel, f: Function, w: Pointer, part: str) -> None:
    with f.loop(0, k.key.few * _row_bytes(k, k.key.value_dim), k.vector_bytes, name="clear") as place:
        (k.place(w, part) + place).store(f.zeros(k.vec))


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
