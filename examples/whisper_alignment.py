"""Whisper's word timestamps: when each token was spoken, from the rows of a few heads of cross-attention.

    w        the weights of chosen heads, tokens × frames
    z        (w − mean) / deviation over the tokens, then the median of 7 neighbouring frames
    matrix   the mean of z over the heads; the best monotone path through it (DTW) says when

Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, 2022, https://arxiv.org/abs/2212.04356;
the steps as in https://github.com/openai/whisper/blob/main/whisper/timing.py
"""

from __future__ import annotations

import numpy as np

import sightline


def alignment(query: np.ndarray, key: np.ndarray, heads: tuple[int, ...], frames: int) -> np.ndarray:
    """How well each frame fits each token, (Lq, frames), from query (H, Lq, D) and key (H, Lk, D)."""
    rows = sightline.See(rows=tuple(range(query.shape[-2])), heads=heads)  # no other head is computed
    weights = sightline.look_only(query, key, key_lengths=frames, see=rows).rows[..., :frames]
    z = (weights - weights.mean(axis=-2, keepdims=True)) / weights.std(axis=-2, keepdims=True)
    z = np.pad(z, ((0, 0), (0, 0), (3, 3)), mode="reflect")
    z = np.median(np.lib.stride_tricks.sliding_window_view(z, 7, axis=-1), axis=-1)
    return np.asarray(z.mean(axis=0))


def path(matrix: np.ndarray) -> list[tuple[int, int]]:
    """Steps (token, frame), each one on in one of them or in both, of the largest sum."""
    best = np.full((matrix.shape[0] + 1, matrix.shape[1] + 1), -np.inf)
    best[0, 0] = 0
    for i, j in np.ndindex(*matrix.shape):
        best[i + 1, j + 1] = matrix[i, j] + max(best[i, j], best[i, j + 1], best[i + 1, j])
    i, j = matrix.shape
    steps = []
    while i and j:
        steps.append((i - 1, j - 1))
        i, j = max(((i - 1, j - 1), (i - 1, j), (i, j - 1)), key=lambda place: best[place])
    return steps[::-1]


def main() -> None:
    """Twelve tokens spoken 10 frames each; two of six heads know, and 30 frames of the 150 are silence."""
    rng = np.random.default_rng(0)
    query, key = rng.standard_normal((6, 12, 32)), rng.standard_normal((6, 150, 32))
    for head in (1, 4):
        key[head, :120] += 2 * np.repeat(query[head], 10, axis=0)
    steps = path(alignment(query, key, heads=(1, 4), frames=120))
    print("first frame of each token:", *(min(j for i, j in steps if i == token) for token in range(12)))


if __name__ == "__main__":
    main()
