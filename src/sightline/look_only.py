"""The second door: what the attention looks at, without values and without an output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sightline.calls import ready
from sightline.see import See, Seen, requested

if TYPE_CHECKING:
    from collections.abc import Sequence


def look_only(
    query: Any,
    key: Any,
    *,
    see: See | Sequence[str],
    mask: Any = None,
    bias: Any = None,
    causal: bool = False,
    window: tuple[int | None, int | None] | None = None,
    query_offset: int | Any = None,
    key_lengths: int | Any = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Any = None,
    alibi_slopes: Any = None,
    layout: str = "BHLD",
) -> Seen:
    """What `see` asks of the weights softmax(query · keyᵀ · scale), without values and without an output.

    Costs the scores and no weighted sum; and of heads and queries, only those that something is asked about.

    Args:
        query: (…, Hq, Lq, D), or (L, D) for one head; float64, float32, float16 or bfloat16.
        key: (…, Hkv, Lk, D), same dtype.
        see: names of fields of See, as in ("lse", "received"), or a See.
        mask: boolean, broadcasts to (…, Hq, Lq, Lk); True = the query may attend to the key.
        bias: floating, broadcasts to (…, Hq, Lq, Lk); added to the scores after scale and softcap.
        causal: a query at position p sees keys j ≤ p. Positions count from `query_offset`.
        window: (left, right): a query at p sees keys p − left ≤ j ≤ p + right, None = unbounded.
        query_offset: position of the first query, in keys: an int, or one for each sequence. Default 0; must
            be given when causal or window is used and Lq ≠ Lk.
        key_lengths: keys that exist, an int or one for each sequence; keys at and after it are never read.
        scale: multiplies q · k. Default 1/√D.
        softcap: scores become softcap · tanh(score / softcap), after scale, before bias.
        sinks: (Hq,) logits that take part in the softmax's denominator only.
        alibi_slopes: (Hq,); slope · |p − j| is subtracted from the score.
        layout: "BHLD", or "BLHD" for arrays (…, L, H, D).

    Returns:
        A Seen with what was asked for.

    Raises:
        TypeError, ValueError: what came, what was expected, and what to try.

    Example:
        The keys that the last 16 of 100 queries look at most, as SnapKV asks before it drops the others:

        >>> import numpy as np, sightline
        >>> q, k = np.random.default_rng(0).standard_normal((2, 12, 100, 64), dtype=np.float32)
        >>> last = sightline.Received(queries=slice(-16, None))
        >>> seen = sightline.look_only(q, k, causal=True, see=sightline.See(received=last))
        >>> seen.received.shape, round(float(seen.received.sum()), 3)  # 12 heads · 16 queries
        ((12, 100), 192.0)
    """
    request = requested(see)
    operands = (query, key, None, mask, bias, sinks, alibi_slopes, None)
    options = (causal, window, query_offset, key_lengths, scale, softcap, layout, "highest", 0.0)
    call, operands = ready(operands, options, request, values=False)
    return Seen(**call.run(operands, query_offset, key_lengths))
