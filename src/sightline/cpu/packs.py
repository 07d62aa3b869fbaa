"""A period of keys and values as a matrix unit reads them, packed once for a run of blocks, as they are wanted.

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
from sightline.cpu.terms import HUGE, TINY, exact_in, in_pairs, magnitude, split
from sightline.cpu.tiles import fetch
from sightline.cpu.transpose import transposed
from sightline.cpu.values import ADDRESS, BYTE, FLOAT, I16, INT, vector
from sightline.cpu.workspace import FLOAT_BYTES, TILE_BYTES, TILE_ROWS, pack_bytes, padded_bytes, run_offsets
from sightline.plan import MATRIX_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.values import Pointer, Value
    from sightline.plan import KernelKey

# What is known of the period at work, in the part `period`: eight bytes each, and a byte for every MATRIX_KEYS.
_SLOTS = ("key", "value", "corner", "end", "packed", "met", "odd")
TINY_VALUE, HUGE_VALUE = 1, 2
AHEAD = 2 * MATRIX_KEYS  # rows that are fetched meanwhile lie so much further on


class Packs:
    """The functions that pack, and where in a run's working memory they pack to."""

    def __init__(self, k: Kernel) -> None:
        key = k.key
        self.k = k
        self.stage = {name: _stage(k, name, columns) for name, columns in _columns(key).items()}
        self.pack: dict[tuple[str, bool], Function] = {}
        for name, make in (("key", _pack_keys), ("value", _pack_values)):
            self.pack[name, False] = self.pack[name, True] = make(k, widened=False)
            if key.dtype != "float32":
                self.pack[name, True] = make(k, widened=True)
        self.pack_tile = self._pack_tile()

    def begin(self, f: Function, w: Pointer, heads: dict[str, Pointer], corner: Value, end: Value) -> None:
        """A period: where the head's keys and values lie, its first key, and where the run's keys end."""
        given = {name: head.address() for name, head in heads.items()}
        given |= {"corner": corner, "end": end, "packed": f.value(0), "met": f.value(0)}
        for name, number in given.items():
            self._slot(w, name).store(number, 8)

    def tile(self, f: Function, a: Pointer, w: Pointer, first: Value, n: Value) -> list[Pointer]:
        """Where a tile is packed, which it is when the first block asks. `n`: keys that this block may see."""
        beyond = first - self._slot(w, "corner").load(INT, 8)
        bit, packed = f.value(1) << (beyond // self.k.key.tile_keys), self._slot(w, "packed")
        with f.when((packed.load(INT, 8) & bit) == 0):
            f.call(self.pack_tile, a, w, first)
            packed.store(packed.load(INT, 8) | bit, 8)
        if self.k.key.dtype == "float32":
            met, odd = self._slot(w, "met"), self._slot(w, "odd") + beyond // MATRIX_KEYS
            with f.loop(0, (n + (MATRIX_KEYS - 1)) // MATRIX_KEYS, name="odd") as i:
                met.store(met.load(INT, 8) | (odd + i).load(BYTE).unsigned(INT), 8)
        return [self._place(w, name, beyond) for name in ("key", "value")]

    def met(self, f: Function, w: Pointer) -> Value:
        """What was odd in the tiles since this was asked last, which is for each block to ask.

        TINY_VALUE if a value was too small for its terms, + HUGE_VALUE if one was huge.
        """
        met = self._slot(w, "met").load(INT, 8)
        self._slot(w, "met").store(f.value(0), 8)
        return met

    def _slot(self, w: Pointer, name: str) -> Pointer:
        return self.k.place(w, "period") + 8 * _SLOTS.index(name)

    def _place(self, w: Pointer, name: str, number: Value) -> Pointer:
        """Where a key or value so far into the period is: its first tile, at whole MATRIX_KEYS."""
        k, offsets = self.k, run_offsets(self.k.key, self.k.isa)
        start = k.shared(w).follow() + (offsets[name] - offsets["shared"])
        size, together = pack_bytes(k.key)[name], k.key.group_keys
        if name == "key":
            return start + number // MATRIX_KEYS * size
        group, rest = number // together, number % together // MATRIX_KEYS
        return start + (group * (together // MATRIX_KEYS * size) + rest * (k.key.terms * TILE_BYTES))

    def _pack_tile(self) -> Function:
        """Pack a tile's keys and values. Parameters: arguments, workspace, its first key."""
        k = self.k
        with k.module.function("pack_tile", ADDRESS, ADDRESS, INT) as f:
            a, w, first = f.arguments()
            n = (self._slot(w, "end").load(INT, 8) - first).min(k.key.tile_keys)
            for name in _columns(k.key):
                rows = self._slot(w, name).follow() + first * k.argument(f, a, f"{name}_row")
                self._pack_rows(f, a, w, name, rows, n, first - self._slot(w, "corner").load(INT, 8))
        return f

    def _pack_rows(
        self, f: Function, a: Pointer, w: Pointer, name: str, rows: Pointer, n: Value, beyond: Value
    ) -> None:
        """Pack `n` keys or values, of which the first is so far into the period."""
        k, columns = self.k, _columns(self.k.key)[name]
        step, row = (k.argument(f, a, f"{name}_{part}") for part in ("step", "row"))
        offsets = run_offsets(k.key, k.isa)
        waiting = k.shared(w).follow() + (offsets["waiting"] - offsets["shared"])
        width = MATRIX_KEYS if name == "key" else TILE_ROWS
        whole = (step == formats.size(k.key.dtype)) & (columns % width == 0)
        odd = f.variable(f.value(0))
        with f.loop(0, n, MATRIX_KEYS, name="pack") as j:
            here, place = rows + j * row, self._place(w, name, beyond + j)
            with f.loop(j + AHEAD, (j + AHEAD + MATRIX_KEYS).min(n + AHEAD), name="soon") as soon:
                fetch(rows + soon * row, columns * formats.size(k.key.dtype))
            with f.either(whole & (j + MATRIX_KEYS <= n)) as (directly, by_copy):
                with directly:
                    odd.value = f.call(self.pack[name, False], here, row, place)
                with by_copy:
                    f.call(self.stage[name], here, row, step, (n - j).min(MATRIX_KEYS), waiting)
                    wide = f.value(padded_bytes(columns))
                    odd.value = f.call(self.pack[name, True], waiting, wide, place)
            if name == "value":
                (self._slot(w, "odd") + (beyond + j) // MATRIX_KEYS).store(odd.value.to(BYTE))


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
            if name == "value" and k.key.in_halves and columns % TILE_ROWS:
                (made + columns * FLOAT_BYTES).store(f.value(1.0, FLOAT))
        with f.loop(n, MATRIX_KEYS, name="row") as j, f.loop(0, padded, k.vector_bytes, name="columns") as c:
            (target + (j * padded + c)).store(f.zeros(k.vec))
    return f


def _pack_keys(k: Kernel, *, widened: bool) -> Function:
    """MATRIX_KEYS rows into tiles. Gives 0. Parameters: first row, bytes to the next, target."""
    key, columns = k.key, padded_bytes(k.key.dim) // FLOAT_BYTES
    steps = columns // MATRIX_KEYS
    kind, dtype = vector(I16, k.lanes), "float32" if widened else key.dtype
    with _packer(k, "pack_keys", widened=widened) as (f, source, row, target):
        with f.loop(0, MATRIX_KEYS, name="row") as j:
            tile = target + (j // TILE_ROWS * (steps * key.terms * TILE_BYTES) + j % TILE_ROWS * 64)
            with f.loop(0, columns, k.lanes, name="columns") as c:
                x = formats.load(source + (j * row + c * formats.size(dtype)), dtype, FLOAT, k.lanes)
                place = tile + (c // MATRIX_KEYS * (key.terms * TILE_BYTES) + c % MATRIX_KEYS * 2)
                for n, bits in enumerate(split(x, key.terms, exact=exact_in(key.dtype, key.terms))):
                    (place + n * TILE_BYTES).store((bits >> 16).to(kind.element))
        f.give(0)
    return f


def _pack_values(k: Kernel, *, widened: bool) -> Function:
    """MATRIX_KEYS rows into transposed tiles. Gives what is odd about them: see `Packs.odd`.

    Parameters: first row, bytes to the next, target.
    """
    key, dtype = k.key, "float32" if widened else k.key.dtype
    with _packer(k, "pack_values", widened=widened) as (f, source, row, target):
        # |x| − 1 as unsigned bits: 0 is not tiny, it is above all.
        least, most = f.variable(f.value(-1, k.integers)), f.variable(f.zeros(k.integers))
        with f.loop(0, -(-key.value_dim // TILE_ROWS), name="columns") as d:
            words: list[list[Value]] = []
            for pair in range(MATRIX_KEYS // 2):
                terms = []
                for r in (2 * pair, 2 * pair + 1):
                    place = source + (row * r + d * (TILE_ROWS * formats.size(dtype)))
                    x = formats.load(place, dtype, FLOAT, k.lanes)
                    if key.dtype == "float32":
                        bits = magnitude(x)
                        most.value = bits.max(most.value)
                        least.value = (bits - 1).below(least.value).where(bits - 1, least.value)
                    terms.append(split(x, key.terms, exact=exact_in(key.dtype, key.terms)))
                words.append(in_pairs(*terms))
            for n in range(key.terms):
                tile = target + (d * (key.group_keys // MATRIX_KEYS) * key.terms + n) * TILE_BYTES
                for r, made in enumerate(transposed([word[n] for word in words])):
                    (tile + r * 64).store(made, k.vector_bytes)
        tiny, huge = (f.value(limit, FLOAT).bits().splat(k.lanes) for limit in (TINY, HUGE))
        odd = least.value.below(tiny - 1).any().unsigned(INT) * TINY_VALUE
        f.give(odd | (most.value > huge).any().unsigned(INT) * HUGE_VALUE)
    return f


@contextmanager
def _packer(k: Kernel, name: str, *, widened: bool) -> Iterator[tuple[Function, Pointer, Value, Pointer]]:
    """A function of (first row, bytes to the next, target) that gives what is odd."""
    with k.module.function(f"{name}{'.widened' if widened else ''}", ADDRESS, INT, ADDRESS, returns=INT) as f:
        source, row, target = f.arguments()
        yield f, source, row, target
