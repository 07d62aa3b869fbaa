"""One attention call in the form that torch.library knows: tensors and plain values, in the operator's order."""

from __future__ import annotations

from typing import Any, NamedTuple


class Call(NamedTuple):
    """The operator's arguments; see `sightline.attention` for what they mean."""

    query: Any
    key: Any
    value: Any
    mask: Any = None
    bias: Any = None
    sinks: Any = None
    alibi_slopes: Any = None
    query_offsets: Any = None
    key_lengths: Any = None
    query_offset: Any = None
    key_length: Any = None
    causal: bool = False
    left: Any = None
    right: Any = None
    scale: Any = None
    softcap: Any = None
    layout: str = "BHLD"
    precision: str = "highest"
    see: str = ""
    seed: Any = None
    dropout_p: float = 0.0

    def options(self) -> dict[str, Any]:
        """All but query, key, value and see, as the door takes them."""
        bounded = self.left is not None or self.right is not None
        return {
            "mask": self.mask,
            "bias": self.bias,
            "sinks": self.sinks,
            "alibi_slopes": self.alibi_slopes,
            "query_offset": self.query_offset if self.query_offsets is None else self.query_offsets,
            "key_lengths": self.key_length if self.key_lengths is None else self.key_lengths,
            "causal": self.causal,
            "window": (self.left, self.right) if bounded else None,
            "scale": self.scale,
            "softcap": self.softcap,
            "layout": self.layout,
            "precision": self.precision,
            "dropout_p": self.dropout_p,
            "seed": None if self.seed is None else self.seed_number(),
        }

    def seed_number(self) -> int:
        """The seed as the door takes it: a tensor's 64 bits have a sign."""
        return int(self.seed) % 2**64


SCHEMA = (
    "Tensor query, Tensor key, Tensor value, Tensor? mask, Tensor? bias, Tensor? sinks, Tensor? alibi_slopes, "
    "Tensor? query_offsets, Tensor? key_lengths, SymInt? query_offset, SymInt? key_length, bool causal, "
    "SymInt? left, SymInt? right, float? scale, float? softcap, str layout, str precision, str see, "
    "Tensor? seed, float dropout_p"
)
"""The types of Call's fields."""
