"""Between rows in memory and lanes in registers: query rows become lanes on the way in, rows on the way out.

A block's rows are given as a table of addresses, so that rows of several heads can share a block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu import formats
from sightline.cpu.kinds import ADDRESS, I16, I32, INT, bytes_of, vector
from sightline.cpu.values import Table

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.values import Pointer, Value

UNIT_BYTES = 16  # what the cheaper shuffles stay within, or move as one


def transposed(rows: list[Value]) -> list[Value]:
    """N vectors of n lanes → n vectors of their first lanes, second lanes, …

    Squares of 128 bits by interleaving their rows, then whole 128 bits among vectors: all are single instructions
    that take two vectors and no table of lanes. Of N < n vectors, which are one row of squares, each is turned.
    """
    unit = min(len(rows), UNIT_BYTES // bytes_of(rows[0].kind.element))
    made: list[Value] = []
    for start in range(0, len(rows), unit):
        square, half = rows[start : start + unit], unit // 2
        for _ in range(half.bit_length()):
            square = [
                x for a, b in zip(square[:half], square[half:], strict=True) for x in _interleaved(a, b, unit)
            ]
        made += square
    columns = [_dealt(made[c::unit], unit) for c in range(unit)]
    return [column for several in zip(*columns, strict=True) for column in several]


def _interleaved(a: Value, b: Value, unit: int) -> tuple[Value, Value]:
    """Within each unit of lanes: the first halves of both, lane by lane in turn, and the second halves."""
    n = a.kind.count
    lower, upper = (
        [start + half + i + of for start in range(0, n, unit) for i in range(unit // 2) for of in (0, n)]
        for half in (0, unit // 2)
    )
    return a.shuffled(b, lower), a.shuffled(b, upper)


def _dealt(vectors: list[Value], unit: int) -> list[Value]:
    """As many vectors as they have units of lanes → vectors of their first units, their second units, …"""
    if len(vectors) == 1:
        return vectors
    units = vectors[0].kind.count // unit
    halves = []
    for parity in range(2):  # the units of even number, then those of odd number
        lanes = [(2 * i + parity) * unit + lane for i in range(units) for lane in range(unit)]
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        halves.append(_dealt([a.shuffled(b, lanes) for a, b in pairs], unit))
    return [dealt for pair in zip(*halves, strict=True) for dealt in pair]


def beginnings(rows: list[Value]) -> list[Value]:
    """As many short vectors as there are lanes, each some bytes of a row → vectors of first numbers, second, …

    Several rows share a vector, so that `transposed` has fewer of them, and fewer of their lanes to move.
    """
    width = rows[0].kind.count
    vectors: list[Value] = []
    for i in range(width):
        parts = rows[i::width]
        while len(parts) > 1:
            both = range(2 * parts[0].kind.count)
            parts = [a.shuffled(b, both) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        vectors += parts
    return transposed(vectors)


def rows_to_lanes(k: Kernel, dtype: str, ahead: int = 0, pairs: int = 1) -> Function:
    """T[c, lane] = row_lane[c] for `columns` columns of every row of the block.

    Parameters: table of row addresses, bytes to the first column, bytes from column to column, columns,
    vectors of rows, T, workspace. `ahead`: columns to fetch into the cache for the next time. `pairs`: 2 where
    two half-precision columns make one row of T, the last one with 0 beside it if it is alone.
    """
    name = f"rows_to_lanes.{dtype}" + (".ahead" if ahead else "")
    with k.module.function(name, ADDRESS, INT, INT, INT, INT, ADDRESS, ADDRESS) as f:
        table, corner, step, columns, vectors, target, workspace = f.arguments()
        size, width, patch = formats.size(dtype), k.lanes * pairs, k.place(workspace, "patch")
        with f.loop(0, vectors, name="vector") as g, f.loop(0, columns, width, name="columns") as c:
            addresses, start, left = table + g * (k.lanes * 8), corner + c * step, columns - c
            whole = (step == size) & (left >= width)
            with f.when(~whole):
                gather_patch(k, f, dtype, addresses, start, step, left.min(width), patch, width)
            rows = []
            for r in range(k.lanes):
                row = (addresses + r * 8).load(INT, 8) + start
                if ahead:
                    (row.as_pointer() + ahead * size).prefetch()
                place = whole.where(row, (patch + r * width * size).address()).as_pointer()
                rows.append(
                    place.load(k.vec) if pairs == 2 else formats.load(place, dtype, k.compute, k.lanes)
                )
            made = Table(target + c // pairs * k.row_bytes + g * k.vector_bytes, k.vec, k.row_bytes)
            for i, column in enumerate(transposed(rows)):
                made[i] = column
    return f


def gather_patch(
    k: Kernel,
    f: Function,
    dtype: str,
    addresses: Pointer,
    start: Value,
    step: Value,
    count: Value,
    patch: Pointer,
    width: int,
) -> None:
    """Copy `count` columns of a vector's rows side by side: any stride, and the last columns of a row."""
    size, kind = formats.size(dtype), formats.memory(dtype)
    with f.loop(0, k.lanes, name="row") as r:
        made = patch + r * (width * size)
        with f.loop(0, count, name="column") as i:
            (made + i * size).store(((addresses + r * 8).follow() + (start + i * step)).load(kind))
        with f.when((count < width) & (count % 2 == 1)):  # the partner of a last number in a pair
            (made + count * size).store(f.zeros(kind))


def lanes_to_rows(k: Kernel, dtype: str, part: str) -> Function:
    """row_lane[c] = T[c, lane], rounded to `dtype`, for the rows that have an address; the output is divided by l.

    Parameters: bytes from column to column of a row, columns, vectors of rows, workspace.
    """
    with k.module.function(f"lanes_to_rows.{dtype}", INT, INT, INT, ADDRESS) as f:
        step, columns, vectors, w = f.arguments()
        lanes, size, patch = k.lanes, formats.size(dtype), k.place(w, "patch")
        in_pairs = part == "output" and k.key.terms > 0 and dtype == "bfloat16"
        width = 2 * lanes if in_pairs else lanes
        table = k.place(w, "out_rows" if part == "output" else f"{part}_rows")
        with f.loop(0, vectors, name="vector") as g, f.loop(0, columns, width, name="columns") as c:
            made = transposed(_pairs_of_columns(k, w, g, c) if in_pairs else _columns(k, w, part, g, c))
            rows = [(table + (g * lanes + r) * 8).load(INT, 8) for r in range(lanes)]
            written = "float32" if in_pairs else dtype  # words, each of two numbers
            with f.either((step == size) & (c + width <= columns)) as (then, otherwise):
                with then:
                    for row, numbers in zip(rows, made, strict=True):
                        with f.when(row != 0):
                            formats.store(numbers, (row + c * size).as_pointer(), written)
                with otherwise:
                    for r, numbers in enumerate(made):
                        formats.store(numbers, patch + r * width * size, written)
                    _scatter_patch(k, f, dtype, table + g * (lanes * 8), (c, columns), step, (patch, width))
    return f


def _columns(k: Kernel, w: Pointer, part: str, g: Value, c: Value) -> list[Value]:
    """A vector's worth of columns from c on; of the output, divided by l."""
    columns = [k.table(w, part)[c + i, g] for i in range(k.lanes)]
    if part == "output":
        divisor, inverse = k.table(w, "sum")[g], k.table(w, "fade")[g]
        columns = [_divided(o, divisor, inverse) for o in columns]
    return columns


def _pairs_of_columns(k: Kernel, w: Pointer, g: Value, c: Value) -> list[Value]:
    """Columns of the output from c on, divided by l and rounded to bfloat16, two to a word: half of the swaps.

    What the product with 1 / l is off by is far below what a bfloat16 is rounded by.
    """
    inverse, output, patch = k.table(w, "fade")[g], k.table(w, "output"), k.place(w, "patch")
    with w.f.loop(0, k.lanes, name="pair") as i:
        low, high = (formats.rounded_to_bfloat16(output[c + i * 2 + u, g] * inverse) for u in range(2))
        (patch + i * k.vector_bytes).store(formats.blended(low >> 16, high), k.vector_bytes)
    return [(patch + i * k.vector_bytes).load(k.vec, k.vector_bytes) for i in range(k.lanes)]


def _divided(o: Value, divisor: Value, inverse: Value) -> Value:
    """O / l to the last bit or nearly: the product with 1 / l, corrected by what it leaves over."""
    quotient = o * inverse
    better = (-quotient).fma(divisor, o).fma(inverse, quotient)
    return (better == better).where(better, quotient)  # noqa: PLR0124 (NaN: Inf leaves Inf − Inf over)


def _scatter_patch(
    k: Kernel,
    f: Function,
    dtype: str,
    addresses: Pointer,
    at: tuple[Value, Value],
    step: Value,
    patch: tuple[Pointer, int],
) -> None:
    """Copy a patch to its rows: for any stride, and for the last columns of a row.

    At: first column, columns. Patch: where it is, and how wide.
    """
    size, (c, columns), (start, width) = formats.size(dtype), at, patch
    with f.loop(0, k.lanes, name="row") as r:
        row = (addresses + r * 8).load(INT, 8)
        with f.when(row != 0), f.loop(0, (columns - c).min(width), name="column") as i:
            number = (start + (r * width + i) * size).load(formats.memory(dtype))
            (row + (c + i) * step).as_pointer().store(number)


def rows_to_pairs(k: Kernel) -> Function:
    """Interleave `n` rows of bfloat16 values: word d of row j/2 holds V[j, d] and V[j + 1, d], 0 past the end.

    Parameters: first row, bytes from row to row, bytes from column to column, n, columns, target.
    """
    with k.module.function("rows_to_pairs", ADDRESS, INT, INT, INT, INT, ADDRESS) as f:
        source, row, step, n, columns, target = f.arguments()
        whole = (step == formats.size("bfloat16")).where(columns - columns % k.lanes, 0)
        with f.loop(0, n, 2, name="pair") as j:
            lower, made = source + j * row, target + j // 2 * columns * k.element_bytes
            there = j + 1 < n
            upper = lower + there.where(row, 0)
            for start, end, lanes in (f.value(0), whole, k.lanes), (whole, columns, 1):
                kind = vector(I16, lanes)
                with f.loop(start, end, lanes, name="columns") as c:
                    first, second = ((place + c * step).load(kind).unsigned(I32) for place in (lower, upper))
                    keep = there.where(f.value(-1, I32), f.value(0, I32)).splat(lanes)
                    (made + c * k.element_bytes).store(first | ((second << 16) & keep))
    return f


def rows_to_rows(k: Kernel, dtype: str) -> Function:
    """Copy `n` rows of keys or values, any stride, any dtype, into packed rows of the arithmetic's type.

    Parameters: first row, bytes from row to row, bytes from column to column, n, columns, target.
    """
    with k.module.function(f"rows_to_rows.{dtype}", ADDRESS, INT, INT, INT, INT, ADDRESS) as f:
        source, row, step, n, columns, target = f.arguments()
        lanes, size = k.lanes, formats.size(dtype)
        with f.loop(0, n, name="row") as j:
            start, made = source + j * row, target + j * columns * k.element_bytes
            whole = (step == size).where(columns - columns % lanes, 0)
            with f.loop(0, whole, lanes, name="columns") as c:
                (made + c * k.element_bytes).store(formats.load(start + c * size, dtype, k.compute, lanes))
            with f.loop(whole, columns, name="column") as c:
                (made + c * k.element_bytes).store(formats.load(start + c * step, dtype, k.compute))
    return f


def rows_to_words(k: Kernel) -> Function:
    """Copy `n` rows of bfloat16, any stride, side by side in pairs; a last number that is alone has 0 beside it.

    Parameters: first row, bytes from row to row, bytes from column to column, n, columns, target.
    """
    with k.module.function("rows_to_words", ADDRESS, INT, INT, INT, INT, ADDRESS) as f:
        source, row, step, n, columns, target = f.arguments()
        size = formats.size("bfloat16")
        whole = (step == size).where(columns - columns % k.lanes, 0)
        with f.loop(0, n, name="row") as j:
            start, made = source + j * row, target + j * ((columns + 1) // 2 * (2 * size))
            for first, end, lanes in (f.value(0), whole, k.lanes), (whole, columns, 1):
                with f.loop(first, end, lanes, name="columns") as c:
                    (made + c * size).store((start + c * step).load(vector(I16, lanes)))
            with f.when(columns % 2 == 1):
                (made + columns * size).store(f.zeros(I16))
    return f
