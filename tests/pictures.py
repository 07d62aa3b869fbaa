"""Pictures for the tests of the page: small ones with tokens, and made-up ones of any length."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from looks import taken
from sightline.look.picture import Picture
from sightline.see import TopKeys

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORDS = ("the", "rabbit", "took", "a", "watch", "out", "of", "its", "waistcoat", "pocket", ",", "and")


def small(
    queries: int = 8, keys: int | None = None, *, heads: int = 3, tokens: tuple[str, ...] | None = None
) -> Picture:
    """What the reference sees of random queries and keys: causal, or two sequences if the lengths differ."""
    keys = queries if keys is None else keys
    causal = queries == keys
    labels = tokens or tuple(WORDS[i % len(WORDS)] for i in range(keys))
    picture, _ = taken(heads, queries, keys, tokens=list(labels), causal=causal)
    assert picture.top_keys is not None
    return dataclasses.replace(
        picture,
        heads=tuple(f"head {h}" for h in range(heads)),
        query_tokens=labels if causal else tuple(f"q{i}" for i in range(queries)),
        top_keys=TopKeys(picture.top_keys.indices, _floats(picture.top_keys.weights)),
    )


def long(length: int = 131_072, heads: int = 2, *, fine: int = 1024, count: int = 8) -> Picture:
    """A causal picture of any length, made of random numbers that deflate no better than real ones."""
    random = np.random.default_rng(6)
    at = np.arange(length)
    labels = tuple(np.array(WORDS)[random.integers(0, len(WORDS), length)].tolist())
    weights = -np.sort(-random.random((heads, length, count), np.float32), axis=-1) / count
    back = random.integers(0, 1 << 30, weights.shape, dtype=np.int64) % (at[:, None] + 1)
    seen = np.arange(count) <= at[:, None]  # query i sees i + 1 keys
    return Picture(
        title="a long picture",
        heads=tuple(f"head {h}" for h in range(heads)),
        queries=length,
        keys=length,
        query_tokens=labels,
        key_tokens=labels,
        entropy=random.random((heads, length), np.float32) * 5,
        received=_floats(random.lognormal(0, 2, (heads, length))),
        top_keys=TopKeys(np.where(seen, back, -1), np.where(seen, weights, np.float32(0))),
        pooled=_causal_map(random, heads, 256, length),
        fine=_causal_map(random, heads, fine, length),
        options=("causal",),
    )


def _causal_map(random: np.random.Generator, heads: int, size: int, length: int) -> NDArray[np.float32]:
    weights = np.tril(random.random((heads, size, size), np.float32) ** 4)
    return _floats(weights * (length / size) / np.maximum(weights.sum(-1, keepdims=True), 1e-9))


def _floats(array: Any) -> NDArray[np.float32]:
    return np.asarray(array, np.float32)
