"""Calls of PyTorch's function and of models, on tensors that nobody follows: straight to the kernel.

A tiny call is all overhead, and PyTorch's own takes 3.6 µs. What a call of a given form needs is looked up by that
form; what is left is to get memory for the output and to pass addresses. Inside of a model every instruction of
this costs ten times as much: meanwhile the weights of a layer have gone through the caches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import forward_ad

from sightline.arrays.torch_tensors import TYPES
from sightline.calls import Ready, ready
from sightline.cpu import isa

if TYPE_CHECKING:
    from collections.abc import Hashable

_known: dict[Hashable, Known] = {}
MOST_KNOWN = 1024
NUMBERS = (type(None), float, int)
ROWS_FIRST = "rows first"

# Looked up once: the calls below are what a tiny call's time is made of.
_dispatch_modes, _function_modes = torch._C._len_torch_dispatch_stack, torch._C._len_torch_function_stack
_transforms, _autocast = torch._C._are_functorch_transforms_active, torch._C._is_any_autocast_enabled
_grad = torch.is_grad_enabled


def form(q: Any, k: Any, v: Any, mask: Any, is_causal: Any, scale: Any, way: Any) -> Hashable:
    """All that a call depends on but numbers; None where a tensor may be followed (`arrays.torch_tensors`).

    `way` tells apart who asks: `enable_gqa`, or ROWS_FIRST.
    """
    if not (type(q) in TYPES and type(k) in TYPES and type(v) in TYPES and type(scale) in NUMBERS):
        return None
    if _grad() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return None
    if (
        _dispatch_modes()
        or _function_modes()
        or _transforms()
        or _autocast()
        or forward_ad._current_level >= 0
    ):
        return None
    masked = None
    try:
        if mask is not None:
            if type(mask) not in TYPES or (_grad() and mask.requires_grad):
                return None
            masked = (mask.shape, mask.stride(), mask.dtype, mask.is_cpu, mask.is_neg())
        return (
            isa.word(),
            is_causal,
            type(is_causal),  # 1 == True, but is_causal=1 is an error
            scale,
            way,
            masked,
            (q.shape, k.shape, v.shape, q.stride(), k.stride(), v.stride(), q.dtype, k.dtype, v.dtype),
            (q.is_cpu, k.is_cpu, v.is_cpu, q.is_neg(), k.is_neg(), v.is_neg()),
        )
    except RuntimeError:  # sparse and nested tensors have no strides
        return None


class Known:
    """A call of one form."""

    __slots__ = ("_boolean", "_call", "_shape")

    def __init__(self, call: Ready, shape: tuple[int, ...] | None, *, boolean: bool) -> None:
        self._call, self._shape, self._boolean = call, shape, boolean

    def __call__(self, query: Any, key: Any, value: Any, attn_mask: Any) -> Any:
        """The output, for tensors of that form; None if one has no memory: it is empty, or stands for zeros."""
        q, k, v, mask, bias = query.data_ptr(), key.data_ptr(), value.data_ptr(), 0, 0
        if attn_mask is not None:
            address = attn_mask.data_ptr()
            mask, bias = (address, 0) if self._boolean else (0, address)
            if not address:
                return None
        if not (q and k and v):
            return None
        output = torch.empty_like(query) if self._shape is None else query.new_empty(self._shape)
        addresses = (q, k, v, mask, bias, 0, 0, output.data_ptr())
        self._call.at(addresses, (query, key, value, attn_mask, output))
        return output


def known(form: Hashable) -> Known | None:
    """The call of this form, if it was learned."""
    return _known.get(form)


def learn(
    form: Hashable, arrays: tuple[Any, Any, Any], attn_mask: Any, output: Any, *, causal: bool, scale: Any
) -> None:
    """Be quick about calls of this form from now on; `output` is what the first one gave."""
    query, key, value = arrays
    alike = output.shape == query.shape and output.stride() == torch.empty_like(query).stride()
    if not output.is_cpu or not (alike or output.is_contiguous()):
        return
    shape = None if alike else tuple(output.shape)
    _remember(form, (query, key, value), attn_mask, output, (causal, scale, "BHLD"), shape)


def rows_first(query: Any, key: Any, value: Any, mask: Any, *, causal: bool, scale: Any) -> Any:
    """The output (B, Lq, Hq, Dv) of tensors (B, H, L, D), as models have it; None where a tensor may be followed.

    The mask may hold booleans, or floats that are added to the scores.
    """
    if torch.compiler.is_compiling():
        return None
    found = form(query, key, value, mask, causal, scale, ROWS_FIRST)
    if found is None:
        return None
    known = _known.get(found)
    if known is None:
        if not (query.is_cpu and key.is_cpu and value.is_cpu and (mask is None or mask.is_cpu)):
            return None
        arrays = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        known = _remember(found, arrays, mask, None, (causal, scale, "BLHD"), None)
    return known(query, key, value, mask)


def _remember(
    form: Hashable,
    arrays: tuple[Any, Any, Any],
    attn_mask: Any,
    output: Any,
    how: tuple[bool, Any, str],
    shape: tuple[int, ...] | None,
) -> Known:
    """Learn a call; `output` is an array of the form it has to have, or None where rows come first."""
    causal, scale, layout = how
    boolean = attn_mask is not None and attn_mask.dtype == torch.bool
    mask, bias = (attn_mask, None) if boolean else (None, attn_mask)
    operands = (*arrays, mask, bias, None, None, output)
    options = (causal, None, 0 if causal else None, None, scale, None, layout, "highest", 0.0)
    call, _ = ready(operands, options, None)
    if len(_known) >= MOST_KNOWN:
        _known.clear()
    known = _known[form] = Known(call, call.shape if output is None else shape, boolean=boolean)
    return known
