"""What torch.nn.functional.scaled_dot_product_attention accepts, and how it pairs heads and batches.

Errors are those of PyTorch for the same misuse, in type and in first words, and then say what to try.
"""

from __future__ import annotations

from typing import Any

import torch

NAME = "scaled_dot_product_attention"


def check(query: Any, key: Any, value: Any, attn_mask: Any, dropout_p: Any, is_causal: Any) -> None:
    """Types, dtypes, devices and ranks; what is wrong is a TypeError or a RuntimeError."""
    named = {"query": query, "key": key, "value": value}
    for position, (name, x) in enumerate(named.items(), 1):
        if not isinstance(x, torch.Tensor):
            raise TypeError(
                f"{NAME}(): argument '{name}' (position {position}) must be Tensor, not {type(x).__name__}"
            )
    if not (attn_mask is None or isinstance(attn_mask, torch.Tensor)):
        raise TypeError(
            f"{NAME}(): argument 'attn_mask' (position 4) must be Tensor, not {type(attn_mask).__name__}"
        )
    if not isinstance(is_causal, bool):
        raise TypeError(f"{NAME}(): argument 'is_causal' must be bool, not {type(is_causal).__name__}")
    if not 0 <= dropout_p <= 1:
        raise RuntimeError(f"dropout probability has to be between 0 and 1, but got {dropout_p}")
    _check_alike(named, attn_mask)
    if attn_mask is not None and is_causal:
        raise RuntimeError(
            f"{NAME}: Explicit attn_mask should not be set when is_causal=True; "
            f"try attn_mask & torch.ones(L, S, dtype=torch.bool).tril()."
        )


def refuse_nested(*tensors: Any) -> None:
    """Their own implementation would take the call away from us, without a word."""
    for x in tensors:
        if getattr(x, "is_nested", False):
            raise RuntimeError(
                "a nested tensor was given, for which sightline has no kernel; expected dense tensors; "
                "try to_padded_tensor(0.0) and an attn_mask."
            )


def _check_alike(named: dict[str, Any], attn_mask: Any) -> None:
    """One dtype, one device, dense, two axes or more."""
    tensors = named.values()
    for what, same in (("dtype", {x.dtype for x in tensors}), ("device type", {x.device for x in tensors})):
        if len(same) > 1:
            attribute = what.partition(" ")[0]
            came = " ".join(f"{name}.{attribute}: {getattr(x, attribute)}" for name, x in named.items())
            raise RuntimeError(
                f"Expected query, key, and value to have the same {what}, but got {came} instead."
            )
    for name, x in named.items():
        if x.layout is not torch.strided:
            form = str(x.layout).removeprefix("torch.")
            raise RuntimeError(f"{name} is a {form} tensor; expected a dense one; try {name}.to_dense().")
        if x.device.type not in {"cpu", "meta"}:
            raise NotImplementedError(
                f"{name} is on {x.device}, for which sightline has no kernel yet; expected the CPU: "
                f"try {name}.cpu()."
            )
    query = named["query"]
    if not query.dtype.is_floating_point:
        raise RuntimeError(f"expected scalar type Float but found {query.dtype}; try query.float().")
    if min(x.dim() for x in tensors) < 2:
        came = " ".join(f"{name}.dim: {x.dim()}" for name, x in named.items())
        raise RuntimeError(
            f"Expected query, key, and value to all be at least 2 dimensional, but got {came} instead."
        )
    if attn_mask is not None and attn_mask.dtype not in {torch.bool, torch.float32, query.dtype}:
        raise RuntimeError(
            f"Expected attn_mask dtype to be bool or float or to match query dtype, but got attn_mask.dtype: "
            f"{attn_mask.dtype} and query.dtype: {query.dtype} instead."
        )


def check_mask(attn_mask: Any, query: Any, key: Any, value: Any) -> None:
    """It broadcasts to the weights of these three, as `paired` gave them."""
    batch = torch.broadcast_shapes(*(x.shape[:-3] for x in (query, key, value)))
    weights = (*batch, *query.shape[-3:-1], key.shape[-2])
    if attn_mask.dim() > len(weights) or any(
        size not in {1, whole}
        for size, whole in zip(reversed(attn_mask.shape), reversed(weights), strict=False)
    ):
        raise RuntimeError(
            f"attn_mask has shape {tuple(attn_mask.shape)}, which does not broadcast to the weights' {weights}; "
            f"the last two sizes are those of queries and keys, or 1."
        )


def paired(query: Any, key: Any, value: Any, *, enable_gqa: bool) -> tuple[Any, Any, Any]:
    """The three with one rank and with heads as sightline pairs them: Hq a multiple of Hkv.

    Without `enable_gqa` PyTorch knows no heads: the axis before the last two broadcasts like those before it.
    """
    if query.shape[-1] != key.shape[-1]:
        raise RuntimeError(
            f"query and key must have the same last dimension, but got {query.shape[-1]} and {key.shape[-1]}."
        )
    if key.shape[-2] != value.shape[-2]:
        raise RuntimeError(
            f"key and value must have the same length, but got {key.shape[-2]} and {value.shape[-2]}."
        )
    if enable_gqa:
        key, value = _grouped(query, key, value)
    rank = max(query.dim(), key.dim(), value.dim())
    query, key, value = (x[(None,) * (rank - x.dim())] for x in (query, key, value))
    _check_broadcast((query, key, value), heads=not enable_gqa)
    if rank == 2 or enable_gqa:
        return query, key, value
    heads = torch.broadcast_shapes(query.shape[-3:-2], key.shape[-3:-2], value.shape[-3:-2])[0]
    shared = heads != 0 and key.shape[-3] == value.shape[-3] == 1
    return _with_heads(query, heads), *(x if shared else _with_heads(x, heads) for x in (key, value))


def _grouped(query: Any, key: Any, value: Any) -> tuple[Any, Any]:
    """Key and value with one number of heads, which divides the query's."""
    if min(x.dim() for x in (query, key, value)) < 3:
        raise IndexError(
            "Dimension out of range: enable_gqa=True needs a head axis, (…, heads, length, size); "
            "try x[None], or enable_gqa=False."
        )
    heads, kv_heads = query.shape[-3], (key.shape[-3], value.shape[-3])
    if 0 in kv_heads or any(heads % n for n in kv_heads):
        raise RuntimeError(
            f"Number of heads in key and value must divide the number of heads in query, but got "
            f"{kv_heads[0]} and {kv_heads[1]} for {heads}."
        )
    if kv_heads[0] == kv_heads[1]:
        return key, value
    return tuple(x.repeat_interleave(heads // x.shape[-3], -3) for x in (key, value))


def _check_broadcast(tensors: tuple[Any, ...], *, heads: bool) -> None:
    """Every axis before the last two (three, where heads are grouped) is equal or 1."""
    rank, last = tensors[0].dim(), 2 if heads else 3
    for axis in range(rank - last):
        sizes = [x.shape[axis] for x in tensors]
        many = [n for n in sizes if n != 1]
        if any(n != many[0] for n in many):
            other = next(n for n in many if n != many[0])
            hint = "; try enable_gqa=True if query heads share key heads" if axis == rank - 3 else ""
            raise RuntimeError(
                f"The size of tensor a ({many[0]}) must match the size of tensor b ({other}) at "
                f"non-singleton dimension {axis}{hint}."
            )


def _with_heads(x: Any, heads: int) -> Any:
    """The same tensor with its head axis stretched, without a copy."""
    return x if x.shape[-3] == heads else x.expand(*x.shape[:-3], heads, -1, -1)
