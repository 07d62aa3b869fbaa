"""SnapKV: which keys of a prompt to keep, by what its last queries look at.

    vote_j  = Σ_{i in the last `window` queries} w_ij        for the keys before the window
    score_j = the mean of vote over `kernel` neighbours, so that clusters stay together
    keep      the keys of the largest score, and the window

Query heads that share a key head vote together: the mean of the group.

Li et al., SnapKV: LLM Knows What You are Looking for Before Generation, 2024, https://arxiv.org/abs/2404.14469
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import sightline


def votes(query: np.ndarray, key: np.ndarray, window: int) -> np.ndarray:
    """What the keys before the window receive from it: (…, Hkv, Lk − window)."""
    last = sightline.Received(queries=slice(-window, None), per_group=True)
    seen = sightline.look_only(query, key, causal=True, see=sightline.See(received=last))
    received: np.ndarray = seen.received
    return received[..., :-window]


def pooled(vote: np.ndarray, kernel: int) -> np.ndarray:
    """The mean over `kernel` neighbours (an odd number), with zeros beyond both ends."""
    ends = [(0, 0)] * (vote.ndim - 1) + [(kernel // 2, kernel // 2)]
    mean: np.ndarray = np.lib.stride_tricks.sliding_window_view(np.pad(vote, ends), kernel, axis=-1).mean(-1)
    return mean


def kept(query: np.ndarray, key: np.ndarray, keep: int, window: int = 64, kernel: int = 5) -> np.ndarray:
    """The keys that each key head keeps besides the window, in order: (…, Hkv, keep)."""
    score = pooled(votes(query, key, window), kernel)
    return np.sort(np.argsort(-score, axis=-1, kind="stable")[..., :keep])


def main() -> None:
    """One layer of MiniLM, as if it read from left to right."""
    page = np.load(Path(__file__).with_name("minilm_qkv.npz"))
    keys = kept(page["query"], page["key"], keep=20, window=32)
    for head in (1, 4, 10):
        print(f"head {head}:", *page["tokens"][keys[head]])


if __name__ == "__main__":
    main()
