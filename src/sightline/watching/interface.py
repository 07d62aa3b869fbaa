"""Models of Hugging Face's: what they hand to their attention, whatever its implementation, in our words.

Every model asks `AttentionInterface.get_interface` for its implementation. Meanwhile it gets one that calls the
same implementation and then tells of the call.
"""

from __future__ import annotations

import functools
import sys
import threading
from typing import Any

import torch

from sightline.watching.listening import listening, quiet, tell
from sightline.watching.observed import Observed


class _Swap:
    """Stands before `AttentionInterface.get_interface` for as long as anyone watches a model."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.original: Any = None

    def enter(self) -> None:
        """One more watches."""
        modeling = sys.modules.get("transformers.modeling_utils")
        with self.lock:
            interface = getattr(modeling, "AttentionInterface", None)  # older ones have none
            if interface is not None and not self.users and hasattr(interface, "get_interface"):
                self.original = interface.get_interface
                interface.get_interface = _get_interface
            self.users += 1

    def leave(self) -> None:
        """One watches no more; the last puts the method back."""
        with self.lock:
            self.users -= 1
            if not self.users and self.original is not None:
                interface: Any = sys.modules["transformers.modeling_utils"].AttentionInterface
                interface.get_interface, self.original = self.original, None


swap = _Swap()


def _get_interface(self: Any, attn_implementation: str, default: Any) -> Any:
    """What the method would give, made to tell where somebody listens."""
    original = swap.original
    if original is None:  # looked up just before the last one left
        return self.get_interface(attn_implementation, default)
    chosen = original(self, attn_implementation, default)
    return functools.partial(_call, chosen, default) if listening() else chosen


def _call(
    chosen: Any,
    default: Any,
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any = None,
    **options: Any,
) -> Any:
    """Calls the model's own implementation, then tells of it; the default one is eager."""
    with quiet():
        result = chosen(module, query, key, value, attention_mask, **options)

    def observe() -> Observed:
        call = observed(module, query, key, value, attention_mask, eager=chosen is default, **options)
        _check(call, result[0], module, options)
        return call

    tell(module, observe)
    return result


def observed(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    *,
    eager: bool,
    scaling: float | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: Any = None,
    position_bias: Any = None,
    **others: Any,
) -> Observed:
    """The call: query (B, Hq, Lq, D), key (B, Hkv, Lk, D), value (B, Hkv, Lk, Dv).

    Without a mask, eager implementations see every key; the others go by `is_causal` where there is more than one
    query. `others` change no weight, or `_check` finds out.
    """
    del others
    if not (attention_mask is None or _is_mask(attention_mask)):
        raise NotImplementedError(
            f"the mask of {type(module).__name__} is a {type(attention_mask).__name__}; expected a tensor "
            f"(B, H, Lq, Lk); try model.set_attn_implementation('sdpa') or 'eager'."
        )
    floats = attention_mask is not None and attention_mask.dtype != torch.bool
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    causal = bool(causal) and attention_mask is None and query.shape[-2] > 1 and not eager
    bias = position_bias
    if floats:
        bias = attention_mask if bias is None else bias + attention_mask
    return Observed.of(
        query,
        key,
        value,
        mask=None if floats else attention_mask,
        bias=bias,
        causal=causal,
        query_offset=0 if causal else None,
        scale=scaling,
        softcap=softcap,
        sinks=s_aux,
    )


def _is_mask(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.dim() == 4


def _check(call: Observed, output: Any, module: Any, options: dict[str, Any]) -> None:
    """Raises unless the call explains the model's own output (B, Lq, Hq, Dv): then nothing was misunderstood."""
    if options.get("dropout") or call.explains(output.transpose(1, 2)):
        return
    given = ", ".join(name for name, x in options.items() if x is not None)
    raise NotImplementedError(
        f"the output of {type(module).__name__} is not softmax(query · keyᵀ · scale + …) · value of what it was "
        f"given ({given}), so its weights would be told wrongly; try model.set_attn_implementation('sdpa') or "
        f"'eager'."
    )
