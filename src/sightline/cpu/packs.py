"""A period of keys and values as a matrix unit reads them: packed once for a run of blocks, near in the cache.

    keys     [16 keys, 32 columns, term]     a tile's row: one key's 32 numbers
    values   [group of keys, 16 columns, 32 keys, term]     a tile's row: one column's numbers of 32 keys, so Vᵀ

each a tile of TILE_BYTES, in the order in which they are multiplied. What is missing at the end of a row or of the
keys is 0. Where rows are strided, or do not fill their tiles, 32 keys at a time go by a place where they lie
side by side, widened to float32.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sightline.cpu import formats
from sightline.cpu.terms import HUGE, TINY, exact_in, in_pairs, largest_lane, magnitude, split
from sightline.cpu.tiles import fetch
from sightline.cpu.transpose import transposed
from sightline.cpu.values import ADDRESS, FLOAT, I16, INT, vector
from sightline.cpu.workspace import FLOAT_BYTES, TILE_BYTES, TILE_ROWS, pack_bytes, padded_bytes, run_offsets
from sightline.plan import MATRIX_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.values import Pointer, Value
    from sightline.plan import KernelKey

AHEAD = 2 * MATRIX_KEYS  # rows that are fetched meanwhile lie so much further on


class Packs:
    """The functions that pack, and where in a run's working memory they pack to."""

    def __init__(self, k: Kernel) -> None:
        key = k.key
        self.k = k
        self.stage = {name: _stage(k, name, columns) for name, columns in _columns(key).items()}
        self.pack = {
            (name, widened): make(k, widened=widened)
            for name, make in (("key", _pack_keys), ("value", _pack_values))
            for widened in (False, True)
        }

    def period(
        self, f: Function, a: Pointer, w: Pointer, name: str, rows: Pointer, n: Value, first: Value
    ) -> Value:
        """Pack `n` keys or values, of which the first is so far into the period.

        Gives 1 if some are too large or too small for terms, else 0.
        """
        k, columns = self.k, _columns(self.k.key)[name]
        step, row = (k.argument(f, a, f"{name}_{part}") for part in ("step", "row"))
        waiting = w + run_offsets(k.key, k.isa)["waiting"]
        width = MATRIX_KEYS if name == "key" else TILE_ROWS
        whole = (step == formats.size(k.key.dtype)) & (columns % width == 0)
        unfit = f.variable(f.value(0))
        with f.loop(0, n, MATRIX_KEYS, name="pack") as j:
            here, place = rows + j * row, self.place(w, name, first + j)
            with f.loop(j + AHEAD, (j + AHEAD + MATRIX_KEYS).min(n), name="soon") as soon:
                fetch(rows + soon * row, columns * formats.size(k.key.dtype))
            with f.either(whole & (j + MATRIX_KEYS <= n)) as (directly, by_copy):
                with directly:
                    unfit.value = unfit.value | f.call(self.pack[name, False], here, row, place)
                with by_copy:
                    left = (n - j).min(MATRIX_KEYS)
                    f.call(self.stage[name], here, row, step, left, waiting)
                    wide = f.value(padded_bytes(columns))
                    unfit.value = unfit.value | f.call(self.pack[name, True], waiting, wide, place)
        return unfit.value

    def place(self, w: Pointer, name: str, number: Value) -> Pointer:
        """Where a key or value so far into the period is: its first tile, at whole MATRIX_KEYS."""
        start, size = w + run_offsets(self.k.key, self.k.isa)[name], pack_bytes(self.k.key)[name]
        if name == "key":
            return start + number // MATRIX_KEYS * size
        together = self.k.key.group_keys
        group, rest = number // together, number % together // MATRIX_KEYS
        return start + (group * (together // MATRIX_KEYS * size) + rest * (self.k.key.terms * TILE_BYTES))


def _columns(key: KernelKey) -> dict[str, int]:
    return {"key": key.dim, "value": key.value_dim}


def _stage(k: Kernel, name: str, columns: int) -> Function:
    """Copy rows side by side, as float32; zeros after the last column and the last row.

    Parameters: first row, bytes from row to row and from column to column, rows, target.
    """
    dtype, padded = k.key.dtype, padded_bytes(columns)
    with k.module.function(f"stage_{name}", ADDRESS, INT, INT, INT, ADDRESS) as f:
        source, row, step, n, target = f.arguments()
        size = formats.size(dtype)
        whole = (step == size).where(f.value(columns // k.lanes * k.lanes), 0)
        with f.loop(0, n, name="row") as j:
            start, made = source + j * row, target + j * padded
            with f.loop(0, whole, k.lanes, name="columns") as c:
                (made + c * FLOAT_BYTES).store(formats.load(start + c * size, dtype, FLOAT, k.lanes))
            with f.loop(whole, columns, name="column") as c:
                (made + c * FLOAT_BYTES).store(formats.load(start + c * step, dtype, FLOAT))
            with f.loop(columns, padded // FLOAT_BYTES, name="column") as c:
                (made + c * FLOAT_BYTES).store(f.zeros(FLOAT))
        with f.loop(n, MATRIX_KEYS, name="row") as j, f.loop(0, padded, k.vector_bytes, name="columns") as c:
            (target + (j * padded + c)).store(f.zeros(k.vec))
    return f


def _pack_keys(k: Kernel, *, widened: bool) -> Function:
    """MATRIX_KEYS rows into tiles. Gives 1 if one holds what is too large.

    Parameters: first row, bytes to the next, target.
    """
    key, columns = k.key, padded_bytes(k.key.dim) // FLOAT_BYTES
    steps = columns // MATRIX_KEYS
    kind, dtype = vector(I16, k.lanes), "float32" if widened else key.dtype
    with _packer(k, "pack_keys", widened=widened) as (f, source, row, target):
        largest = f.variable(f.zeros(k.integers))
        with f.loop(0, MATRIX_KEYS, name="row") as j:
            tile = target + (j // TILE_ROWS * (steps * key.terms * TILE_BYTES) + j % TILE_ROWS * 64)
            with f.loop(0, columns, k.lanes, name="columns") as c:
                x = formats.load(source + (j * row + c * formats.size(dtype)), dtype, FLOAT, k.lanes)
                if key.dtype == "float32":
                    largest.value = magnitude(x).max(largest.value)
                place = tile + (c // MATRIX_KEYS * (key.terms * TILE_BYTES) + c % MATRIX_KEYS * 2)
                for n, bits in enumerate(split(x, key.terms, exact=exact_in(key.dtype, key.terms))):
                    (place + n * TILE_BYTES).store((bits >> 16).to(kind.element))
        f.give(too_large(f, largest_lane(k, f, largest.value)))
    return f


def too_large(f: Function, largest: Value) -> Value:
    """1 if a float32 with these bits makes what is cut off from tiny numbers count, or is no number; else 0."""
    limit = f.value(HUGE, FLOAT).bits()
    return (largest > limit).unsigned(INT)


def _pack_values(k: Kernel, *, widened: bool) -> Function:
    """MATRIX_KEYS rows into transposed tiles. Gives 1 if one holds what is too small for its terms.

    Parameters: first row, bytes to the next, target.
    """
    key, dtype = k.key, "float32" if widened else k.key.dtype
    with _packer(k, "pack_values", widened=widened) as (f, source, row, target):
        # |x| − 1 as unsigned bits: 0 is not tiny, it is above all.
        least = f.variable(f.value(-1, k.integers))
        with f.loop(0, -(-key.value_dim // TILE_ROWS), name="columns") as d:
            words: list[list[Value]] = []
            for pair in range(MATRIX_KEYS // 2):
                terms = []
                for r in (2 * pair, 2 * pair + 1):
                    place = source + (row * r + d * (TILE_ROWS * formats.size(dtype)))
                    x = formats.load(place, dtype, FLOAT, k.lanes)
                    if key.dtype == "float32":
                        bits = magnitude(x) - 1
                        least.value = bits.below(least.value).where(bits, least.value)
                    terms.append(split(x, key.terms, exact=exact_in(key.dtype, key.terms)))
                words.append(in_pairs(*terms))
            for n in range(key.terms):
                tile = target + (d * (key.group_keys // MATRIX_KEYS) * key.terms + n) * TILE_BYTES
                for r, made in enumerate(transposed([word[n] for word in words])):
                    (tile + r * 64).store(made, k.vector_bytes)
        tiny = f.value(TINY, FLOAT).bits().splat(k.lanes) - 1
        f.give(least.value.below(tiny).any().unsigned(INT))
    return f


@contextmanager
def _packer(k: Kernel, name: str, *, widened: bool) -> Iterator[tuple[Function, Pointer, Value, Pointer]]:
    """A function of (first row, bytes to the next, target) that gives whether a number is unfit."""
    with k.module.function(f"{name}{'.widened' if widened else ''}", ADDRESS, INT, ADDRESS, returns=INT) as f:
        source, row, target = f.arguments()
        yield f, source, row, target
