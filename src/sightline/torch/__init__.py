"""PyTorch: its scaled dot-product attention by our kernels, called by name or swapped in."""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("sightline.torch needs PyTorch; try pip install 'sightline[torch]'.") from error

from sightline.torch.patch import patched
from sightline.torch.sdpa import scaled_dot_product_attention

__all__ = ["patched", "scaled_dot_product_attention"]
