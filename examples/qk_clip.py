"""QK-clip: keep attention's scores from exploding in training, by the largest score of each head.

    S_h = max over sequences, queries and keys of q_i·k_j / √D
    γ_h = min(1, τ / S_h)        what to multiply the head's scores by after an optimizer step

The factor goes into the projections: √γ_h into query's and key's, or, where heads share a key head, γ_h into the
query's alone.

Kimi Team, Kimi K2: Open Agentic Intelligence, 2025, https://arxiv.org/abs/2507.20534
"""

from __future__ import annotations

import numpy as np

import sightline


def largest_scores(query: np.ndarray, key: np.ndarray) -> np.ndarray:
    """S: (Hq,), of query (B, Hq, L, D) and key (B, Hkv, L, D)."""
    seen = sightline.look_only(query, key, causal=True, see=("max_score",))
    largest: np.ndarray = seen.max_score.max(axis=(0, 2))
    return largest


def factors(query: np.ndarray, key: np.ndarray, tau: float = 100.0) -> np.ndarray:
    """γ: (Hq,)."""
    gamma: np.ndarray = tau / np.maximum(largest_scores(query, key), tau)
    return gamma


def main() -> None:
    """Two sequences, eight heads that share two key heads; one head has grown too large."""
    rng = np.random.default_rng(0)
    query, key = (rng.standard_normal((2, heads, 512, 64), dtype=np.float32) for heads in (8, 2))
    query[:, 5] *= 40
    gamma = factors(query, key)
    print("largest score", np.round(largest_scores(query, key), 1))
    print("factor       ", np.round(gamma, 3))
    print("largest after", np.round(largest_scores(query * gamma[:, None, None], key), 1))


if __name__ == "__main__":
    main()
