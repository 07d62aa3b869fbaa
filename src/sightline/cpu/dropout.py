"""Which weights are dropped: the integers of `reference_dropout`, made where they are needed and never stored.

    row key    64 bits of (seed, sequence, head, query): one for each row, when a block's rows are gathered
    hash       32 bits of (row key, key): a few instructions for each weight, all lanes at once
    dropped    where hash ≤ drop_limit

It is a function of these numbers alone, so any thread may ask in any order, and the backward program asks again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu.kinds import I32, vector
from sightline.cpu.values import Table

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.values import Pointer, Value

# As in reference_dropout, as signed integers.
STEP = 0x9E3779B97F4A7C15 - 2**64
MIX = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
HASH = (0x7FEB352D, 0x846CA68B - 2**32)
WORD = 32
PARTS = ("row_low", "row_high")


def of_sequence(k: Kernel, f: Function, a: Pointer, batch: Value) -> Value:
    """What the seed and a sequence's number make of each other."""
    return _absorbed(_mixed(k.argument(f, a, "seed")), batch)


def store_row(k: Kernel, w: Pointer, r: Value, sequence: Value, head: Value, query: Value) -> None:
    """The key of row r of the block, as two words."""
    key = _absorbed(_absorbed(sequence, head), query)
    for part, word in zip(PARTS, (key, key >> WORD), strict=True):
        (k.place(w, part) + r * (WORD // 8)).store(word.to(I32))


def _absorbed(state: Value, number: Value) -> Value:
    return _mixed(state + (number + 1) * STEP)


def _mixed(x: Value) -> Value:
    """SplitMix64's last steps."""
    x = (x ^ (x >> 30)) * MIX[0]
    x = (x ^ (x >> 27)) * MIX[1]
    return x ^ (x >> 31)


class Dropped:
    """One vector of rows; what does not depend on the key is loaded once."""

    def __init__(self, k: Kernel, f: Function, a: Pointer, w: Pointer, g: Value) -> None:
        self.lanes, size = k.lanes, k.lanes * (WORD // 8)
        self.low, self.high = (
            Table(k.place(w, part), vector(I32, self.lanes), size, align=size)[g] for part in PARTS
        )
        self.limit = k.argument(f, a, "drop_limit").to(I32).splat(self.lanes)

    def kept(self, key: Value) -> Value:
        """Which rows keep the weight of this key."""
        x = self.low ^ key.to(I32).splat(self.lanes)
        x = (x ^ (x >> 16)) * HASH[0] ^ self.high
        x = (x ^ (x >> 15)) * HASH[1]
        return self.limit.below(x)
