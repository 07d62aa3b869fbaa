"""KVzip: which keys a context cannot do without, whatever will be asked: those needed to repeat it.

    the context's keys are in the cache; the model reads "repeat this", and the context once more
    score_j = max_i w_ij        i over that second reading and the query heads of the key head
    drop      the keys of the smallest score

Kim et al., KVzip: Query-Agnostic KV Cache Compression with Context Reconstruction, 2025,
https://arxiv.org/abs/2505.23416
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import sightline


def scores(query: np.ndarray, cached: np.ndarray, repeated: np.ndarray) -> np.ndarray:
    """The largest weight of each cached key: (…, Hkv, Lk).

    Queries (…, Hq, Lq, D) and keys `repeated` (…, Hkv, Lq, D) are the second reading's, `cached` (…, Hkv, Lk, D)
    the context's.
    """
    *stack, key_heads, length, _ = cached.shape
    largest = sightline.See(received=sightline.Received(reduce="max"))
    key = np.concatenate([cached, repeated], axis=-2)
    seen = sightline.look_only(query, key, causal=True, query_offset=length, see=largest)
    of_heads: np.ndarray = seen.received[..., :length]  # (…, Hq, Lk)
    of_groups: np.ndarray = of_heads.reshape(*stack, key_heads, -1, length).max(axis=-2)
    return of_groups


def main() -> None:
    """One layer of MiniLM, which reads its page once more."""
    page = np.load(Path(__file__).with_name("minilm_qkv.npz"))
    needed = scores(page["query"], page["key"], page["key"])
    for head in (1, 4, 10):
        least, *_, most = np.argsort(needed[head], kind="stable")
        print(
            f"head {head}: first to drop {page['tokens'][least]} ({needed[head, least]:.1%}), "
            f"last {page['tokens'][most]} ({needed[head, most]:.1%})"
        )


if __name__ == "__main__":
    main()
