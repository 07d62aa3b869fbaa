"""Calls on tensors for the tests of sightline.torch: small ones with every option."""

from __future__ import annotations

from typing import Any

import torch


def randn(*shape: int, seed: int = 0, dtype: Any = torch.float64) -> Any:
    """Normal numbers that follow from the shape and the seed."""
    generator = torch.Generator().manual_seed(seed + 1000 * len(shape) + sum(shape))
    return torch.randn(*shape, generator=generator, dtype=dtype)


def three(dtype: Any = torch.float64, *, grad: bool = False) -> tuple[Any, Any, Any]:
    """Two sequences, four query heads on two key heads, 3 queries, 5 keys, D = 4, Dv = 3."""
    shapes = ((2, 4, 3, 4), (2, 2, 5, 4), (2, 2, 5, 3))
    query, key, value = (
        randn(*shape, seed=i, dtype=dtype).requires_grad_(grad) for i, shape in enumerate(shapes)
    )
    return query, key, value


DARK = torch.tensor([[False] * 5, [True, True, False, True, False], [False, True, True, True, True]])
"""A mask of which one row sees nothing."""

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scale": {"scale": -0.3},
    "causal": {"causal": True, "query_offset": 1},
    "causal with empty rows": {"causal": True, "query_offset": -2},
    "window": {"window": (1, 0), "query_offset": torch.tensor([0, 2])},
    "window open to the left": {"window": (None, 1), "query_offset": 0},
    "key lengths": {"key_lengths": [0, 3]},
    "one key length": {"key_lengths": 4},
    "mask": {"mask": DARK},
    "bias": {"bias": randn(2, 4, 3, 5)},
    "bias by head": {"bias": randn(4, 1, 1)},
    "bias by key": {"bias": randn(5)},
    "bias that hides": {"bias": torch.where(randn(4, 3, 5) > 0.8, -torch.inf, randn(4, 3, 5))},
    "softcap": {"softcap": 0.7},
    "softcap and bias": {"softcap": 0.7, "bias": randn(3, 5), "mask": DARK},
    "sinks": {"sinks": randn(4)},
    "sinks and empty rows": {"sinks": randn(4), "mask": DARK},
    "alibi": {"alibi_slopes": randn(4), "query_offset": 1},
    "everything": {
        "mask": DARK,
        "bias": randn(1, 4, 3, 5),
        "causal": True,
        "window": (3, 0),
        "query_offset": torch.tensor([2, 1]),
        "key_lengths": torch.tensor([5, 4]),
        "scale": 0.4,
        "softcap": 2.0,
        "sinks": randn(4),
        "alibi_slopes": randn(4, seed=1),
        "dropout_p": 0.3,
        "seed": 2**63 + 1,
    },
}
