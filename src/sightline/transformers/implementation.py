"""What a model of Hugging Face's hands to its attention, in sightline's words.

A model calls the implementation that it was set to with its module, query, key, value, a mask, and named arguments
of its own. Each is honoured, known to change nothing, or refused: HONOURED, NEUTRAL, and everything else.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from sightline.see import See
from sightline.torch import attention, dense, quick
from sightline.torch.attention import as_call

HONOURED = (
    *("attention_mask", "dropout", "scaling", "is_causal", "softcap", "s_aux", "position_bias"),
    *("sliding_window", "output_attentions"),
)
NEUTRAL = frozenset(
    {
        *("position_ids", "cache_position", "use_cache", "past_key_values", "return_dict", "deterministic"),
        *("output_hidden_states", "output_router_logits", "num_items_in_batch", "logits_to_keep"),
        *("position_embeddings", "layer_idx", "max_length_q", "max_length_k"),
    }
)
"""Arguments that models pass along and that change no weight; what packs sequences also comes as a mask."""


def register(name: str = "sightline") -> None:
    """Make `attn_implementation="sightline"` known to every model of transformers.

    Args:
        name: what to call the implementation.

    Example:
        >>> import sightline.transformers
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> sightline.transformers.register()
        >>> sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 100}
        >>> config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2)
        >>> model = LlamaForCausalLM._from_config(config, attn_implementation="sightline")
        >>> model.config._attn_implementation
        'sightline'
    """
    AttentionInterface.register(name, attention_forward)
    AttentionMaskInterface.register(name, attention_mask)


def attention_mask(**arguments: Any) -> Any:
    """A boolean mask (B, 1, Lq, Lk), True = may attend, or None where `is_causal` says it all.

    It is the one that transformers makes for PyTorch's function.
    """
    return sdpa_mask(**arguments)


def attention_forward(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: Any = None,
    position_bias: Any = None,
    sliding_window: int | None = None,
    output_attentions: bool = False,
    **others: Any,
) -> tuple[Any, Any]:
    """The output (B, Lq, Hq, Dv) of a layer, and its weights (B, Hq, Lq, Lk) if they are asked for.

    Args:
        module: the layer; `module.is_causal` counts unless `is_causal` is given.
        query: (B, Hq, Lq, D).
        key: (B, Hkv, Lk, D).
        value: (B, Hkv, Lk, Dv).
        attention_mask: boolean, True = may attend; or floats to add; or None.
        dropout: as sightline's dropout_p, with a seed from PyTorch's generator. The weights are those before.
        scaling: multiplies query · key. Default 1/√D.
        is_causal: without a mask, and with more than one query, query i sees the keys up to i.
        softcap: as sightline's.
        s_aux: (Hq,), the sinks.
        position_bias: broadcasts to (B, Hq, Lq, Lk); added to the scores, beside the mask.
        sliding_window: is in the mask that transformers made.
        output_attentions: whether to return the weights, in O(L²) memory.
        others: what changes nothing (NEUTRAL), or None.

    Raises:
        NotImplementedError: an argument that this implementation does not honour.
    """
    _refuse(sliding_window, attention_mask, key, others)
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    causal = bool(is_causal) and attention_mask is None and query.shape[-2] > 1
    if position_bias is None and s_aux is None and softcap is None and not (dropout or output_attentions):
        output = quick.rows_first(query, key, value, attention_mask, causal=causal, scale=scaling)
        if output is not None:
            return output, None
    floats = attention_mask is not None and attention_mask.dtype != torch.bool
    bias = _sum(position_bias, attention_mask if floats else None)
    options = {
        "mask": None if floats else attention_mask,
        "bias": bias,
        "causal": causal,
        "query_offset": 0 if causal else None,
        "scale": scaling,
        "softcap": softcap,
        "sinks": s_aux,
        "layout": "BLHD",
    }
    dropping = options | {"dropout_p": dropout or 0.0}
    rows_first = [x.transpose(1, 2) for x in (query, key, value)]
    if not output_attentions:
        return attention(*rows_first, **dropping), None
    if torch.is_grad_enabled():
        _, _, weights = dense.attention(as_call(*rows_first, **options))
        return attention(*rows_first, **dropping), weights.to(query.dtype)
    every = See(rows=tuple(range(query.shape[-2])))
    output, seen = attention(*rows_first, **dropping, see=every)
    return output, seen.rows.to(query.dtype)


def _sum(position_bias: Any, floats: Any) -> Any:
    """What is added to the scores."""
    if position_bias is None or floats is None:
        return floats if position_bias is None else position_bias
    return position_bias + floats


def _refuse(window: int | None, mask: Any, key: Any, others: dict[str, Any]) -> None:
    """Raise for what would otherwise be left out without a word."""
    if window is not None and mask is None and key.shape[-2] > window:
        raise NotImplementedError(
            f"sliding_window is {window} with {key.shape[-2]} keys and no mask; expected the mask that "
            f"transformers makes for such layers; try attn_implementation='eager' for this model."
        )
    unknown = [name for name, x in others.items() if x is not None and name not in NEUTRAL]
    if unknown:
        raise NotImplementedError(
            f"the model hands {', '.join(sorted(unknown))} to its attention; sightline honours "
            f"{', '.join(HONOURED)}; try attn_implementation='eager' for this model."
        )
