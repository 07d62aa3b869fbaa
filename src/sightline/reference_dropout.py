"""The definition of dropout: which weights are dropped is a function of the seed and of where the weight stands.

    kept(i, j) = 0 if hash(row key of i, j) < p · 2³², else 1 / (1 − p)        all 0 for p = 1

There is no state: in whatever order, on however many threads, and as often as anyone asks, the answer is the same,
so a backward pass needs the seed alone. A row's key is 64 bits of (seed, sequence, head, query), each taken in by
SplitMix64's mixing function (Steele, Lea and Flood, Fast splittable pseudorandom number generators, 2014). The
hash of one key of that row is two rounds of shifting and multiplying in 32 bits, with the constants that Wellons
found by search (https://github.com/skeeto/hash-prospector), and half of the row's key goes into each round. It
is no cipher, but neighbouring rows, columns, heads, sequences and seeds have nothing in common, as tests show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEP = np.uint64(0x9E3779B97F4A7C15)
FIRST, SECOND = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)


def kept_or_not(
    seed: int, dropout_p: float, sequence: int, head: int, queries: int, keys: int
) -> NDArray[np.float64]:
    """What each weight of a head is multiplied by, (Lq, Lk): 0 where it is dropped, else 1 / (1 − p).

    `sequence` counts the batch in C order, `head` the query heads.
    """
    dropped = hashes(seed, sequence, head, queries, keys) < dropout_p * 2.0**32
    return np.where(dropped, 0.0, 1 / (1 - dropout_p) if dropout_p < 1 else 0.0)


def hashes(seed: int, sequence: int, head: int, queries: int, keys: int) -> NDArray[np.uint32]:
    """32 bits for each query and key of a head, (Lq, Lk)."""
    row = mixed(np.array([seed], np.uint64))
    for number in (np.array([sequence]), np.array([head]), np.arange(queries)):
        row = mixed(row + (number.astype(np.uint64) + np.uint64(1)) * STEP)  # modulo 2⁶⁴
    low, high = (word.astype(np.uint32)[:, None] for word in (row, row >> np.uint64(32)))
    x = np.arange(keys).astype(np.uint32) ^ low
    x = ((x ^ (x >> np.uint32(16))) * FIRST) ^ high  # modulo 2³²
    return (x ^ (x >> np.uint32(15))) * SECOND


def mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64 bits in which every bit of the result depends on every bit of x."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
