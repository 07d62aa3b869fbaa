"""Is a peer's output right? Sampled rows of it against `sightline.reference`, in float64.

The reference computes from the inputs as rounded to the dtype, so the error is the kernel's own.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from benchmarks.shapes import Shape

# Relative Frobenius error above which an output counts as wrong: some ten times the worst honest peer's.
TOLERANCE = {"float64": 1e-12, "float32": 1e-4, "float16": 3e-3, "bfloat16": 3e-2}
ROWS = 16  # query rows looked at, of each of up to three heads


def picked(shape: Shape, rows: int) -> tuple[list[tuple[int, int]], np.ndarray]:
    """The (batch, head) pairs and query rows to look at: first, middle, last, and rows by chance."""
    ends = [(0, 0), (shape.batch // 2, shape.heads // 2), (shape.batch - 1, shape.heads - 1)]
    chance = np.random.default_rng(7).integers(0, shape.queries, max(rows - 2, 0))
    return list(dict.fromkeys(ends)), np.unique(np.r_[0, shape.queries - 1, chance])


def sampled(shape: Shape, output: np.ndarray, rows: int = ROWS) -> np.ndarray:
    """The rows of `output` (B, Hq, Lq, D) that are looked at, (heads, rows, D)."""
    expected = (shape.batch, shape.heads, shape.queries, shape.dim)
    if output.shape != expected:
        raise ValueError(f"the output's shape is {output.shape}, expected {expected}")
    heads, chosen = picked(shape, rows)
    return np.stack([output[batch, head][chosen] for batch, head in heads])


@functools.lru_cache(maxsize=8)
def expected(shape: Shape, dtype: str, logits: float = 1.0, rows: int = ROWS) -> np.ndarray:
    """The same rows by the definition."""
    from sightline import reference

    query, key, value = (array.astype(np.float64) for array in shape.inputs(dtype, logits))
    heads, chosen = picked(shape, rows)
    mask = shape.allowed()[chosen]
    outputs = []
    for batch, head in heads:
        kv_head = head // shape.group
        steps = reference.attention(
            query[batch, head][chosen], key[batch, kv_head], value[batch, kv_head], mask=mask
        )
        outputs.append(steps.output)
    return np.stack(outputs)


def relative_error(output: np.ndarray, definition: np.ndarray) -> float:
    """‖output − definition‖ / ‖definition‖, Frobenius."""
    return float(np.linalg.norm(output - definition) / np.linalg.norm(definition))


def wrong(error: float, dtype: str) -> bool:
    """Whether this error disqualifies an output; NaN does."""
    return not error <= TOLERANCE[dtype]
