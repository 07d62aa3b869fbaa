"""Models that call torch.nn.functional.scaled_dot_product_attention: what they ask it, in our words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention.bias import CausalBias, CausalVariant

from sightline.torch import patch, sdpa_rules
from sightline.watching.listening import listening, quiet, tell
from sightline.watching.observed import Observed

if TYPE_CHECKING:
    from collections.abc import Callable


def observed(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Observed:
    """The call that went well with these arguments; its weights are those before dropout."""
    del dropout_p
    offset = 0 if is_causal else None
    if type(attn_mask) is CausalBias:
        lower_right = attn_mask.variant == CausalVariant.LOWER_RIGHT
        offset, attn_mask = (key.shape[-2] - query.shape[-2] if lower_right else 0), None
    sdpa_rules.refuse_nested(query, key, value)
    query, key, value = sdpa_rules.paired(query, key, value, enable_gqa=enable_gqa)
    boolean = attn_mask is not None and attn_mask.dtype == torch.bool
    return Observed.of(
        query,
        key,
        value,
        mask=attn_mask if boolean else None,
        bias=None if boolean else attn_mask,
        causal=offset is not None,
        query_offset=offset,
        scale=scale,
    )


def _around(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls the function, then tells of it: once, also where it calls itself on the way."""
    if torch.compiler.is_compiling() or not listening():
        return function(*args, **kwargs)
    with quiet():
        output = function(*args, **kwargs)
    tell(None, lambda: observed(*args, **kwargs))
    return output


patch.around = _around
