"""Numbers as sums of bfloat16 terms, which is what a matrix unit multiplies.

    x = x₀ + x₁ + x₂, each term the next 8 bits of x: three hold a float32, two a float16, one a bfloat16
    x·y = Σ xₐ·yᵦ over PRODUCTS: those that count, the smallest first; sums are float32's

What a term leaves over is exact, and so is a product of two terms. With three terms
the error is that of float32 arithmetic (Henry, Tang and Heinecke, 2019, https://arxiv.org/abs/1904.06376).

A term below 2⁻¹²⁶ counts as 0 (the unit's way), which says how small a number may be: TINY.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu import formats
from sightline.cpu.kinds import ADDRESS, FLOAT, INT
from sightline.cpu.transpose import gather_patch, transposed
from sightline.cpu.workspace import TILE_BYTES, TILE_ROWS
from sightline.kernel_key import MATRIX_KEYS

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
# A float32 that is less than TINY, and not 0, loses digits. That matters to a score only if its partner is HUGE.
TINY, HUGE = 2.0**-102, 2.0**100
# Of dO more is asked: dS, of which there are terms too, is dO times a weight.
TINY_GRADIENT = 2.0**-80
LARGEST = 3.4028234663852886e38
TINY_VALUE, HUGE_VALUE = 1, 2
# Where the tiles of each part lie that is a right factor.
TILES = {
    "query": "query_tiles",
    "d_out": "d_out_tiles",
    "scores": "weight_tiles",
    "d_scores": "d_score_tiles",
    "queries": "query_pairs",
    "d_outs": "d_out_pairs",
}
# … and of each that is a left one.
ROWS = {"scores": "weight_rows", "d_scores": "d_score_rows"}


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
    return [formats.blended(a >> 16, b) for a, b in zip(first, second, strict=True)]


def exact_in(dtype: str, terms: int) -> bool:
    """Whether every number of this type is the sum of so many terms."""
    return terms * TERM_BITS >= {"float32": 24, "float16": 11, "bfloat16": 8}[dtype]


def tile_of(k: Kernel, at: Pointer, number: Value, vector: Value | int) -> Pointer:
    """The first term's tile of a part that holds Qᵀ or Pᵀ: [MATRIX_KEYS columns or keys, vector of rows, term]."""
    place = number * (k.block_rows // k.lanes) + vector
    return at + place * (k.key.terms * TILE_BYTES)


def pack_lanes(k: Kernel, part: str, columns: int) -> Function:
    """Qᵀ, or dOᵀ, in terms, from the lanes that it stands in, `columns` of them.

    In the forward program `unfit` = NaN for rows with TINY or HUGE numbers, else 0; the others get what is odd.
    Parameters: workspace, vectors of rows.
    """
    key = k.key
    half, exact = MATRIX_KEYS // 2, exact_in(key.dtype, key.terms)
    with k.module.function(f"pack_{part}", ADDRESS, INT, returns=INT) as f:
        w, vectors = f.arguments()
        met = Odd(k, f)
        lanes, target = k.table(w, part), k.place(w, TILES[part])
        steps = -(-columns // MATRIX_KEYS)
        with f.loop(columns, steps * MATRIX_KEYS, name="beyond") as c, f.loop(0, vectors, name="rows") as g:
            lanes[c, g] = f.zeros(k.vec)
        with f.loop(0, vectors, name="rows") as g:
            odd = f.variable(f.zeros(k.vec))
            with f.loop(0, steps * half, name="pair") as r:
                x = [lanes[r * 2 + u, g] for u in range(2)]
                for number in x:
                    if key.by_single_tiles:
                        met.take(number)
                    elif key.dtype == "float32":
                        odd.value = is_odd(number).where(float("nan"), odd.value)
                place = tile_of(k, target, r // half, g) + r % half * k.vector_bytes
                for n, word in enumerate(in_pairs(*(split(number, key.terms, exact=exact) for number in x))):
                    (place + n * TILE_BYTES).store(word, k.vector_bytes)
            if not key.by_single_tiles:
                k.table(w, "unfit")[g] = odd.value
        f.give(met.met() if key.by_single_tiles else 0)
    return f


def pack_rows(k: Kernel, part: str, columns: int) -> Function:
    """Q, or dO, in terms, from packed rows; a pair is two rows that stand half of MATRIX_KEYS apart.

    Tiles: [MATRIX_KEYS rows, 16 columns, term]. Gives what is odd. Parameters: workspace, vectors of rows.
    """
    key, half = k.key, MATRIX_KEYS // 2
    exact, least = exact_in(key.dtype, key.terms), TINY_GRADIENT if part == "d_outs" else TINY
    with k.module.function(f"pack_{part}", ADDRESS, INT, returns=INT) as f:
        w, vectors = f.arguments()
        rows, target, wide = (
            k.packed(k.place(w, part), columns),
            k.place(w, TILES[part]),
            k.column_vectors(columns),
        )
        odd = Odd(k, f, least)
        with f.loop(0, vectors // 2 * half, name="row") as r, f.loop(0, wide, name="columns") as c:
            first = r // half * MATRIX_KEYS + r % half
            x = [rows[first + u * half, c] for u in range(2)]
            for number in x:
                odd.take(number)
            place = target + (r // half * wide + c) * (key.terms * TILE_BYTES) + r % half * k.vector_bytes
            for n, word in enumerate(in_pairs(*(split(number, key.terms, exact=exact) for number in x))):
                (place + n * TILE_BYTES).store(word, k.vector_bytes)
        f.give(odd.met())
    return f


class Odd:
    """Looks at numbers as they pass: what terms, or sums of their products, cannot hold."""

    def __init__(self, k: Kernel, f: Function, least: float = TINY) -> None:
        self.k, self.f, self.tiny = k, f, least
        # |x| − 1 as unsigned bits: 0 is not tiny, it is above all.
        self.least, self.most = f.variable(f.value(-1, k.integers)), f.variable(f.zeros(k.integers))
        self.looks = k.key.dtype == "float32" or k.key.by_single_tiles

    def take(self, x: Value) -> None:
        """Look at a vector of float32."""
        if self.looks:
            bits = magnitude(x)
            self.most.value = bits.max(self.most.value)
            self.least.value = (bits - 1).below(self.least.value).where(bits - 1, self.least.value)

    def met(self) -> Value:
        """TINY_VALUE if one was tiny, + HUGE_VALUE if one was huge or no number; tiny only in float32."""
        single, f = self.k.key.dtype == "float32", self.f
        if not self.looks:
            return f.value(0)
        most = HUGE if single else LARGEST
        tiny, huge = (f.value(limit, FLOAT).bits().splat(self.k.lanes) for limit in (self.tiny, most))
        met = (self.most.value > huge).any().unsigned(INT) * HUGE_VALUE
        return met | self.least.value.below(tiny - 1).any().unsigned(INT) * TINY_VALUE if single else met


def pack_query_rows(k: Kernel) -> Function:
    """Qᵀ in one term from rows of bfloat16: two columns are a word on their way from rows to lanes.

    Parameters: table of row addresses, bytes from column to column, vectors of rows, workspace.
    """
    dim, width, size = k.key.dim, MATRIX_KEYS, formats.size("bfloat16")
    with k.module.function("pack_query_rows", ADDRESS, INT, INT, ADDRESS) as f:
        table, step, vectors, w = f.arguments()
        target, patch = k.place(w, "query_tiles"), k.place(w, "patch")
        with f.loop(0, vectors, name="rows") as g, f.loop(0, -(-dim // width), name="columns") as d:
            addresses, start, left = table + g * (k.lanes * 8), d * width * step, f.value(dim) - d * width
            whole = (step == size) & (left >= width)
            with f.when(~whole):
                for r in range(k.lanes):
                    (patch + r * k.vector_bytes).store(f.zeros(k.vec))
                gather_patch(k, f, "bfloat16", addresses, start, step, left.min(width), patch, width)
            rows = []
            for r in range(k.lanes):
                there = (addresses + r * 8).load(INT, 8) + start
                rows.append(
                    whole.where(there, (patch + r * k.vector_bytes).address()).as_pointer().load(k.vec)
                )
            place = tile_of(k, target, d, g)
            for r, words in enumerate(transposed(rows)):
                (place + r * k.vector_bytes).store(words, k.vector_bytes)
    return f


def is_odd(x: Value) -> Value:
    """Whether a float32 is no number, HUGE, or TINY and not 0."""
    bits = magnitude(x)
    tiny, huge = (x.f.value(limit, x.kind).bits() for limit in (TINY, HUGE))
    return (bits > huge) | ((bits > 0) & (bits < tiny))


def magnitude(x: Value) -> Value:
    """|x| as bits: in the order of the magnitudes, Inf and NaN above all."""
    return x.bits() & 0x7FFFFFFF


def pair_of(k: Kernel, tiles: Pointer, key: Value, vector: Value) -> Pointer:
    """Where the weights of keys `key`, which is even, and the next one lie in a part that holds Pᵀ."""
    row = key // 2 % (MATRIX_KEYS // 2)
    return tile_of(k, tiles, key // MATRIX_KEYS, vector) + row * k.vector_bytes


def store_pair(k: Kernel, place: Pointer, first: Value, second: Value) -> None:
    """Two keys' weights in terms."""
    store_terms(k, place, weight_terms(k, first), weight_terms(k, second))


def row_of(k: Kernel, rows: Pointer, key: Value, pair: Value) -> Pointer:
    """Where a key's weights lie, of two vectors of rows, in a part that is [16 keys, MATRIX_KEYS rows, term]."""
    place = key // TILE_ROWS * (k.block_rows // MATRIX_KEYS) + pair
    return rows + (place * (k.key.terms * TILE_BYTES) + key % TILE_ROWS * k.vector_bytes)


def store_terms(k: Kernel, place: Pointer, first: list[Value], second: list[Value]) -> None:
    """Two vectors' terms, side by side in each lane."""
    for n, word in enumerate(in_pairs(first, second)):
        (place + n * TILE_BYTES).store(word, k.vector_bytes)


def weight_terms(k: Kernel, x: Value) -> list[Value]:
    """The terms of a number that the kernel has made."""
    return split(x, k.key.terms, exact=exact_in("float32", k.key.terms), nearest=False)
