"""The door: arrays in → Problem → Plan → kernel → arrays out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sightline import arrays
from sightline.calls import OPTIONS, ready
from sightline.cpu.run import OPERANDS
from sightline.options import check_seed
from sightline.see import See, Seen, requested

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FRONTS: dict[str, Callable[..., Any]] = {}
"""The doors of frameworks, for arrays that they follow (autograd, tracing); the package puts them here."""


def attention(
    query: Any,
    key: Any,
    value: Any,
    *,
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
    score_mod: Callable[..., Any] | None = None,
    dropout_p: float = 0.0,
    seed: int | None = None,
    layout: str = "BHLD",
    precision: str = "highest",
    see: See | Sequence[str] | None = None,
    out: Any = None,
) -> Any:
    """softmax(query · keyᵀ · scale) · value, exactly as docs/semantics.md defines it.

    B sequences, Hq query heads, Hkv key heads, Lq queries, Lk keys, head sizes D and Dv. Query head h reads
    key head h // (Hq / Hkv). Arrays may be NumPy's, PyTorch CPU tensors, or anything that exports DLPack or a
    buffer; strides are free, nothing is copied or changed.

    Args:
        query: (…, Hq, Lq, D), or (L, D) for one head; float64, float32, float16 or bfloat16.
        key: (…, Hkv, Lk, D), same dtype.
        value: (…, Hkv, Lk, Dv), same dtype.
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
        score_mod: not yet: a function of the score comes in a later version.
        dropout_p: probability, 0 to 1, with which a weight is dropped; the others are divided by 1 − dropout_p.
            What `see` says is of the weights before. Default 0: none is.
        seed: int from 0 to 2**64 − 1, required with dropout_p > 0. Which weights are dropped is a function of the
            seed, sequence, query head, query and key alone: the same seed drops the same ones, here and in
            `attention_vjp`.
        layout: "BHLD", or "BLHD" for arrays (…, L, H, D).
        precision: "highest", "high" or "default": how much a float32 product may be rounded, on AMX: not
            (three bfloat16 terms a number), to some 1e-5 (two terms), to bfloat16 (one). Elsewhere: "highest".
        see: what to say of the weights beside the output: names of fields of See, as in ("lse", "received"), or
            a See. What is one number per query costs little more than the output; the rest (received, top_keys,
            pooled, rows, diagonals) takes a second pass over queries and keys. Memory grows with Lq + Lk.
        out: an array to write to, of the output's shape and dtype, sharing no memory with the inputs.

    Returns:
        (…, Hq, Lq, Dv) in the query's dtype, layout and kind of array (`out` if given). A query that may see
        no key gets zeros. With `see`, a pair: that, and a Seen with what was asked for.

    Raises:
        TypeError, ValueError: what came, what was expected, and what to try.
        NotImplementedError: score_mod, which is not there yet.

    Example:
        >>> import numpy as np, sightline
        >>> rng = np.random.default_rng(0)
        >>> q, k, v = rng.standard_normal((3, 2, 12, 100, 64), dtype=np.float32)
        >>> sightline.attention(q, k, v, causal=True).shape
        (2, 12, 100, 64)
        >>> out, seen = sightline.attention(q, k, v, causal=True, see=("lse", "entropy"))
        >>> seen.entropy.shape, round(float(seen.entropy[0, 0, 0]), 6)  # the first query sees itself alone
        ((2, 12, 100), 0.0)

    Source: Vaswani et al., Attention Is All You Need, 2017, https://arxiv.org/abs/1706.03762
    """
    if score_mod is not None:
        raise NotImplementedError("score_mod= is not there yet; it comes in a later version of sightline.")
    seed = check_seed(seed, dropout_p)
    request = None if see is None else requested(see)
    operands = (query, key, value, mask, bias, sinks, alibi_slopes, out)
    options = (causal, window, query_offset, key_lengths, scale, softcap, layout, precision, dropout_p)
    try:
        call, operands = ready(operands, options, request)
    except arrays.FollowedError as followed:
        named = dict(zip(OPERANDS, operands, strict=True)) | dict(zip(OPTIONS, options, strict=True))
        return FRONTS[followed.framework](**named, seed=seed, see=see)
    result = operands[-1]
    if result is None:
        result = call.result(query)
        operands = (*operands[:-1], result)
    seen = call.run(operands, query_offset, key_lengths, seed)
    output = out if out is not None else arrays.give_back(query, result)
    return output if request is None else (output, Seen(**seen))
