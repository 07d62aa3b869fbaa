"""Attention sinks: keys that nearly every query looks at, whatever they mean.

    α_j = Σ_i w_ij / (number of queries that see key j)        of each head
    a sink is a key with α_j > ε, by default 0.3

StreamingLLM keeps the keys of the first tokens for their sake.

Xiao et al., Efficient Streaming Language Models with Attention Sinks, 2023, https://arxiv.org/abs/2309.17453; the
measure is from Gu et al., When Attention Sink Emerges in Language Models, 2024, https://arxiv.org/abs/2410.10781
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import sightline


def mean_received(query: np.ndarray, key: np.ndarray, *, causal: bool) -> np.ndarray:
    """α: (…, Hq, Lk)."""
    mean = sightline.Received(normalize=True)
    seen = sightline.look_only(query, key, causal=causal, see=sightline.See(received=mean))
    alpha: np.ndarray = seen.received
    return alpha


def sinks(query: np.ndarray, key: np.ndarray, *, causal: bool, epsilon: float = 0.3) -> np.ndarray:
    """Which keys are sinks of which heads: booleans (…, Hq, Lk)."""
    return mean_received(query, key, causal=causal) > epsilon


def main() -> None:
    """One layer of MiniLM, which sees both ways and ends on [SEP]; a lower bar, for this early layer."""
    page = np.load(Path(__file__).with_name("minilm_qkv.npz"))
    alpha = mean_received(page["query"], page["key"], causal=False)
    for head, j in np.argwhere(sinks(page["query"], page["key"], causal=False, epsilon=0.05)):
        print(f"head {head}: {page['tokens'][j]} (key {j}) receives {alpha[head, j]:.1%} of each query")


if __name__ == "__main__":
    main()
