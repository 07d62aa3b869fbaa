"""Pictures for the tests of the drawings, computed by the reference alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from sightline import See, reference, reference_statistics
from sightline.look.picture import Picture
from sightline.look.sizes import coarser, sizes
from sightline.look.words import labels

Array = np.ndarray[Any, Any]


def taken(
    heads: int = 3,
    queries: int = 8,
    keys: int = 8,
    *,
    tokens: list[str] | None = None,
    seed: int = 0,
    **options: Any,
) -> tuple[Picture, reference.Steps]:
    """A picture of random queries and keys, and the steps it was taken from."""
    rng = np.random.default_rng(seed)
    q, k = (rng.standard_normal((heads, length, 16)) for length in (queries, keys))
    steps = reference.attention(q * 2, k, k, **options)
    asked = sizes(heads, queries, keys)
    request = See(
        lse=True, max_score=True, entropy=True, distance=True, received=True, top_keys=asked.top_keys
    )
    seen = reference_statistics.see(steps, request)
    fine = reference_statistics.pooled(steps, *asked.fine).astype(np.float32)
    single: dict[str, Any] = {
        name: getattr(seen, name).astype(np.float32)
        for name in ("lse", "max_score", "entropy", "distance", "received")
    }
    offset = options.get("query_offset", 0)
    picture = Picture(
        title="random",
        heads=tuple(map(str, range(heads))),
        queries=queries,
        keys=keys,
        offset=offset,
        top_keys=seen.top_keys,
        pooled=coarser(fine, *asked.pooled),
        fine=None if asked.fine == asked.pooled else fine,
        visible=steps.seen.sum(axis=-1),
        **labels(tokens, queries, keys, offset),
        **single,
    )
    return picture, steps


def assert_close(found: Any, expected: Any, rtol: float = 1e-6) -> None:
    """Equal up to the rounding of float32, and there at all."""
    __tracebackhide__ = True
    assert found is not None
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-7)
