"""The calls worth timing, by name: sizes, options, inputs and useful FLOPs."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import ml_dtypes
import numpy as np

DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


@dataclass(frozen=True)
class Shape:
    """One attention call: (B, Hq, Hkv, Lq, Lk, D) and who may see whom.

    `window` is (left, right), both ends included. `mask` names a dense boolean mask: "documents" (eight
    equal documents in one row of tokens) or "random" (every second pair, by chance).
    """

    name: str
    batch: int
    heads: int
    kv_heads: int
    queries: int
    keys: int
    dim: int
    causal: bool = False
    window: tuple[int, int] | None = None
    mask: str | None = None

    @property
    def group(self) -> int:
        """Query heads per key head."""
        return self.heads // self.kv_heads

    @property
    def scale(self) -> float:
        """1/√D."""
        return float(self.dim**-0.5)

    @property
    def needs_dense(self) -> bool:
        """Whether a library that knows only `causal` has to be given a dense mask."""
        return self.window is not None or self.mask is not None

    def flops(self) -> float:
        """Useful operations: a multiply and an add each for QKᵀ and PV, visible pairs only."""
        return 4.0 * self.batch * self.heads * self.dim * self.visible()

    def visible(self) -> int:
        """(query, key) pairs that may see each other, of one head."""
        if self.needs_dense:
            return int(np.count_nonzero(self.allowed()))
        if self.causal:
            return int(np.minimum(np.arange(self.queries) + 1, self.keys).sum())
        return self.queries * self.keys

    def allowed(self) -> np.ndarray:
        """Who may see whom as booleans (Lq, Lk): the dense form of causal, window and mask together."""
        query = np.arange(self.queries)[:, None]
        key = np.arange(self.keys)[None, :]
        allowed = self.dense_mask() if self.mask else np.ones((self.queries, self.keys), bool)
        if self.causal:
            allowed &= key <= query
        if self.window:
            left, right = self.window
            allowed &= (query - left <= key) & (key <= query + right)
        return allowed

    def bytes(self, dtype: str) -> float:
        """Query, key, value and output, each once."""
        rows = 2 * self.heads * self.queries + 2 * self.kv_heads * self.keys
        return float(self.batch * rows * self.dim * DTYPES[dtype].itemsize)

    def dense_mask(self) -> np.ndarray:
        """The named boolean mask (Lq, Lk)."""
        if self.mask == "documents":
            query = np.arange(self.queries) * 8 // self.queries
            key = np.arange(self.keys) * 8 // self.keys
            return np.equal(query[:, None], key[None, :])
        if self.mask == "random":
            return self._random().random((self.queries, self.keys)) < 0.5
        raise ValueError(f"shape {self.name} has mask {self.mask!r}; known: 'documents', 'random'")

    def inputs(self, dtype: str, logits: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Query, key, value ~ N(0,1) in `dtype`, the same in every process.

        `logits` multiplies the rounded query: a power of two changes no digit of it.
        """
        random = self._random()
        kind = DTYPES[dtype]
        drawn = np.float64 if dtype == "float64" else np.float32

        def normal(heads: int, length: int) -> np.ndarray:
            return random.standard_normal((self.batch, heads, length, self.dim), drawn).astype(kind)

        query = normal(self.heads, self.queries) * kind.type(logits)
        return query, normal(self.kv_heads, self.keys), normal(self.kv_heads, self.keys)

    def _random(self) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32(self.name.encode()))


_ALL = [
    Shape("prefill64", 1, 8, 8, 4096, 4096, 64),
    Shape("prefill64-causal", 1, 8, 8, 4096, 4096, 64, causal=True),
    Shape("prefill128", 1, 8, 8, 4096, 4096, 128),
    Shape("prefill128-causal", 1, 8, 8, 4096, 4096, 128, causal=True),
    Shape("bert", 32, 12, 12, 128, 128, 64),
    Shape("vit", 16, 16, 16, 197, 197, 64),
    Shape("window", 1, 8, 8, 4096, 4096, 64, window=(256, 0)),
    Shape("documents", 1, 8, 8, 4096, 4096, 64, mask="documents"),
    Shape("gqa", 1, 32, 8, 2048, 2048, 128, causal=True),
    Shape("square2048", 1, 8, 8, 2048, 2048, 64),
    Shape("random", 1, 8, 8, 2048, 2048, 64, mask="random"),
    Shape("head80", 1, 24, 24, 1024, 1024, 80),
    Shape("head40", 1, 8, 8, 4096, 4096, 40),
    Shape("decode", 1, 32, 8, 1, 8192, 128),
    Shape("decode-batch", 16, 32, 8, 1, 2048, 128),
    Shape("decode-long", 1, 32, 8, 1, 65536, 128),
    Shape("decode-heads", 1, 8, 8, 1, 32768, 128),
    Shape("decode-one", 1, 8, 1, 1, 262144, 64),
    Shape("tiny", 1, 1, 1, 8, 8, 64),
    Shape("long-32k", 1, 1, 1, 32768, 32768, 64, causal=True),
    Shape("long-65k", 1, 1, 1, 65536, 65536, 64, causal=True),
    Shape("long-131k", 1, 1, 1, 131072, 131072, 64, causal=True),
    Shape("quick", 1, 4, 4, 256, 256, 64),
    Shape("quick-causal", 1, 4, 2, 300, 300, 64, causal=True),
    Shape("quick-window", 1, 4, 4, 256, 256, 40, window=(32, 0)),
    Shape("quick-documents", 1, 4, 4, 256, 256, 64, mask="documents"),
]
SHAPES = {shape.name: shape for shape in _ALL}
QUICK = [name for name in SHAPES if name.startswith("quick")]
