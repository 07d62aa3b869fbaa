"""The door: arrays in → Problem → Plan → kernel → arrays out.

Everything that shapes, strides, dtypes and options decide is prepared once and looked up by their signature;
a repeated call only fills in addresses.
"""

from __future__ import annotations

import contextlib
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from sightline import arrays
from sightline.cpu import isa
from sightline.cpu.run import OPERANDS, Prepared, overlaps_itself
from sightline.plan import plan
from sightline.problem import Problem, int_or_spec
from sightline.see import PER_QUERY, See, Seen, requested

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence


REQUIRED = OPERANDS[:3]
OPTIONS = ("causal", "window", "query_offset", "key_lengths", "scale", "softcap", "layout", "precision")

Operands = tuple[Any, ...]

_prepared: dict[Hashable, Prepared] = {}
MOST_PREPARED = 1024


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
        layout: "BHLD", or "BLHD" for arrays (…, L, H, D).
        precision: "highest", "high" or "default": how much a float32 product may be rounded. Everything runs
            at "highest" so far.
        see: what to say of the weights beside the output: names ("lse", "max_score", "entropy", "distance"), or
            a See. The other fields of See come in a later version.
        out: an array to write to, of the output's shape and dtype, sharing no memory with the inputs.

    Returns:
        (…, Hq, Lq, Dv) in the query's dtype, layout and kind of array (`out` if given). A query that may see
        no key gets zeros. With `see`, a pair: that, and a Seen with an array (…, Hq, Lq) for each name asked.

    Raises:
        TypeError, ValueError: what came, what was expected, and what to try.
        NotImplementedError: score_mod, and the fields of See that are not there yet.

    Example:
        >>> import numpy as np, sightline
        >>> rng = np.random.default_rng(0)
        >>> q, k, v = rng.standard_normal((3, 2, 12, 100, 64), dtype=np.float32)
        >>> sightline.attention(q, k, v, causal=True).shape
        (2, 12, 100, 64)
        >>> out, seen = sightline.attention(q, k, v, causal=True, see=("lse", "entropy"))
        >>> seen.entropy.shape, float(seen.entropy[0, 0, 0])  # the first query sees itself alone
        ((2, 12, 100), 0.0)

    Source: Vaswani et al., Attention Is All You Need, 2017, https://arxiv.org/abs/1706.03762
    """
    if score_mod is not None:
        raise _not_yet("score_mod=")
    names = () if see is None else _asked(see)
    operands: Operands = (query, key, value, mask, bias, sinks, alibi_slopes, out)
    options = (causal, window, query_offset, key_lengths, scale, softcap, layout, precision)
    prepared = _lookup(operands, options, names)
    if prepared is None:
        operands = _settled(operands)
        prepared = _lookup(operands, options, names) or _prepare(operands, options, names)
    result = operands[-1]
    if result is None:
        result = arrays.empty_like(query, prepared.output_shape, prepared.dtype)
        operands = (*operands[:-1], result)
    if see is None:
        prepared.run(operands, {}, query_offset, key_lengths)
        return out if out is not None else arrays.give_back(query, result)
    p = prepared.plan.problem
    seen: dict[str, Any] = {
        name: arrays.empty_like(query, p.rows_shape, p.statistics_dtype) for name in names
    }
    prepared.run(operands, seen, query_offset, key_lengths)
    seen = {name: arrays.give_back(query, x) for name, x in seen.items()}
    return out if out is not None else arrays.give_back(query, result), Seen(**seen)


def _settled(operands: Operands) -> Operands:
    """The operands, with a NumPy look in place of what has no signature."""
    pairs = zip(OPERANDS, operands, strict=True)
    return tuple(None if x is None else arrays.settle(x, name) for name, x in pairs)


def _asked(see: object) -> tuple[str, ...]:
    """The statistics that `see=` asks for, if they are all there."""
    request = requested(see)
    for field in fields(See):
        if field.name not in PER_QUERY and getattr(request, field.name):
            raise _not_yet(f"see={field.name}")
    return tuple(name for name in PER_QUERY if getattr(request, name))


def _not_yet(name: str) -> NotImplementedError:
    return NotImplementedError(f"{name} is not there yet; it comes in a later version of sightline.")


def _signature(operands: Operands, options: tuple[Any, ...], see: tuple[str, ...]) -> Hashable:
    """All that a prepared call depends on; of values per sequence, read at every call, only whether given."""
    types = tuple(map(type, options))  # 1 == True, but causal=1 is an error
    _, window, offset, lengths = options[:4]
    if window is not None:
        types += tuple(map(type, window))
    if offset is not None or lengths is not None:
        given = (x if x is None or isinstance(x, int) else "given" for x in (offset, lengths))
        options = (*options[:2], *given, *options[4:])
    arrays_seen = [x if x is None else arrays.signature(x) for x in operands]
    return (isa.word(), see, options, types, *arrays_seen)


def _lookup(operands: Operands, options: tuple[Any, ...], see: tuple[str, ...]) -> Prepared | None:
    """What an earlier call of the same signature prepared."""
    try:
        return _prepared.get(_signature(operands, options, see))
    except (arrays.NoSignatureError, TypeError):  # what is wrong, if anything is, the slow path says
        return None


def _prepare(operands: Operands, options: tuple[Any, ...], see: tuple[str, ...]) -> Prepared:
    """The slow path: look at everything, raise every error, plan, get the kernel."""
    given = {
        name: x
        for name, x in zip(OPERANDS, operands, strict=True)
        if x is not None or name in REQUIRED  # a None among these is an error in the view's words
    }
    views = {name: arrays.view(x, name) for name, x in given.items()}
    named: dict[str, Any] = dict(zip(OPTIONS, options, strict=True))
    for name in ("query_offset", "key_lengths"):
        named[name] = int_or_spec(named[name], name)
    _check_out(views.get("out"))
    specs: dict[str, Any] = {name: seen.spec for name, seen in views.items()}
    problem = Problem.of(**specs, **named)
    lengths = named["key_lengths"] if isinstance(named["key_lengths"], int) else None
    made = plan(problem, isa.chosen(), see)
    prepared = Prepared(made, views["out"].spec if "out" in views else None, lengths)
    with contextlib.suppress(TypeError, arrays.NoSignatureError):  # e.g. a window given as a list
        if len(_prepared) >= MOST_PREPARED:
            _prepared.clear()
        _prepared[_signature(operands, options, see)] = prepared
    return prepared


def _check_out(out: arrays.View | None) -> None:
    """A kernel may write to it, each element to a place of its own."""
    if out is not None and not out.writable:
        raise ValueError("out is read-only; expected an array to write to; try a new one, or leave out=None.")
    if out is not None and overlaps_itself(out.spec):
        raise ValueError(
            f"out has strides {out.spec.strides} with which it overlaps itself; expected one place for each "
            f"element; try a new array, or leave out=None."
        )
