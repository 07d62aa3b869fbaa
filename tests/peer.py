"""PyTorch's answer to a conformance case in the same type: its error is the yardstick for ours."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import reference
from sightline.reference_call import Call, heads_first, read

if TYPE_CHECKING:
    from cases import Array, Inputs

try:
    import torch
except ImportError:  # the tests run without it, on the rounding bound alone
    torch = None


def torch_attention(inputs: Inputs) -> Array | None:
    """`scaled_dot_product_attention` of the same inputs, as float64, where it has an answer."""
    call = read(inputs.query, inputs.key, inputs.value, **inputs.options)
    if torch is None or not has_answer(call, inputs):
        return None
    tensors = [as_tensor(x) for x in (call.query, call.key, call.value)]
    return as_called(_attention(call, tensors), call)


def torch_gradients(inputs: Inputs, d_output: Array) -> dict[str, Array]:
    """Its gradients of query, key and value, where it has an answer, and no array is broadcast."""
    call = read(inputs.query, inputs.key, inputs.value, **inputs.options)
    arrays = {"query": call.query, "key": call.key, "value": call.value}
    if torch is None or not has_answer(call, inputs):
        return {}
    if any(math.prod(call.shapes[name]) != x.size for name, x in arrays.items()):
        return {}
    tensors = [as_tensor(x).requires_grad_() for x in arrays.values()]
    cotangent = as_tensor(heads_first(d_output, call.problem))
    made = torch.autograd.grad(_attention(call, tensors), tensors, cotangent)
    return {name: as_called(x, call) for name, x in zip(arrays, made, strict=True)}


def _attention(call: Call, tensors: list[Any]) -> Any:
    return torch.nn.functional.scaled_dot_product_attention(
        *tensors,
        attn_mask=torch_mask(call),
        scale=call.problem.scale,
        enable_gqa=call.problem.group > 1,
    )


def as_called(x: Any, call: Call) -> Array:
    """A (B, H, L, D) tensor as float64 in the caller's layout."""
    canonical = x.detach().to(torch.float64).numpy().reshape((*call.problem.batch, *x.shape[-3:]))
    return reference.in_layout(canonical, call.problem)


def has_answer(call: Call, inputs: Inputs) -> bool:
    """Whether PyTorch has all the options, in the same precision, and finite numbers in and out."""
    if call.sinks is not None or call.problem.softcap is not None or call.alibi_slopes is not None:
        return False
    if call.problem.dropout_p:  # it drops other weights
        return False
    if call.bias is not None and (call.bias.dtype != inputs.query.dtype or not (call.bias < np.inf).all()):
        return False
    finite = all(np.isfinite(x.astype(float)).all() for x in (inputs.query, inputs.key, inputs.value))
    return finite and min(*call.query.shape, *call.key.shape) > 0


def torch_mask(call: Call) -> Any:
    """All that says who may see whom as one mask, or with a bias as one bias: (B, Hq, Lq, Lk)."""
    problem = call.problem
    may = np.ones((*problem.batch, problem.heads, problem.queries, problem.keys), bool)
    j = np.arange(problem.keys)[None, :]
    for index in np.ndindex(may.shape[:-2]):
        p = call.offsets[index[:-1]] + np.arange(problem.queries)[:, None]
        may[index] = reference.allowed(call, index, p, j)
    if call.bias is None:
        return None if may.all() else as_tensor(may)
    return as_tensor(np.where(may, call.bias, np.array(-np.inf, call.bias.dtype)))


def as_tensor(x: Array) -> Any:
    """A (B, H, L, D) tensor of the same numbers."""
    x = np.ascontiguousarray(x).reshape((-1, *x.shape[-3:]))
    if x.dtype.name == "bfloat16":
        return torch.from_numpy(x.view(np.uint16).copy()).view(torch.bfloat16)
    return torch.from_numpy(x.copy())
