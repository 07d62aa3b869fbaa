"""Numbers as text, for a page that carries its own data: quantised where there are many, with a stated error.

A block of text is base64 of deflated bytes. The bytes are the numbers' low bytes, then their next bytes, and so
on: bytes that are alike stand together and deflate well. `data.js` reads what is written here.
"""

from __future__ import annotations

import base64
import math
import zlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

EXACT = 1 << 18
"""Up to so many numbers, an array keeps its float32."""

FLOOR = {16: 1e-12, 12: 1e-9, 8: 1e-6}
"""The smallest number that a logarithmic code of so many bits tells apart, as a share of the largest."""


@dataclass(frozen=True, slots=True)
class Codec:
    """How numbers were written.

    `float32` and `uint32` are those types. The others write a code from 0 to 2^bits − 1: the last one is NaN (or
    +∞); code 0 is 0 (or below) for `log` and −∞ for `linear`; code 1 + n is low + n · step, or its exponential.
    """

    kind: Literal["float32", "uint32", "log", "linear"]
    bits: int = 32
    low: float = 0.0
    step: float = 0.0

    @property
    def dtype(self) -> np.dtype[Any]:
        """What the numbers, or their codes, are stored as."""
        if self.kind in {"float32", "uint32"}:
            return np.dtype("<f4" if self.kind == "float32" else "<u4")
        return np.dtype("<u1" if self.bits == 8 else "<u2")

    @property
    def error(self) -> float:
        """The largest error: relative for `log`, absolute for `linear`."""
        return math.expm1(self.step / 2) if self.kind == "log" else self.step / 2

    def encode(self, array: Array) -> Array:
        """The array as it is stored."""
        if self.kind in {"float32", "uint32"}:
            return array.astype(self.dtype)
        flat = array.astype(np.float64)
        floor = 0.0 if self.kind == "log" else -np.inf
        usual = np.isfinite(flat) & (flat > floor)
        scaled = np.log(flat, where=usual, out=np.zeros_like(flat)) if self.kind == "log" else flat
        steps = (np.where(usual, scaled, self.low) - self.low) / (self.step or 1.0)
        codes = 1 + np.clip(np.rint(steps), 0, (1 << self.bits) - 3)
        codes[~usual] = (1 << self.bits) - 1
        codes[flat <= floor] = 0
        return codes.astype(self.dtype)

    def decode(self, stored: Array) -> Array:
        """The numbers again, as `data.js` reads them."""
        if self.kind in {"float32", "uint32"}:
            return stored
        values = self.low + (stored.astype(np.float64) - 1) * self.step
        values = np.exp(values) if self.kind == "log" else values
        values[stored == 0] = 0.0 if self.kind == "log" else -np.inf
        values[stored == (1 << self.bits) - 1] = np.nan
        return values


def best(array: Array, bits: int = 16, *, signed: bool = False) -> Codec:
    """float32 for a small array, else codes of so many bits: logarithmic, or linear for signed numbers."""
    return Codec("float32") if array.size <= EXACT else quantised(array, bits, signed=signed)


def quantised(array: Array, bits: int, *, signed: bool = False) -> Codec:
    """Codes of so many bits that reach from the array's smallest number to its largest.

    A logarithmic code begins at `FLOOR` of the largest: what is smaller (and not 0) is written as that.
    """
    usual = array[np.isfinite(array) & (signed | (array > 0))]
    if not usual.size:
        return Codec("linear" if signed else "log", bits)
    low, high = float(usual.min()), float(usual.max())
    if not signed:
        low, high = math.log(max(low, high * FLOOR[bits])), math.log(high)
    return Codec("linear" if signed else "log", bits, low, (high - low) / ((1 << bits) - 3))


def pack(stored: Array) -> str:
    """Stored numbers as text."""
    flat = np.ascontiguousarray(stored).reshape(-1)
    planes = flat.view(np.uint8).reshape(flat.size, flat.itemsize).T
    return pack_bytes(planes.tobytes())


def pack_bytes(raw: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(zlib.compress(raw, 6)).decode("ascii")
