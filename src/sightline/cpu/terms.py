"""Numbers as sums of bfloat16 terms, which is what a matrix unit multiplies.

    x = x₀ + x₁ + x₂, each term the next 8 bits of x: three hold a float32, two a float16, one a bfloat16
    x·y = Σ xₐ·yᵦ over PRODUCTS: those that count, the smallest first; sums are float32's

What a term leaves over is exact, and so is a product of two terms. With three terms
the error is that of float32 arithmetic (Henry, Tang and Heinecke, 2019, https://arxiv.org/abs/1904.06376).

A term below 2⁻¹²⁶ counts as 0 (the unit's way), which says how small a number may be: TINY.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu.values import ADDRESS, I16, I32, INT, vector
from sightline.cpu.workspace import TILE_BYTES
from sightline.plan import MATRIX_KEYS

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.values import Pointer, Value

PRODUCTS = {
    1: ((0, 0),),
    2: ((1, 0), (0, 0), (0, 1)),
    3: ((2, 0), (1, 0), (1, 1), (0, 0), (0, 1), (0, 2)),
}
TERM_BITS = 8
UPPER = -0x10000  # the half of a float32 that is a bfloat16
# A float32 between these is the sum of its terms to the last bit or, as a query or key, near enough for a score.
TINY, HUGE = 2.0**-102, 2.0**80


def split(x: Value, terms: int, *, exact: bool, nearest: bool = True) -> list[Value]:
    """The bits of each term, in the upper halves of 32; the lower halves say nothing.

    `exact`: nothing is left over after the last one, else it is rounded. `nearest`: the others are rounded too, so
    that the products which are left out are small, and of either sign.
    """
    made = []
    for _ in range(terms - 1):
        bits = x.bits() + 0x8000 if nearest else x.bits()
        made.append(bits)
        x = x - (bits & UPPER).as_bits_of(x.kind)
    return [*made, x.bits() if exact else x.bits() + 0x8000]


def in_pairs(first: list[Value], second: list[Value]) -> list[Value]:
    """For each term a word in each lane: first's in its lower half, second's in its upper half."""
    return [_blended(a >> 16, b) for a, b in zip(first, second, strict=True)]


def _blended(low: Value, high: Value) -> Value:
    """Lower halves of one, upper halves of the other: one instruction, if it is asked for in halves."""
    count = 2 * low.kind.count
    a, b = (x.as_bits_of(vector(I16, count)) for x in (low, high))
    return a.shuffled(b, [lane + count * (lane % 2) for lane in range(count)]).as_bits_of(low.kind)


def exact_in(dtype: str, terms: int) -> bool:
    """Whether every number of this type is the sum of so many terms."""
    return terms * TERM_BITS >= {"float32": 24, "float16": 11, "bfloat16": 8}[dtype]


def tile_of(k: Kernel, at: Pointer, number: Value, vector: Value | int) -> Pointer:
    """The first term's tile of a part that holds Qᵀ or Pᵀ: [MATRIX_KEYS columns or keys, vector of rows, term]."""
    place = number * (k.block_rows // k.lanes) + vector
    return at + place * (k.key.terms * TILE_BYTES)


def pack_queries(k: Kernel) -> Function:
    """Qᵀ in terms, from the lanes that it stands in. Gives the bits of the largest magnitude.

    Parameters: workspace, vectors of rows.
    """
    key = k.key
    words, exact = -(-key.dim // 2), exact_in(key.dtype, key.terms)
    with k.module.function("pack_queries", ADDRESS, INT, returns=I32) as f:
        w, vectors = f.arguments()
        lanes, target = k.table(w, "query"), k.place(w, "query_tiles")
        largest = f.variable(f.zeros(k.integers))
        half = MATRIX_KEYS // 2
        with f.loop(0, vectors, name="rows") as g, f.loop(0, -(-words // half) * half, name="pair") as r:
            inside, alone = r < words, (r == words - 1) & (key.dim % 2 == 1)
            at = inside.where(r, 0)
            x = [lanes[at * 2, g], lanes[at * 2 + alone.where(0, f.value(1)), g]]
            zero = f.zeros(k.vec)
            x = [inside.where(x[0], zero), (inside & ~alone).where(x[1], zero)]
            for number in x:
                largest.value = magnitude(number).max(largest.value)
            pair = in_pairs(*(split(number, key.terms, exact=exact) for number in x))
            for n, word in enumerate(pair):
                place = tile_of(k, target, r // half, g) + (r % half * k.vector_bytes + n * TILE_BYTES)
                place.store(word, k.vector_bytes)
        f.give(largest_lane(k, f, largest.value))
    return f


def magnitude(x: Value) -> Value:
    """|x| as bits: in the order of the magnitudes, Inf and NaN above all."""
    return x.bits() & 0x7FFFFFFF


def largest_lane(k: Kernel, f: Function, x: Value) -> Value:
    """The largest number of a vector of integers."""
    most = x.lane(0)
    for lane in range(1, k.lanes):
        most = x.lane(lane).max(most)
    return most


def pair_of(k: Kernel, tiles: Pointer, key: Value, vector: Value) -> Pointer:
    """Where the weights of keys `key`, which is even, and the next one lie in a part that holds Pᵀ."""
    row = key // 2 % (MATRIX_KEYS // 2)
    return tile_of(k, tiles, key // MATRIX_KEYS, vector) + row * k.vector_bytes


def store_pair(k: Kernel, place: Pointer, first: Value, second: Value) -> None:
    """Two keys' weights in terms."""
    exact = exact_in("float32", k.key.terms)
    words = in_pairs(*(split(p, k.key.terms, exact=exact, nearest=False) for p in (first, second)))
    for n, word in enumerate(words):
        (place + n * TILE_BYTES).store(word, k.vector_bytes)
