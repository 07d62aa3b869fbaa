"""Between the raw scores and the softmax: scaled, softcap, bias, ALiBi, and the keys a row may not see.

A tile that every row sees in full, in a call without modifiers, skips this room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu.kinds import ADDRESS, BYTE, I32, INT, NEGATIVE_INFINITY, vector
from sightline.cpu.values import Table, Value
from sightline.cpu.vmath import tanh
from sightline.cpu.workspace import MASK_WORD

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.values import Pointer, Variable

EMPTY, FULL, PARTIAL = 0, 1, 2  # as masks.Tile


def modify(k: Kernel) -> Function:
    """S → what the softmax sees of S, −inf where a key is not allowed; top = each row's largest.

    Parameters: arguments, workspace, first key of the tile, keys in it, vectors of rows.
    """
    with k.module.function("modify", ADDRESS, ADDRESS, INT, INT, INT) as f:
        a, w, first, n, vectors = f.arguments()
        table, top = k.table(w, "scores"), k.table(w, "top")
        with f.loop(0, vectors, name="rows") as g:
            largest = f.variable(f.value(NEGATIVE_INFINITY, k.vec))
            change = _Change(k, f, a, w, g)
            with f.loop(0, n, name="keys") as j:
                s = change.allowed(change.score(table[j, g], first, j), first, j)
                table[j, g] = s
                largest.value = s.max(largest.value)
            top[g] = largest.value
    return f


class _Change:
    """What happens to the scores of one vector of rows; what does not depend on the key is loaded once."""

    def __init__(self, k: Kernel, f: Function, a: Pointer, w: Pointer, g: Value) -> None:
        self.k, self.f, self.g = k, f, g
        key, table = k.key, k.table
        self.scale = k.number(a, "scale")
        if key.softcap:
            self.softcap = k.number(a, "softcap")
            self.steepness = table(w, "steepness") if key.gradients else None
        if key.bias:
            self.bias = table(w, "bias")
        if key.alibi:
            self.slope, self.position = table(w, "slope")[g], table(w, "position")[g]
            self.origin = k.place(w, "origin").load(INT, 8)
        if key.banded:
            self.begin = table(w, "first")[g]
            self.width = table(w, "end")[g] - self.begin
        if key.mask:
            words = k.place(w, "words") + g * (k.lanes * 4)
            self.words = Table(words, vector(I32, k.lanes), k.block_rows * 4)

    def score(self, s: Value, first: Value, j: Value) -> Value:
        """The definition's lines from scaled to bias, in its order."""
        key = self.k.key
        if key.scaled:
            s = s * self.scale
        if key.softcap:
            t = tanh(s / self.softcap)
            s = self.softcap * t
            if self.steepness is not None:  # tanh' = 1 − tanh²
                self.steepness[j, self.g] = (-t).fma(t, 1.0)
        if key.bias:
            s = s + self.bias[j, self.g]
        if key.alibi:
            away = self.position - (first + j - self.origin).to(self.k.compute).splat(self.k.lanes)
            s = s - self.slope * away.magnitude()
        return s

    def allowed(self, s: Value, first: Value, j: Value) -> Value:
        """−inf where the row's interval or the mask leaves this key out."""
        key, lanes = self.k.key, self.k.lanes
        if key.banded:  # begin ≤ key < end, in one unsigned comparison
            number = (first + j).to(self.k.integers.element).splat(lanes)
            s = (number - self.begin).below(self.width).where(s, NEGATIVE_INFINITY)
        if key.mask:
            bit = (self.f.value(1) << (j % MASK_WORD)).to(I32).splat(lanes)
            s = ((self.words[j // MASK_WORD] & bit) != 0).where(s, NEGATIVE_INFINITY)
        return s


class Allowed:
    """The mask's word on some keys of a tile, from key `j` on, which is a multiple of how many they are."""

    def __init__(self, k: Kernel, w: Pointer, g: Value, j: Value) -> None:
        words = k.place(w, "words") + g * (k.lanes * 4)
        table = Table(words, vector(I32, k.lanes), k.block_rows * 4)
        self.bits = table[j // MASK_WORD] >> (j % MASK_WORD).to(I32).splat(k.lanes)

    def choose(self, u: int, yes: Value, no: float) -> Value:
        """`yes` where a row may see key j + u, else `no`."""
        return ((self.bits & (1 << u)) != 0).where(yes, no)


def pack_mask(k: Kernel) -> Function:
    """The tile's part of a boolean mask as bits, and whether it is EMPTY, FULL or PARTIAL.

    Parameters: arguments, workspace, first key of the tile, keys in it, rows.
    """
    with k.module.function("pack_mask", ADDRESS, ADDRESS, INT, INT, INT, returns=INT) as f:
        a, w, first, n, rows = f.arguments()
        some, every = f.variable(f.value(0, INT)), f.variable(f.value(-1, INT))
        two_words = (k.argument(f, a, "mask_step") == 1) & (n == 2 * MASK_WORD)
        with f.either(two_words) as (together, singly):
            with together:
                _pack_two_words(k, f, w, (first, rows), (some, every))
            with singly:
                _pack_words(k, f, a, w, (first, n, rows), (some, every))
        kind = (some.value == 0).where(f.value(EMPTY), f.value(PARTIAL))
        f.give((every.value == -1).where(f.value(FULL), kind))
    return f


def _pack_two_words(
    k: Kernel, f: Function, w: Pointer, tile: tuple[Value, Value], seen: tuple[Variable, Variable]
) -> None:
    """A whole tile of neighbouring booleans. Tile: first key, rows; seen: the bits of some row, of every row."""
    (first, rows), (some, every) = tile, seen
    table, words = k.place(w, "mask_rows"), Table(k.place(w, "words"), I32, k.block_rows * 4, 4)
    with f.loop(0, rows, name="row") as r:
        address = (table + r * 8).follow() + first
        (address + k.key.tile_keys).prefetch()
        bits = (address.load(vector(BYTE, 2 * MASK_WORD)) != 0).as_bits_of(INT)
        words[0, r], words[1, r] = bits.to(I32), (bits >> MASK_WORD).to(I32)
        some.value, every.value = some.value | bits, every.value & bits


def _pack_words(
    k: Kernel, f: Function, a: Pointer, w: Pointer, tile: tuple[Value, Value, Value],
    seen: tuple[Variable, Variable],
) -> None:  # fmt: skip
    """A word at a time, of any stride, the last one of fewer keys. Tile: first key, keys, rows; seen: as above."""
    (first, n, rows), (some, every), step = tile, seen, k.argument(f, a, "mask_step")
    table, words = k.place(w, "mask_rows"), Table(k.place(w, "words"), I32, k.block_rows * 4, 4)
    with f.loop(0, n, MASK_WORD, name="word") as start:
        count = (n - start).min(MASK_WORD)
        # The bits of this word that stand for keys of the tile.
        valid = (f.value(-1, INT) + (f.value(1) << count)).to(I32)
        key, place = first + start, start // MASK_WORD
        whole = (step == 1) & (key + MASK_WORD <= k.argument(f, a, "keys"))
        with f.loop(0, rows, name="row") as r:
            address = (table + r * 8).follow() + key * step
            with f.either(whole) as (then, otherwise):
                with then:
                    words[place, r] = (address.load(vector(BYTE, MASK_WORD)) != 0).as_bits_of(I32)
                with otherwise:
                    words[place, r] = _word_from_elements(f, address, step, count)
            word = words[place, r]
            some.value = some.value | (word & valid).unsigned(INT)
            every.value = every.value & ((word | ~valid).unsigned(INT) | (-1 << MASK_WORD))


def _word_from_elements(f: Function, address: Pointer, step: Value, count: Value) -> Value:
    """The careful way: any stride, fewer than 32 keys."""
    word = f.variable(f.value(0, I32))
    with f.loop(0, count, name="key") as i:
        here = (address + i * step).load(BYTE) != 0
        word.value = word.value | here.where(f.value(1) << i, f.value(0)).to(I32)
    return word.value
