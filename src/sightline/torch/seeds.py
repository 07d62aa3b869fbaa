"""The seed of a call with dropout: a tensor beside the others, drawn from PyTorch's generator if none is given.

Because it is an input of the operator, all that PyTorch does with random numbers holds: torch.manual_seed repeats
them, torch.utils.checkpoint restores them, compiled code draws new ones each time, and backward has forward's.
"""

from __future__ import annotations

from typing import Any

import torch

from sightline.options import check_dropout, check_seed, describe


def drawn(device: Any = "cpu") -> Any:
    """A seed from PyTorch's generator, an int64 tensor ()."""
    return torch.randint(0, 2**63 - 1, (), dtype=torch.int64, device=device)


def drawn_if_needed(options: dict[str, Any]) -> dict[str, Any]:
    """The door's options, with a seed where it would ask for one."""
    dropout_p = options.get("dropout_p", 0.0)
    if options.get("seed") is not None or (type(dropout_p) is float and not dropout_p):
        return options
    return {**options, "seed": int(drawn())} if check_dropout(dropout_p) else options


def as_tensor(seed: Any, dropout_p: float, device: Any) -> Any:
    """The seed as an int64 tensor (), a new one if it is None; None where nothing is dropped."""
    if not torch.compiler.is_compiling():
        dropout_p = check_dropout(dropout_p)
    if seed is None:
        return drawn(device) if dropout_p else None
    if not isinstance(seed, torch.Tensor):
        number = check_seed(seed, dropout_p)
        if not dropout_p:
            return None
        number -= 2**64 if number >= 2**63 else 0
        return torch.full((), number, dtype=torch.int64, device=device)
    if seed.dim() or seed.dtype.is_floating_point or seed.dtype == torch.bool:
        raise TypeError(
            f"seed is {describe(seed)}; expected an int from 0 to 2**64 − 1, or a tensor () of integers; "
            f"try seed=0."
        )
    return seed if dropout_p else None
