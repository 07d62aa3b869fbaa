"""MInference: which columns and diagonals of a long prompt's attention matter, judged by its last queries.

    vertical_j = Σ_i w_ij                     i among the last 64 queries, at positions p
    slash_d    = Σ_i w_ij where p − j = d
    compute      the best columns and diagonals, and always the first 30 keys and the nearest 100

Jiang et al., MInference 1.0: Accelerating Pre-filling for Long-Context LLMs via Dynamic Sparse Attention, 2024,
https://arxiv.org/abs/2407.02490
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import sightline


def vertical_and_slash(query: np.ndarray, key: np.ndarray, last: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Σ over each column, and over each diagonal by its distance p − j: both (…, Hq, L)."""
    length = key.shape[-2]
    seen = sightline.look_only(
        query[..., -last:, :], key, causal=True, query_offset=length - last, see=("received", "diagonals")
    )
    # Place n is j − i = n − (last − 1), and p = i + length − last: so p − j = length − 1 − n.
    return seen.received, seen.diagonals[..., length - 1 :: -1]


def largest(sums: np.ndarray, count: int, always: int) -> np.ndarray:
    """Where the `count` largest sums are, the first `always` among them, in order."""
    sums = sums.copy()
    sums[..., :always] = np.inf
    return np.sort(np.argsort(-sums, axis=-1, kind="stable")[..., :count])


def main() -> None:
    """One layer of MiniLM, as if it read from left to right: head 9 looks at the token before."""
    page = np.load(Path(__file__).with_name("minilm_qkv.npz"))
    vertical, slash = vertical_and_slash(page["query"], page["key"])
    for head in (4, 9):
        columns, distances = largest(vertical[head], 6, always=0), largest(slash[head], 3, always=0)
        print(f"head {head}: columns", *page["tokens"][columns], "· distances", *distances)


if __name__ == "__main__":
    main()
