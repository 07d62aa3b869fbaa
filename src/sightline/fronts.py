"""The doors of frameworks, each imported on the first call that is for it."""

from __future__ import annotations

from typing import Any


def torch(query: Any, key: Any, value: Any, **options: Any) -> Any:
    """sightline.torch.attention."""
    from sightline.torch.attention import attention

    return attention(query, key, value, **options)
