"""Rows of K or V into tiles, as a matrix unit reads them: MATRIX_KEYS rows at a time.

    rows       [16 keys, 32 columns, term]                a tile's row: one key's 32 numbers
    columns    [16 columns, 32 keys of a group, term]     a tile's row: one column's numbers of 32 keys

What is missing at the end of a row or of the keys is 0. Where rows are strided, or do not fill their tiles, they
go by a place where they lie side by side, widened to float32.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from sightline.cpu import formats
from sightline.cpu.ahead import fetch
from sightline.cpu.kinds import ADDRESS, FLOAT, I16, I32, INT, vector
from sightline.cpu.terms import Odd, exact_in, in_pairs, split
from sightline.cpu.transpose import transposed
from sightline.cpu.workspace import (
    FLOAT_BYTES,
    TILE_BYTES,
    TILE_ROWS,
    pack_bytes,
    padded_bytes,
    run_offsets,
)
from sightline.kernel_key import MATRIX_KEYS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.values import Pointer, Value

AHEAD = 2 * MATRIX_KEYS  # rows that are fetched meanwhile lie so much further on
_WIDTH = {"rows": MATRIX_KEYS, "columns": TILE_ROWS}  # columns of a tile


class Operand:
    """K or V, with the functions that make tiles of it in some forms."""

    def __init__(self, k: Kernel, name: str, columns: int, forms: tuple[str, ...]) -> None:
        self.k, self.name, self.columns, self.forms = k, name, columns, forms
        self.stage = _stage(k, name, columns)
        make: dict[str, Callable[..., Function]] = {"rows": rows_into_tiles}
        if "columns" in forms:
            make["columns"] = functools.partial(columns_into_tiles, turn=_turn(k, name))
        directly = {form: make[form](k, name, columns, k.key.dtype) for form in forms}
        self.functions = {False: directly, True: directly}
        if k.key.dtype != "float32":
            self.functions[True] = {
                form: make[form](k, f"{name}.widened", columns, "float32") for form in forms
            }

    def pack(
        self, f: Function, a: Pointer, w: Pointer, rows: Pointer, n: Value,
        place: Callable[[str, Value], Pointer], met: Callable[[Value, Value], None], soon: Pointer | None = None,
    ) -> None:  # fmt: skip
        """Pack `n` rows: those from j on into tiles at `place`; `met` is told what was odd about them.

        Meanwhile the rows after them are fetched, or as many keys at `soon`.
        """
        k = self.k
        step, row = (k.argument(f, a, f"{self.name}_{part}") for part in ("step", "row"))
        offsets, size = run_offsets(k.key, k.isa), formats.size(k.key.dtype)
        waiting = k.shared(w).follow() + (offsets["waiting"] - offsets["shared"])
        fills = all(self.columns % _WIDTH[form] == 0 for form in self.forms)
        whole, odd = (step == size) & fills, f.variable(f.value(0))
        with f.loop(0, n, MATRIX_KEYS, name="pack") as j:
            here = rows + j * row
            if soon is None:
                with f.loop(j + AHEAD, (j + AHEAD + MATRIX_KEYS).min(n + AHEAD), name="soon") as r:
                    fetch(rows + r * row, self.columns * size)
                more: tuple[Pointer, Value] | tuple[()] = ()
            else:
                key_row = k.argument(f, a, "key_row")
                more = (soon + j * key_row, key_row)
            with f.either(whole & (j + MATRIX_KEYS <= n)) as (directly, by_copy):
                with directly:
                    for form in self.forms:
                        odd.value = f.call(self.functions[False][form], here, row, place(form, j), *more)
                with by_copy:
                    f.call(self.stage, here, row, step, (n - j).min(MATRIX_KEYS), waiting)
                    wide = f.value(padded_bytes(self.columns))
                    for form in self.forms:
                        odd.value = f.call(self.functions[True][form], waiting, wide, place(form, j), *more)
            met(j, odd.value)

    def pack_tile(self) -> Function:
        """Pack a single tile; what is odd about it. Parameters: arguments, workspace, first row, rows."""
        k = self.k
        with k.module.function(f"pack_{self.name}_tile", ADDRESS, ADDRESS, ADDRESS, INT, returns=INT) as f:
            a, w, rows, n = f.arguments()
            odd = f.variable(f.value(0))

            def place(form: str, j: Value) -> Pointer:
                # Of rows MATRIX_KEYS are together, of columns those of the whole tile.
                size = pack_bytes(k.key)[self.name] if form == "rows" else k.key.terms * TILE_BYTES
                return self.packed(w, form) + j // MATRIX_KEYS * size

            def met(_j: Value, more: Value) -> None:
                odd.value = odd.value | more

            self.pack(f, a, w, rows, n, place, met)
            f.give(odd.value)
        return f

    def packed(self, w: Pointer, form: str) -> Pointer:
        """Where a single tile is packed."""
        offsets = run_offsets(self.k.key, self.k.isa)
        part = self.name if form == "rows" else f"{self.name}_{form}"
        return self.k.shared(w).follow() + (offsets[part] - offsets["shared"])


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


def rows_into_tiles(k: Kernel, name: str, columns: int, dtype: str) -> Function:
    """MATRIX_KEYS rows into tiles. Gives what is odd about them, if that is asked of K.

    Parameters: first row, bytes to the next, target.
    """
    key, columns = k.key, padded_bytes(columns) // FLOAT_BYTES
    steps, kind = columns // MATRIX_KEYS, vector(I16, k.lanes)
    exactly = dtype == "bfloat16" and not key.by_single_tiles  # one term is the number itself
    with k.module.function(f"rows_into_tiles.{name}", ADDRESS, INT, ADDRESS, returns=INT) as f:
        source, row, target = f.arguments()
        odd = Odd(k, f)
        with f.loop(0, MATRIX_KEYS, name="row") as j:
            tile = target + (j // TILE_ROWS * (steps * key.terms * TILE_BYTES) + j % TILE_ROWS * 64)
            with f.loop(0, columns if exactly else 0, MATRIX_KEYS, name="copy") as c:
                numbers = (source + (j * row + c * 2)).load(vector(I16, MATRIX_KEYS))
                (tile + c // MATRIX_KEYS * TILE_BYTES).store(numbers, k.vector_bytes)
            with f.loop(0, columns if not exactly else 0, k.lanes, name="columns") as c:
                x = formats.load(source + (j * row + c * formats.size(dtype)), dtype, FLOAT, k.lanes)
                if key.by_single_tiles:  # the forward program looks at rows of Q, whose partners they are
                    odd.take(x)
                place = tile + (c // MATRIX_KEYS * (key.terms * TILE_BYTES) + c % MATRIX_KEYS * 2)
                for n, bits in enumerate(split(x, key.terms, exact=exact_in(key.dtype, key.terms))):
                    (place + n * TILE_BYTES).store((bits >> 16).to(kind.element))
        f.give(odd.met())
    return f


def columns_into_tiles(k: Kernel, name: str, columns: int, dtype: str, turn: Function) -> Function:
    """MATRIX_KEYS rows into transposed tiles. Gives what is odd about them. `turn` is what `_turn` makes.

    Parameters: first row, bytes to the next, target; and where keys are read in place, the first of those that
    come next, and bytes to the one after it.
    """
    key = k.key
    exactly = dtype == "bfloat16" and not key.by_single_tiles  # one term is the number itself
    parameters = (ADDRESS, INT, ADDRESS, *((ADDRESS, INT) if key.keys_in_place else ()))
    with k.module.function(f"columns_into_tiles.{name}", *parameters, returns=INT) as f:
        source, row, target, *soon = f.arguments()
        odd, steps = Odd(k, f), -(-columns // TILE_ROWS)
        with f.loop(0, steps, name="columns") as d:
            if soon:
                for r in range(share := -(-MATRIX_KEYS // steps)):
                    fetch(soon[0] + (d * share + r) * soon[1], key.dim * 2, near=True)
            corner = source + d * (TILE_ROWS * formats.size(dtype))
            tile = target + d * (key.group_keys // MATRIX_KEYS * key.terms * TILE_BYTES)
            if exactly:
                _turned_pairs(k, corner, row, tile)
            else:
                _pairs_by_terms(k, f, corner, row, tile, dtype, odd)
                for n in range(key.terms):
                    f.call(turn, tile + n * TILE_BYTES)
        f.give(odd.met())
    return f


def _turned_pairs(k: Kernel, corner: Pointer, row: Value, tile: Pointer) -> None:
    """A transposed tile of pairs of bfloat16 rows, in registers."""
    kind, words = vector(I16, k.lanes), []
    for r in range(0, MATRIX_KEYS, 2):
        first, second = ((corner + row * (r + u)).load(kind).unsigned(I32) for u in range(2))
        words.append(first | second << 16)
    for r, made in enumerate(transposed(words)):
        (tile + r * k.vector_bytes).store(made, k.vector_bytes)


def _pairs_by_terms(
    k: Kernel, f: Function, corner: Pointer, row: Value, tile: Pointer, dtype: str, odd: Odd
) -> None:
    """Pairs of rows in terms, each term's in a tile, still to be transposed."""
    exact = exact_in(k.key.dtype, k.key.terms)
    with f.loop(0, MATRIX_KEYS // 2, name="pair") as r:
        x = [formats.load(corner + row * (r * 2 + u), dtype, FLOAT, k.lanes) for u in range(2)]
        for number in x:
            odd.take(number)
        for n, word in enumerate(in_pairs(*(split(number, k.key.terms, exact=exact) for number in x))):
            (tile + n * TILE_BYTES + r * k.vector_bytes).store(word, k.vector_bytes)


def _turn(k: Kernel, name: str) -> Function:
    """Transpose a tile of words in place. Parameter: tile."""
    with k.module.function(f"turn.{name}", ADDRESS) as f:
        (tile,) = f.arguments()
        rows = [(tile + r * k.vector_bytes).load(k.integers) for r in range(TILE_ROWS)]
        for r, made in enumerate(transposed(rows)):
            (tile + r * k.vector_bytes).store(made, k.vector_bytes)
    return f
