"""The matrix products where a block has few query rows, as in decoding: keys in lanes, then dimensions in lanes.

With queries in lanes, one query would use one lane of sixteen. Here all lanes work, and K and V are read once,
where they lie. The interface is that of `tiles`, but for the output, which stays in rows until it is turned.

Every bit of the results is as there: a score is summed over the dimensions in the same chains, an output over
the keys of a tile. So it may depend on anything which engine a block gets: it is only a question of time.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from sightline.cpu import formats
from sightline.cpu.ahead import Ahead
from sightline.cpu.few_parts import parts_of, pieces_of
from sightline.cpu.kinds import I16, NEGATIVE_INFINITY, vector
from sightline.cpu.tiles import CHAIN, PARAMETERS
from sightline.cpu.transpose import UNIT_BYTES, beginnings, transposed

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.few_parts import Part, Piece
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
    width, word_bytes = _width(k), k.per_word * formats.size(k.key.dtype)
    share = -(-k.lanes // (words // width))  # rows to fetch at each piece

    def piece(start: Value, used: range, sums: list[Variable]) -> None:
        """Some columns of the piece that begins at column `start`."""
        made = _turned(k, [row + start * word_bytes for row in rows])
        for u in used:
            for i, total in enumerate(sums):
                number = (lanes + (start + u) * k.row_bytes + i * k.element_bytes).load(k.compute)
                total.value = k.multiply_add(number.splat(k.lanes), made[u], total.value)

    def chain(first: Value, length: int) -> None:
        """So many columns, piece by piece; a last one overlaps the one before."""
        sums, rest = [f.variable(f.zeros(k.vec)) for _ in totals], length % width
        for s in range(0, length - rest, width):
            ahead.fetch(j + (first + s) // width * share, share)
            piece(first + s, range(width), sums)
        if rest:
            piece(first + (length - width), range(width - rest, width), sums)
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
        parts, ahead = parts_of(k, p.columns), Ahead(k, rows, then, n)
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


def _accumulate(
    k: Kernel,
    f: Function,
    w: Pointer,
    p: Product,
    rows: tuple[Pointer, Value, Value, Value],
    part: Part,
    ahead: Ahead,
) -> None:
    """One part, keys of a chunk: the first value, bytes to the next, and the keys' numbers."""
    values, value_row, begin, end = rows
    whole = _row_bytes(k, p.columns)
    places = [
        [k.place(w, RECENT) + (query * whole + (part.place + c) * k.vector_bytes) for query in part.queries]
        for c in range(sum(piece.vectors for piece in part.pieces))
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
        add(j, [x for piece in part.pieces for x in _columns(k, row, value_row, piece)])
    if k.per_word > 1:
        with f.when(end % 2 == 1):  # a last key that is alone
            row = values + (end - 1) * value_row
            add(end // 2, [x for piece in part.pieces for x in _columns(k, row, None, piece)])
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

        def turned(piece: Piece, place: Value | int, first: Value, used: range) -> None:
            """A piece whose first vector is the `place`-th of a row, and first dimension is `first`."""
            for v in range(piece.vectors):
                start = k.place(w, ROWS) + (place + v) * k.vector_bytes
                rows = [(start + i * _row_bytes(k, columns)).load(k.vec) for i in range(k.key.few)]
                dims = piece.dims(k, v)
                for g in range(_row_vectors(k)):
                    made = _rows_in_lanes(k, rows, g)
                    for u in used:
                        output[first + dims[u], g] = made[u]

        pieces, rest = pieces_of(k, columns), columns % k.lanes
        for vectors, several in itertools.groupby(pieces[: len(pieces) - bool(rest)], lambda x: x.vectors):
            piece, *others = several
            step = vectors * k.lanes
            with f.loop(piece.first, piece.first + (1 + len(others)) * step, step, name="turn") as d:
                turned(piece, d // k.lanes, d, range(k.lanes))
        if rest:
            used = range(k.lanes - rest, k.lanes)
            turned(pieces[-1], columns // k.lanes, f.value(columns - k.lanes), used)
    return f


# ---- what both products use ----


def _row_vectors(k: Kernel) -> int:
    """Vectors that hold the rows."""
    return -(-k.key.few // k.lanes)


def _rows_in_lanes(k: Kernel, rows: list[Value], g: int) -> list[Value]:
    """Vectors of one query each → vectors with a query in each lane; lanes that are left hold copies."""
    return transposed([rows[(g * k.lanes + i) % k.key.few] for i in range(k.lanes)])


def _width(k: Kernel) -> int:
    """Columns of K that are turned at a time, in words: a vector, or 128 bits of what is widened after."""
    return UNIT_BYTES // formats.size(k.key.dtype) if _widened_late(k) else k.lanes


def _widened_late(k: Kernel) -> bool:
    """Whether K's numbers are turned while they are short: with vectors of 256 bits it spared nothing."""
    return k.key.widens and not k.key.paired and k.vector_bytes > 2 * UNIT_BYTES


def _turned(k: Kernel, rows: list[Pointer]) -> list[Value]:
    """The next words of as many rows of K as there are lanes → a vector of their first ones, of their second, …

    Short numbers are half of the bytes, and with 128 bits of each row nothing crosses 128 bits.
    """
    dtype = k.key.dtype
    if _widened_late(k):
        kind = vector(formats.memory(dtype), _width(k))
        return [formats.widened(x, dtype, k.compute) for x in beginnings([row.load(kind) for row in rows])]
    if k.key.paired:
        return transposed([row.load(k.vec) for row in rows])
    return transposed([formats.load(row, dtype, k.compute, k.lanes) for row in rows])


def _columns(k: Kernel, row: Pointer, next_row: Value | None, piece: Piece) -> list[Value]:
    """A piece of a row of V in vectors; of pairs, each number beside the one in the next row, or 0."""
    place = row + piece.first * formats.size(k.key.dtype)
    if not k.key.paired:
        return [formats.load(place, k.key.dtype, k.compute, k.lanes)]
    n = piece.vectors * k.lanes
    lower = place.load(vector(I16, n))
    upper = lower.f.zeros(lower.kind) if next_row is None else (place + next_row).load(lower.kind)
    orders = [[x for dim in piece.dims(k, v) for x in (dim, n + dim)] for v in range(piece.vectors)]
    return [lower.shuffled(upper, order).as_bits_of(k.vec) for order in orders]
