"""Are a peer's gradients right? Sampled rows of them against `sightline.reference_gradients`, in float64.

A row of dK or dV is a sum over all queries that read it, so whole heads are differentiated: those of the first and
of the last key head.
"""

from __future__ import annotations

import functools
import zlib
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import check
from benchmarks.shapes import DTYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.shapes import Shape

NAMES = ("query", "key", "value")
ROWS = 64  # looked at, of each head


def d_output(shape: Shape, dtype: str) -> np.ndarray:
    """∂loss/∂output ~ N(0,1) in `dtype`, the same in every process."""
    random = np.random.default_rng(zlib.crc32(f"d_output of {shape.name}".encode()))
    sizes = (shape.batch, shape.heads, shape.queries, shape.dim)
    return random.standard_normal(sizes, np.float32).astype(DTYPES[dtype])


def picked(shape: Shape) -> list[tuple[int, int]]:
    """(batch, key head) of the heads looked at."""
    return list(dict.fromkeys([(0, 0), (shape.batch - 1, shape.kv_heads - 1)]))


def rows(length: int) -> np.ndarray:
    """First, last, and rows by chance."""
    chance = np.random.default_rng(7).integers(0, length, ROWS - 2)
    return np.unique(np.r_[0, length - 1, chance])


def sampled(shape: Shape, gradients: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The rows of dQ, dK and dV, each (B, H, L, D), that are looked at: by name, (heads, rows, D)."""
    found: dict[str, np.ndarray] = {}
    for name, gradient in zip(NAMES, gradients, strict=True):
        heads, length = (shape.heads, shape.queries) if name == "query" else (shape.kv_heads, shape.keys)
        sizes = (shape.batch, heads, length, shape.dim)
        if gradient.shape != sizes:
            raise ValueError(f"the gradient of the {name} has shape {gradient.shape}, expected {sizes}")
        each = heads // shape.kv_heads
        parts = [gradient[b, h * each : (h + 1) * each, rows(length)] for b, h in picked(shape)]
        found[name] = np.concatenate([part.swapaxes(0, 1) for part in parts])
    return found


@functools.lru_cache(maxsize=4)
def expected(shape: Shape, dtype: str, logits: float = 1.0) -> dict[str, np.ndarray]:
    """The same rows by the definition."""
    from sightline.reference_gradients import gradients

    query, key, value = (array.astype(np.float64) for array in shape.inputs(dtype, logits))
    cotangent = d_output(shape, dtype).astype(np.float64)
    full = [np.zeros(array.shape) for array in (query, key, value)]
    for batch, head in picked(shape):
        group = slice(head * shape.group, (head + 1) * shape.group)
        one = slice(head, head + 1)
        parts = query[batch, group], key[batch, one], value[batch, one], cotangent[batch, group]
        found = gradients(*parts, causal=shape.causal, query_offset=0)
        for whole, heads, part in zip(
            full, (group, one, one), (found.query, found.key, found.value), strict=True
        ):
            whole[batch, heads] = part
    return sampled(shape, full)


def errors(
    shape: Shape, dtype: str, logits: float, given: Mapping[str, Sequence[object]]
) -> dict[str, float]:
    """By name, ‖given − definition‖ / ‖definition‖, Frobenius."""
    definition = expected(shape, dtype, logits)
    return {name: check.relative_error(np.array(given[name]), definition[name]) for name in NAMES}
