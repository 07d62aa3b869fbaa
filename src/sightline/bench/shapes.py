"""The calls that the short benchmark times: one of each kind that people make."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}


@dataclass(frozen=True)
class Shape:
    """One call."""

    name: str
    batch: int
    heads: int
    kv_heads: int
    queries: int
    keys: int
    dim: int
    causal: bool = False

    @property
    def group(self) -> int:
        """Query heads that share a key head."""
        return self.heads // self.kv_heads

    @property
    def flops(self) -> float:
        """4·D for every pair of a query and a key that it may see."""
        pairs = self.queries * (self.queries + 1) // 2 if self.causal else self.queries * self.keys
        return 4.0 * self.batch * self.heads * pairs * self.dim

    def bytes(self, dtype: str) -> float:
        """Query, key, value and output, each once."""
        rows = 2 * self.heads * self.queries + 2 * self.kv_heads * self.keys
        return float(self.batch * rows * self.dim * DTYPES[dtype].itemsize)

    def inputs(self, dtype: str) -> tuple[Array, Array, Array]:
        """Query, key, value ~ N(0, 1), the same every time."""
        random, kind = np.random.default_rng(zlib.crc32(self.name.encode())), DTYPES[dtype]

        def normal(heads: int, length: int) -> Array:
            made: Array = random.standard_normal((self.batch, heads, length, self.dim), np.float32)
            return made.astype(kind)

        return (
            normal(self.heads, self.queries),
            normal(self.kv_heads, self.keys),
            normal(self.kv_heads, self.keys),
        )

    def __str__(self) -> str:
        """Sizes as people write them."""
        heads = f"{self.heads}" if self.group == 1 else f"{self.heads}/{self.kv_heads}"
        lengths = f"{self.queries} × {self.keys}"
        return f"{self.batch} × {heads} heads, {lengths}, {self.dim}{', causal' if self.causal else ''}"


_ALL = [
    Shape("prompt", 1, 8, 8, 2048, 2048, 64, causal=True),
    Shape("bert", 16, 12, 12, 128, 128, 64),
    Shape("vit", 8, 16, 16, 197, 197, 64),
    Shape("decode", 1, 32, 8, 1, 8192, 128),
    Shape("tiny", 1, 1, 1, 8, 8, 64),
]
SHAPES = {shape.name: shape for shape in _ALL}
