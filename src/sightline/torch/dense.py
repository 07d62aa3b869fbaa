"""Attention in plain PyTorch operations, with the weights in full: any derivative of any order, in O(L²) memory.

The kernels have first derivatives, taken backward. Those of the second order, and forward ones, are taken here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sightline.reference_dropout import kept_or_not

if TYPE_CHECKING:
    from sightline.torch.call import Call


def attention(call: Call) -> tuple[Any, Any, Any]:
    """The output, lse and weights (…, Hq, Lq, Lk) of a call, the latter two in float32 or wider."""
    query, key, value = (heads_first(x, call.layout) for x in call[:3])
    wide = torch.promote_types(query.dtype, torch.float32)
    heads, kv_heads = query.shape[-3], key.shape[-3]
    batch = torch.broadcast_shapes(*(x.shape[:-3] for x in (query, key, value)))
    seen = _visible(call, query.shape[-2], key.shape[-2], query.device)
    seen = seen.expand(*batch, heads, query.shape[-2], key.shape[-2])

    # What no query sees may be NaN, and a weight of 0 does not hide that in a product.
    anyone = seen.any(-2).unflatten(-2, (kv_heads, heads // kv_heads)).any(-2)[..., None]  # (…, Hkv, Lk, 1)
    key, value = (torch.where(anyone, x.to(wide), 0.0) for x in (key, value))

    grouped = query.to(wide).unflatten(-3, (kv_heads, -1))  # (…, Hkv, G, Lq, D)
    scores = (grouped @ key.unsqueeze(-3).transpose(-2, -1)).flatten(-4, -3) * _scale(call)
    weights, lse = _softmax(_modified(call, scores).masked_fill(~seen, -torch.inf), call.sinks)
    used = weights * _kept(call, weights.shape).to(wide) if call.dropout_p else weights
    output = used.unflatten(-3, (kv_heads, -1)) @ value.unsqueeze(-3)
    output = output.flatten(-4, -3).to(query.dtype)
    if call.query.dim() == 2:
        return output[0], lse[0], weights[0]
    return (output.transpose(-3, -2) if call.layout == "BLHD" else output), lse, weights


def heads_first(x: Any, layout: str) -> Any:
    """(…, H, L, D)."""
    if x.dim() == 2:
        return x[None]
    return x.transpose(-3, -2) if layout == "BLHD" else x


def _scale(call: Call) -> Any:
    return call.query.shape[-1] ** -0.5 if call.scale is None else call.scale


def _modified(call: Call, scores: Any) -> Any:
    """Softcap, then bias, then ALiBi."""
    if call.softcap is not None:
        scores = call.softcap * torch.tanh(scores / call.softcap)
    if call.bias is not None:
        scores = scores + call.bias.to(scores.dtype)
    if call.alibi_slopes is not None:
        j = torch.arange(scores.shape[-1], device=scores.device)
        away = (_positions(call, scores.shape[-2], scores.device) - j).abs()
        scores = scores - call.alibi_slopes.to(scores.dtype)[:, None, None] * away
    return scores


def _softmax(scores: Any, sinks: Any) -> tuple[Any, Any]:
    """Weights and lse; rows of −∞ alone have weights 0, and so have their derivatives."""
    sink = None if sinks is None else sinks.to(scores.dtype)[:, None]  # (Hq, 1)
    top = scores.detach().amax(-1) if scores.shape[-1] else scores.detach().sum(-1) - torch.inf
    top = top if sink is None else torch.maximum(top, sink.detach())
    top = torch.where(top == -torch.inf, 0.0, top)
    weights = torch.exp(scores - top[..., None])
    total = weights.sum(-1) if sink is None else weights.sum(-1) + torch.exp(sink - top)
    some = total != 0  # also where it is NaN
    total = torch.where(some, total, 1.0)
    return weights / total[..., None], torch.where(some, top + torch.log(total), -torch.inf)


def _kept(call: Call, shape: tuple[int, ...]) -> Any:
    """What dropout multiplies the weights by: constants, that have no derivative."""
    (*batch, heads, rows, keys), seed = shape, call.seed_number()
    made = [
        kept_or_not(seed, call.dropout_p, sequence, head, rows, keys)
        for sequence in range(math.prod(batch))
        for head in range(heads)
    ]
    return torch.from_numpy(np.reshape(made, shape))


def _visible(call: Call, rows: int, keys: int, device: Any) -> Any:
    """Who may see whom, broadcasting to (…, Hq, Lq, Lk)."""
    p, j = _positions(call, rows, device), torch.arange(keys, device=device)
    seen = torch.ones((), dtype=torch.bool, device=device).expand(rows, keys)
    if call.causal:
        seen = seen & (j <= p)
    if call.left is not None:
        seen = seen & (j >= p - call.left)
    if call.right is not None:
        seen = seen & (j <= p + call.right)
    if call.key_length is not None:
        seen = seen & (j < call.key_length)
    if call.key_lengths is not None:
        seen = seen & (j < call.key_lengths[..., None, None, None])
    return seen if call.mask is None else seen & call.mask


def _positions(call: Call, rows: int, device: Any) -> Any:
    """Where each query stands among the keys: (…, 1, Lq, 1), or (Lq, 1) for all sequences."""
    p = torch.arange(rows, device=device)[:, None]
    if call.query_offsets is not None:
        return call.query_offsets[..., None, None, None] + p
    return p + (call.query_offset or 0)
