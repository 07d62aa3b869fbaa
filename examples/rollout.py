"""Attention rollout: how much of each input reaches each position after several layers, at any length.

    A = ½·(mean of w over the heads) + ½·I        of each layer, ½·I for the residual connection
    rollout = A_last · … · A_first

For L tokens that takes L × L matrices. In blocks, R × R are enough: query blocks get the mean of their queries'
weights, key blocks the sum. With R = L that is rollout itself.

Abnar and Zuidema, Quantifying Attention Flow in Transformers, 2020, https://arxiv.org/abs/2005.00928
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import sightline

if TYPE_CHECKING:
    from collections.abc import Iterable

Layer = tuple[np.ndarray, np.ndarray]
"""Query (Hq, L, D) and key (Hkv, L, D)."""


def in_blocks(layer: Layer, blocks: int, *, causal: bool = True) -> np.ndarray:
    """The mean over the heads of the weights in R × R blocks; rows add up to 1."""
    query, key = layer
    see = sightline.See(pooled=(blocks, blocks))
    seen = sightline.look_only(query, key, causal=causal, see=see)
    length = query.shape[-2]
    queries = np.bincount(np.arange(length) * blocks // length, minlength=blocks)  # in each block
    mean: np.ndarray = seen.pooled.mean(axis=-3) / np.maximum(queries, 1)[:, None]
    return mean


def rollout(layers: Iterable[Layer], blocks: int, *, causal: bool = True) -> np.ndarray:
    """What of each block of inputs is in each block of positions after the last layer: (R, R)."""
    reached = np.eye(blocks)
    for layer in layers:
        reached = (in_blocks(layer, blocks, causal=causal) + np.eye(blocks)) / 2 @ reached
    return reached


def main() -> None:
    """Four layers of random attention over 4,096 tokens, in 8 × 8 blocks."""
    rng = np.random.default_rng(0)
    layers = [rng.standard_normal((2, 4, 4096, 64), dtype=np.float32) for _ in range(4)]
    print(np.round(rollout([(query, key) for query, key in layers], 8), 2))


if __name__ == "__main__":
    main()
