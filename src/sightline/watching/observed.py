"""One attention call of a model in sightline's words, and whether these words are true."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from sightline.attention import attention
from sightline.look_only import look_only

if TYPE_CHECKING:
    from sightline.see import See, Seen

CLOSE = {torch.float64: 1e-3, torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.02}
"""How far an output row may be from ours, in units of the largest value: beyond, something else was computed."""


class Observed(NamedTuple):
    """What attention was called with."""

    query: Any
    """(…, Hq, Lq, D), or (L, D)."""
    key: Any
    value: Any
    options: dict[str, Any]
    """As the door takes them."""

    @classmethod
    def of(cls, query: Any, key: Any, value: Any, **options: Any) -> Observed:
        """The numbers alone, without what autograd attaches to them."""
        given = {name: x.detach() if isinstance(x, torch.Tensor) else x for name, x in options.items()}
        return cls(query.detach(), key.detach(), value.detach(), given)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Query heads, queries, keys."""
        heads = self.query.shape[-3] if self.query.dim() > 2 else 1
        return heads, self.query.shape[-2], self.key.shape[-2]

    def look(self, see: See) -> Seen:
        """What is asked of its weights."""
        return look_only(self.query, self.key, see=see, **self.options)

    def explains(self, output: Any) -> bool:
        """Whether `output` (…, Hq, Lq, Dv) is this call's, going by the row of the query in the middle."""
        middle = self.query.shape[-2] // 2
        row = slice(middle, middle + 1)
        options = dict(self.options)
        for name in ("mask", "bias"):
            if options.get(name) is not None and options[name].shape[-2] > 1:
                options[name] = options[name][..., row, :]
        if options.get("causal"):
            options["query_offset"] += middle
        ours, seen = attention(self.query[..., row, :], self.key, self.value, see=("lse",), **options)
        sees = (seen.lse > -torch.inf)[..., None]  # where a query sees nothing, implementations differ
        theirs = output.detach()[..., row, :]
        largest = float(self.value.abs().max())
        return bool(((theirs - ours).abs() <= CLOSE[ours.dtype] * largest).logical_or(~sees).all())
