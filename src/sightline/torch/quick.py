"""Calls of PyTorch's function that were made before, on tensors that nobody follows: straight to the kernel.

A tiny call is all overhead, and PyTorch's own takes 3.6 µs. What a call of a given form needs is looked up by that
form; what is left is to get memory for the output and to pass addresses.
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

# Looked up once: the calls below are what a tiny call's time is made of.
_dispatch_modes, _function_modes = torch._C._len_torch_dispatch_stack, torch._C._len_torch_function_stack
_transforms, _autocast = torch._C._are_functorch_transforms_active, torch._C._is_any_autocast_enabled
_grad = torch.is_grad_enabled


def form(q: Any, k: Any, v: Any, mask: Any, is_causal: Any, scale: Any, enable_gqa: Any) -> Hashable:
    """All that a call depends on but numbers; None where a tensor may be followed (`arrays.torch_tensors`)."""
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
            enable_gqa,
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
    boolean = attn_mask is not None and attn_mask.dtype == torch.bool
    mask, bias = (attn_mask, None) if boolean else (None, attn_mask)
    operands = (query, key, value, mask, bias, None, None, output)
    options = (causal, None, 0 if causal else None, None, scale, None, "BHLD", "highest", 0.0)
    call, _ = ready(operands, options, None)
    if len(_known) >= MOST_KNOWN:
        _known.clear()
    _known[form] = Known(call, None if alike else tuple(output.shape), boolean=boolean)
