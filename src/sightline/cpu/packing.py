"""A block's rows side by side, as the sums over queries read them; and those sums' way out, as rows of the result.

Packed rows are whole vectors of the arithmetic's type, with zeros past the last column and the last row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu import formats
from sightline.cpu.kinds import ADDRESS, BOOL, INT, vector

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.values import Pointer, Value


def table_to_rows(k: Kernel, dtype: str) -> Function:
    """Pack `count` rows, given by a table of addresses, and zeros up to `total`.

    Parameters: table, bytes from column to column, columns, count, total, target.
    """
    with k.module.function(f"table_to_rows.{dtype}", ADDRESS, INT, INT, INT, INT, ADDRESS) as f:
        table, step, columns, count, total, target = f.arguments()
        size = formats.size(dtype)
        wide = (columns + (k.lanes - 1)) // k.lanes * k.lanes
        whole = (step == size).where(columns - columns % k.lanes, 0)
        with f.loop(0, total, name="row") as r:
            made, exists = target + r * wide * k.element_bytes, r < count
            source = (table + r * 8).follow()
            start = exists.where(whole, 0)
            with f.loop(0, start, k.lanes, name="columns") as c:
                (made + c * k.element_bytes).store(formats.load(source + c * size, dtype, k.compute, k.lanes))
            with f.loop(start, wide, k.lanes, name="rest") as c:
                (made + c * k.element_bytes).store(f.zeros(k.vec))
            with f.loop(start, exists.where(columns, 0), name="column") as c:
                (made + c * k.element_bytes).store(formats.load(source + c * step, dtype, k.compute))
    return f


def pair_rows(k: Kernel) -> Function:
    """Two packed rows of bfloat16 numbers → one row of words, the first row's number in the lower half.

    Parameters: packed rows, their columns, total, target.
    """
    with k.module.function("pair_rows", ADDRESS, INT, INT, ADDRESS) as f:
        source, columns, total, target = f.arguments()
        row = (columns + (k.lanes - 1)) // k.lanes * k.vector_bytes
        with f.loop(0, total, 2, name="pair") as r, f.loop(0, row, k.vector_bytes, name="columns") as c:
            first, second = ((source + ((r + u) * row + c)).load(k.vec).bits() for u in range(2))
            (target + (r // 2 * row + c)).store((first >> 16) | (second & -0x10000))
    return f


def all_finite(k: Kernel, dtype: str) -> Function:
    """Whether `n` rows hold neither NaN nor Inf. Parameters: first row, bytes from row to row, n, columns."""
    with k.module.function(f"all_finite.{dtype}", ADDRESS, INT, INT, INT, returns=BOOL) as f:
        rows, row, n, columns = f.arguments()
        size, chains = formats.size(dtype), 4
        # 0·x is 0 but for NaN and Inf. Four sums: one chain would wait for each multiplication.
        probes = [f.variable(f.zeros(k.vec)) for _ in range(chains)]
        rest = f.variable(f.zeros(k.compute))
        whole = columns - columns % k.lanes
        with f.loop(0, (n + chains - 1) // chains * chains, chains, name="row") as j:
            places = [rows + (j + u).min(n - 1) * row for u in range(chains)]
            with f.loop(0, whole, k.lanes, name="columns") as c:
                for probe, place in zip(probes, places, strict=True):
                    x = formats.load(place + c * size, dtype, k.compute, k.lanes)
                    probe.value = x.fma(0.0, probe.value)
            with f.loop(whole, columns, name="column") as c:
                for place in places:
                    rest.value = formats.load(place + c * size, dtype, k.compute).fma(0.0, rest.value)
        total = probes[0].value + probes[1].value + (probes[2].value + probes[3].value)
        f.give(~((total != 0.0).any() | (rest.value != 0.0)))
    return f


def products(k: Kernel, f: Function, a: Pointer, b: Pointer, columns: int, r: Value) -> Value:
    """Σ_c a[r, c]·b[r, c] of packed rows: a number."""
    first, second = k.packed(a, columns), k.packed(b, columns)
    total = f.variable(f.zeros(k.vec))
    with f.loop(0, k.column_vectors(columns), name="columns") as c:
        total.value = first[r, c].fma(second[r, c], total.value)
    return sum_of_lanes(k, total.value)


def sum_of_lanes(k: Kernel, x: Value) -> Value:
    """Halves added to halves, until one number is left."""
    lanes = k.lanes
    while lanes > 1:
        lanes //= 2
        low, high = (x.shuffled(x, range(start, start + lanes)) for start in (0, lanes))
        x = low + high
    return x.lane(0)


def join(k: Kernel, f: Function, recent: Pointer, kept: Pointer, begin: Value, end: Value) -> None:
    """Kept += recent, and recent = 0, for the bytes begin ≤ b < end: whole vectors."""
    with f.loop(begin, end, k.vector_bytes, name="join") as b:
        new, old = recent + b, kept + b
        old.store(old.load(k.vec) + new.load(k.vec))
        new.store(f.zeros(k.vec))


def store_rows(k: Kernel, dtype: str) -> Function:
    """Round `n` packed rows to `dtype` and write them, columns side by side; they become 0.

    Parameters: packed rows, columns, n, first target row, bytes from row to row.
    """
    with k.module.function("store_rows", ADDRESS, INT, INT, ADDRESS, INT) as f:
        source, columns, n, target, row = f.arguments()
        size, wide = formats.size(dtype), (columns + (k.lanes - 1)) // k.lanes * k.vector_bytes
        with f.loop(0, n, name="row") as j:
            whole = columns - columns % k.lanes
            for start, end, lanes in (f.value(0), whole, k.lanes), (whole, columns, 1):
                kind = vector(k.compute, lanes)
                with f.loop(start, end, lanes, name="columns") as c:
                    place = source + (j * wide + c * k.element_bytes)
                    formats.store(place.load(kind), target + (j * row + c * size), dtype)
                    place.store(f.zeros(kind))
    return f
