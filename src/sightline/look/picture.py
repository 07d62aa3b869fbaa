"""Picture: what one look at a call found, as plain arrays: the data between computing and drawing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sightline.see import TopKeys

Floats = NDArray[np.float32]
Ints = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Picture:
    """What one look at a call found: everything that the terminal, the PNG and the page draw.

    H is the number of heads, Lq of queries, Lk of keys. What is None was not asked for, and no drawing has it.
    """

    title: str
    """What was looked at, as in "minilm_qkv.npz"."""
    heads: tuple[str, ...]
    """The names of the H heads."""
    queries: int
    """Lq."""
    keys: int
    """Lk."""
    query_tokens: tuple[str, ...] | None = None
    """Lq labels; None for numbers. In self-attention the same object as `key_tokens`."""
    key_tokens: tuple[str, ...] | None = None
    """Lk labels; None for numbers."""
    offset: int = 0
    """Query i stands at key position offset + i."""
    entropy: Floats | None = None
    """(H, Lq): −Σ w · log w, nats."""
    received: Floats | None = None
    """(H, Lk): the sum over the queries of the weight that each key received."""
    top_keys: TopKeys | None = None
    """Indices and weights, each (H, Lq, k), of the k largest weights; −1 and 0 where a query sees fewer keys."""
    pooled: Floats | None = None
    """(H, R, C), R and C ≤ 256: the weights summed in blocks, query i in block i·R // Lq, key j in j·C // Lk.

    They are the weights themselves where R = Lq and C = Lk.
    """
    fine: Floats | None = None
    """(H, R2, C2): the same in smaller blocks, for zooming; None where `pooled` has the weights themselves."""
    lse: Floats | None = None
    """(H, Lq): log-sum-exp, nats."""
    max_score: Floats | None = None
    """(H, Lq): the largest score."""
    distance: Floats | None = None
    """(H, Lq): Σ w · |p − j|, positions."""
    options: tuple[str, ...] = ()
    """What ran, in words, for the caption: ("causal", "window (256, 0)")."""
    visible: Ints | None = None
    """(H, Lq): how many keys each query may see."""
