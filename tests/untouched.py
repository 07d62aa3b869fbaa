"""A program whose invisible keys and values lie in forbidden pages: a kernel that looks at one dies.

Usage: python untouched.py. Prints each case before it runs; exits with 1 where an answer is wrong.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

import matrix_unit
import sightline
from cases import DTYPES, Array
from fenced import FORBIDDEN, Fenced, _protect
from sightline import reference

KEYS, DIM = 4096, 64
J = np.arange(KEYS)

# What 64 queries may see, and the keys that no tile of theirs holds; pages begin at multiples of 64 keys.
CASES: dict[str, tuple[dict[str, Any], slice]] = {
    "key lengths": ({"key_lengths": 1024}, slice(1024, KEYS)),
    "causal": ({"causal": True, "query_offset": 0}, slice(64, KEYS)),
    "window, before it": ({"window": (32, None), "query_offset": 2048}, slice(0, 1984)),
    "window, behind it": ({"window": (None, 0), "query_offset": 2048}, slice(2112, KEYS)),
    "mask, one row": ({"mask": J < 1024}, slice(1024, KEYS)),
    "mask, a document": ({"mask": np.broadcast_to((J >= 1024) & (J < 2048), (64, KEYS))}, slice(2048, KEYS)),
    "no key at all": ({"key_lengths": 0}, slice(0, KEYS)),
}


def partly_forbidden(x: Array, hidden: slice) -> Array:
    """A copy of (keys, dim) in memory of its own, where `hidden` rows may not be touched."""
    fence = Fenced(x.nbytes, at_end=False)
    copy: Array = np.ndarray(x.shape, x.dtype, buffer=fence.memory, offset=fence.offset)
    copy[:] = x
    row = x.strides[0]
    _protect(fence.address + hidden.start * row, (hidden.stop - hidden.start) * row, FORBIDDEN)
    return copy


def main() -> int:
    rng = np.random.default_rng(0)
    for name, (options, hidden) in CASES.items():
        for dtype in DTYPES.values():
            print(f"{name}, {dtype.name}", flush=True)
            query, key, value = (rng.standard_normal((n, DIM)).astype(dtype) for n in (64, KEYS, KEYS))
            want = reference.attention(query, key, value, **options).output
            places = [partly_forbidden(x, hidden) for x in (key, value)]
            got = sightline.attention(query, *places, **options).astype(np.float64)
            if not np.abs(got - want).max() < 0.02:
                return 1
    print("done")
    return 0


if __name__ == "__main__":
    matrix_unit.stand_in()
    sys.exit(main())
