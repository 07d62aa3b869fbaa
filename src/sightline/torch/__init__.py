"""PyTorch: sightline's attention with gradients, and PyTorch's own function by our kernels."""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("sightline.torch needs PyTorch; try pip install 'sightline[torch]'.") from error

from sightline.torch.attention import attention
from sightline.torch.batching import register as _register
from sightline.torch.patch import patched
from sightline.torch.sdpa import scaled_dot_product_attention

_register()

__all__ = ["attention", "patched", "scaled_dot_product_attention"]
