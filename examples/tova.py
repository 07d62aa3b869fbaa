"""TOVA: which keys to keep in a cache of a fixed size, by what the newest query looks at.

    score_j = mean over the heads of w_ij, i the last query
    keep      the `size` keys of the largest score, the same ones in every head

Oren et al., Transformers are Multi-State RNNs, 2024, https://arxiv.org/abs/2401.06104
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import sightline


def scores(query: np.ndarray, key: np.ndarray) -> np.ndarray:
    """The last query's weights, averaged over the heads: (…, Lk)."""
    seen = sightline.look_only(query, key, causal=True, see=sightline.See(rows=(-1,)))
    row: np.ndarray = seen.rows[..., 0, :]  # (…, Hq, Lk)
    mean: np.ndarray = row.mean(axis=-2)
    return mean


def kept(query: np.ndarray, key: np.ndarray, size: int) -> np.ndarray:
    """The keys that stay, in order: (…, size)."""
    return np.sort(np.argsort(-scores(query, key), axis=-1, kind="stable")[..., :size])


def main() -> None:
    """One layer of MiniLM, as if it read from left to right, and paused at its 200th token."""
    page = np.load(Path(__file__).with_name("minilm_qkv.npz"))
    query, key = page["query"][:, :200], page["key"][:, :200]
    print("…", *page["tokens"][190:200], "looks at:", *page["tokens"][kept(query, key, 16)])


if __name__ == "__main__":
    main()
