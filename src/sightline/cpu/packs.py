"""A period of keys and values as a matrix unit reads them, packed once for a run of blocks, as they are wanted.

    keys     [16 keys, 32 columns, term]
    values   [group of keys, 16 columns, 32 keys, term]     so Vᵀ

each a tile of TILE_BYTES, in the order in which they are multiplied (see operand).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from sightline.cpu.kinds import ADDRESS, BYTE, INT
from sightline.cpu.operand import Operand
from sightline.cpu.workspace import TILE_BYTES, pack_bytes, run_offsets
from sightline.kernel_key import MATRIX_KEYS

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.values import Pointer, Value

# What is known of the period at work, in the part `period`: eight bytes each, and a byte for every MATRIX_KEYS.
_SLOTS = ("key", "value", "corner", "end", "packed", "met", "odd")


class Packs:
    """The functions that pack, and where in a run's working memory they pack to."""

    def __init__(self, k: Kernel) -> None:
        self.k = k
        self.operands = {
            "key": Operand(k, "key", k.key.dim, ("rows",)),
            "value": Operand(k, "value", k.key.value_dim, ("columns",)),
        }
        self.pack_tile = self._pack_tile()

    def begin(self, f: Function, w: Pointer, heads: dict[str, Pointer], corner: Value, end: Value) -> None:
        """A period: where the head's keys and values lie, its first key, and where the run's keys end."""
        given = {name: head.address() for name, head in heads.items()}
        given |= {"corner": corner, "end": end, "packed": f.value(0), "met": f.value(0)}
        for name, number in given.items():
            self._slot(w, name).store(number, 8)

    def tile(self, f: Function, a: Pointer, w: Pointer, first: Value, n: Value) -> list[Pointer]:
        """Where a tile is packed, which it is when the first block asks. `n`: keys that this block may see.

        Of keys that are read in place, only those are packed that do not fill a tile of the unit's; the last of
        the three addresses is then that of the values that come next.
        """
        beyond = first - self._slot(w, "corner").load(INT, 8)
        bit, packed = f.value(1) << (beyond // self.k.key.tile_keys), self._slot(w, "packed")
        with f.when((packed.load(INT, 8) & bit) == 0):
            f.call(self.pack_tile, a, w, first, n)
            packed.store(packed.load(INT, 8) | bit, 8)
        if self.k.key.dtype == "float32":
            met, odd = self._slot(w, "met"), self._slot(w, "odd") + beyond // MATRIX_KEYS
            with f.loop(0, (n + (MATRIX_KEYS - 1)) // MATRIX_KEYS, name="odd") as i:
                met.store(met.load(INT, 8) | (odd + i).load(BYTE).unsigned(INT), 8)
        keys, values, soon = (
            *(self._place(w, name, beyond) for name in ("key", "value")),
            f.value(0).as_pointer(),
        )
        if self.k.key.keys_in_place:
            keys, soon = (
                self._slot(w, name).follow() + start * self.k.argument(f, a, f"{name}_row")
                for name, start in (("key", first), ("value", first + n))
            )
        return [keys, values, soon]

    def met(self, f: Function, w: Pointer) -> Value:
        """What was odd in the tiles since this was asked last, which is for each block to ask.

        terms.TINY_VALUE if a value was too small for its terms, + HUGE_VALUE if one was huge.
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
        """Pack a tile's keys and values. Parameters: arguments, workspace, first key, keys that the block sees."""
        k = self.k
        with k.module.function("pack_tile", ADDRESS, ADDRESS, INT, INT) as f:
            a, w, first, seen = f.arguments()
            there = (self._slot(w, "end").load(INT, 8) - first).min(k.key.tile_keys)
            beyond = first - self._slot(w, "corner").load(INT, 8)

            def remember(j: Value, odd: Value) -> None:
                (self._slot(w, "odd") + (beyond + j) // MATRIX_KEYS).store(odd.to(BYTE))

            for name, operand in self.operands.items():
                row = k.argument(f, a, f"{name}_row")
                rows, n = self._slot(w, name).follow() + first * row, there
                if name == "key" and k.key.keys_in_place:  # what its tiles leave over
                    whole = seen // MATRIX_KEYS * MATRIX_KEYS
                    rows, n = rows + whole * row, seen - whole
                soon = None
                if name == "value" and k.key.keys_in_place:
                    soon = self._slot(w, "key").follow() + first * k.argument(f, a, "key_row")
                place = functools.partial(self._place_of_row, w, name, beyond)
                operand.pack(f, a, w, rows, n, place, remember if name == "value" else _forget, soon)
        return f

    def _place_of_row(self, w: Pointer, name: str, beyond: Value, _form: str, j: Value) -> Pointer:
        if name == "key" and self.k.key.keys_in_place:
            return self.k.place(w, "last_keys")
        return self._place(w, name, beyond + j)


def _forget(_j: Value, _odd: Value) -> None:
    """What is odd about keys is seen in the rows' scores."""
