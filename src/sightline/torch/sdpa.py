"""torch.nn.functional.scaled_dot_product_attention by sightline's kernels: same signature, same meaning."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.attention.bias import CausalBias, CausalVariant
from torch.overrides import handle_torch_function, has_torch_function

from sightline.torch import quick, sdpa_rules
from sightline.torch.attention import attention, autocast

ORIGINAL = torch.nn.functional.scaled_dot_product_attention


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """softmax(query · keyᵀ · scale + attn_mask) · value: what torch.nn.functional's function of this name gives.

    Args:
        query: (…, Hq, L, D), (…, L, D) or (L, D) on the CPU; float64, float32, float16 or bfloat16.
        key: (…, H, S, D), same dtype. Axes before the last two broadcast.
        value: (…, H, S, Dv), same dtype.
        attn_mask: broadcasts to (…, Hq, L, S): boolean, True = may attend; or floats that are added to the
            scores, in float32 or the query's dtype. Also torch.nn.attention.bias.causal_lower_right and
            causal_upper_left.
        dropout_p: probability, 0 to 1, with which a weight is dropped; the others are divided by 1 − dropout_p. A
            seed is drawn from PyTorch's generator; what it drops is not what PyTorch would drop.
        is_causal: query i sees the keys up to i (top-left, whatever L and S).
        scale: multiplies query · key. Default 1/√D.
        enable_gqa: query head h reads key head h // (Hq / H).

    Returns:
        (…, Hq, L, Dv) in the query's dtype, and in its order of axes in memory where Dv = D, as PyTorch's. Rows
        that may see no key are 0, as PyTorch's.

    Raises:
        RuntimeError, TypeError, IndexError: as PyTorch for the same misuse. NotImplementedError: the tensors are
            not on the CPU.

    Example:
        >>> import torch, sightline.torch
        >>> q, k, v = torch.randn(3, 2, 8, 100, 64)
        >>> ours = sightline.torch.scaled_dot_product_attention(q, k, v, is_causal=True)
        >>> theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        >>> torch.testing.assert_close(ours, theirs)
    """
    form = None
    if not (dropout_p or torch.compiler.is_compiling()):
        form = quick.form(query, key, value, attn_mask, is_causal, scale, enable_gqa)
        known = quick.known(form)
        output = known and known(query, key, value, attn_mask)
        if output is not None:
            return output
    sdpa_rules.refuse_nested(query, key, value)
    query, key, value = autocast(query, key, value)
    if type(attn_mask) is CausalBias:
        offset = _causal_offset(query, key, attn_mask, dropout_p, is_causal=is_causal)
        return _attend(query, key, value, None, offset, scale, dropout_p, enable_gqa=enable_gqa)
    if has_torch_function((query, key, value, attn_mask)):
        return handle_torch_function(
            scaled_dot_product_attention,
            (query, key, value, attn_mask),
            *(query, key, value, attn_mask, dropout_p, is_causal),
            scale=scale,
            enable_gqa=enable_gqa,
        )
    sdpa_rules.check(query, key, value, attn_mask, dropout_p, is_causal)
    start = 0 if is_causal else None
    output = _attend(query, key, value, attn_mask, start, scale, dropout_p, enable_gqa=enable_gqa)
    if form is not None and query.dim() == key.dim() == value.dim() > 2:
        heads, *others = (x.shape[-3] for x in (query, key, value))
        if others[0] == others[1] and (enable_gqa or heads == others[0] > 0):
            quick.learn(form, (query, key, value), attn_mask, output, causal=is_causal, scale=scale)
    return output


def _causal_offset(query: Any, key: Any, attn_mask: Any, dropout_p: float, *, is_causal: bool) -> int:
    """Where the first query stands among the keys, as one of torch.nn.attention.bias's causal masks says."""
    sdpa_rules.check(query, key, query, None, dropout_p, is_causal)
    lengths = (query.shape[-2], key.shape[-2])
    if is_causal or (attn_mask.seq_len_q, attn_mask.seq_len_kv) != lengths:
        raise RuntimeError(
            f"attn_mask is a causal mask for {attn_mask.seq_len_q} queries and {attn_mask.seq_len_kv} keys; "
            f"expected is_causal=False and {lengths[0]} queries and {lengths[1]} keys."
        )
    return 0 if attn_mask.variant == CausalVariant.UPPER_LEFT else lengths[1] - lengths[0]


def _attend(
    query: Any, key: Any, value: Any, attn_mask: Any, offset: int | None, scale: Any, dropout_p: float, *,
    enable_gqa: bool,
) -> Any:  # fmt: skip
    """The call in sightline's words: `offset` is the first query's position in a causal call, else None."""
    query, key, value = sdpa_rules.paired(query, key, value, enable_gqa=enable_gqa)
    if attn_mask is not None:
        sdpa_rules.check_mask(attn_mask, query, key, value)
    if query.dim() > 2 and query.shape[-3] == 0:  # to sightline, a call without heads is a mistake
        return query @ key.transpose(-2, -1) @ value
    rows_first = query.dim() > 2 and not query.is_contiguous() and query.transpose(-3, -2).is_contiguous()
    if rows_first:  # (…, L, H, D) in memory: so shall the output lie
        query, key, value = (x.transpose(-3, -2) for x in (query, key, value))
    boolean = attn_mask is not None and attn_mask.dtype == torch.bool
    try:
        output = attention(
            query,
            key,
            value,
            mask=attn_mask if boolean else None,
            bias=None if boolean else attn_mask,
            causal=offset is not None,
            query_offset=offset,
            scale=None if scale is None else float(scale),
            dropout_p=float(dropout_p),
            layout="BLHD" if rows_first else "BHLD",
        )
    except (TypeError, ValueError) as error:  # PyTorch's callers expect its kind of error
        raise RuntimeError(str(error)) from error
    return output.transpose(-3, -2) if rows_first else output
