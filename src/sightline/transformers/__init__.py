"""Hugging Face's models on our kernels: `register()` adds attn_implementation="sightline"."""

from __future__ import annotations

try:
    import transformers as _transformers  # noqa: F401
except ImportError as error:
    raise ImportError(
        "sightline.transformers needs transformers; try pip install 'sightline[transformers]'."
    ) from error

from sightline.transformers.implementation import attention_forward, attention_mask, register

__all__ = ["attention_forward", "attention_mask", "register"]
