"""H2O: which keys to keep in a cache, by all the attention they have received.

    score_j = Σ_i w_ij        of each head, over all queries so far
    keep      the `heavy` keys of the largest score, and the `recent` last ones

Zhang et al., H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models, 2023,
https://arxiv.org/abs/2306.14048
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import sightline


def heavy_hitters(query: np.ndarray, key: np.ndarray, heavy: int, recent: int) -> np.ndarray:
    """The keys each head keeps, in order: (…, Hq, heavy + recent)."""
    seen = sightline.look_only(query, key, causal=True, see=("received",))
    older = seen.received[..., :-recent]  # the recent ones stay whatever they received
    hitters = np.sort(np.argsort(-older, axis=-1, kind="stable")[..., :heavy])
    last = np.arange(key.shape[-2] - recent, key.shape[-2])
    return np.concatenate([hitters, np.broadcast_to(last, (*hitters.shape[:-1], recent))], axis=-1)


def main() -> None:
    """One layer of MiniLM, as if it read from left to right."""
    page = np.load(Path(__file__).with_name("minilm_qkv.npz"))
    kept = heavy_hitters(page["query"], page["key"], heavy=12, recent=4)
    for head in (0, 4, 8):
        print(f"head {head}:", *page["tokens"][kept[head]])


if __name__ == "__main__":
    main()
