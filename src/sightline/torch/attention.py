"""sightline.attention on tensors that PyTorch follows: autograd, torch.func, torch.compile, autocast."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.autograd import forward_ad

from sightline.arrays.torch_tensors import followed
from sightline.attention import attention as door
from sightline.see import Seen
from sightline.torch import dense, seeds, seen
from sightline.torch.call import Call
from sightline.torch.operator import ATTENTION

TENSORS = ("mask", "bias", "sinks", "alibi_slopes", "out")


def attention(query: Any, key: Any, value: Any, **options: Any) -> Any:
    """What `sightline.attention` gives, of tensors that PyTorch follows as well.

    Gradients, of any order; torch.func's transforms; torch.compile and torch.export, as one operator
    (torch.ops.sightline.attention); autocast, which casts query, key and value. `sightline.attention` comes here
    by itself where autograd or torch.func follow a tensor; where code is compiled, it is called here.

    Args:
        query: (…, Hq, Lq, D), or (L, D): a CPU tensor.
        key: (…, Hkv, Lk, D).
        value: (…, Hkv, Lk, Dv).
        options: those of `sightline.attention`, which says what they mean. `query`, `key`, `value`, `bias`,
            `sinks` and `alibi_slopes` have gradients, from the output and from `lse`. Without a `seed`, calls with
            `dropout_p` draw one from PyTorch's generator; it may also be a tensor (), of integers.

    Returns:
        As `sightline.attention`: the output, or with `see` a pair of it and a Seen.

    Raises:
        TypeError, ValueError: what came, what was expected, and what to try.
        RuntimeError: `out` is given, and a gradient is asked for.
        NotImplementedError: a gradient arrives at a statistic other than `lse`.

    Example:
        >>> import torch, sightline.torch
        >>> q, k, v = (torch.randn(2, 4, 50, 16, requires_grad=True) for _ in range(3))
        >>> sightline.torch.attention(q, k, v, causal=True).square().sum().backward()
        >>> q.grad.shape
        torch.Size([2, 4, 50, 16])
    """
    query, key, value = autocast(query, key, value)
    if not torch.compiler.is_compiling():
        tensors = [query, key, value]
        tensors += [x for name in TENSORS if (x := options.get(name)) is not None]
        if not (torch._C._len_torch_dispatch_stack() or any(map(_followed, tensors))):
            return door(query, key, value, **seeds.drawn_if_needed(options))
        if forward_ad._current_level >= 0:
            return _forward(query, key, value, **options)
    return _operator(query, key, value, **options)


def _followed(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and (followed(x) or x.device.type == "meta")


def autocast(*arrays: Any) -> tuple[Any, ...]:
    """Under torch.autocast, the tensors as it casts what it knows: floats, but not float64."""
    if not torch.is_autocast_enabled("cpu"):
        return arrays
    narrow = torch.get_autocast_dtype("cpu")
    return tuple(
        x.to(narrow)
        if isinstance(x, torch.Tensor) and x.is_floating_point() and x.dtype != torch.float64
        else x
        for x in arrays
    )


def as_call(
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
    dropout_p: float = 0.0,
    seed: int | Any = None,
    layout: str = "BHLD",
    precision: str = "highest",
    see: str = "",
) -> Call:
    """The operator's arguments, from the door's."""
    for name, x in zip(Call._fields, (query, key, value, mask, bias, sinks, alibi_slopes), strict=False):
        if not (x is None or isinstance(x, torch.Tensor)):
            raise TypeError(
                f"{name} is a {type(x).__name__} beside tensors that PyTorch follows; expected a tensor; "
                f"try torch.as_tensor({name})."
            )
    left, right = (None, None) if window is None else window
    offset, offsets = _one_or_each(query_offset)
    length, lengths = _one_or_each(key_lengths)
    return Call(
        *(query, key, value, mask, bias, sinks, alibi_slopes, offsets, lengths, offset, length),
        *(causal, left, right, scale, softcap, layout, precision, see),
        *(seeds.as_tensor(seed, dropout_p, query.device), dropout_p),
    )


def _one_or_each(value: Any) -> tuple[Any, Any]:
    """An int for all sequences, or a tensor of one for each."""
    if value is None or isinstance(value, int | torch.SymInt):
        return value, None
    return None, torch.as_tensor(value)


def _operator(
    query: Any,
    key: Any,
    value: Any,
    *,
    see: Any = None,
    out: Any = None,
    score_mod: Any = None,
    **options: Any,
) -> Any:
    """The call as torch.ops.sightline.attention."""
    if score_mod is not None:
        return door(query, key, value, score_mod=score_mod)  # which says that it is not there yet
    words = seen.encode(see)
    output, lse, *found = ATTENTION(*as_call(query, key, value, see=words, **options))
    if out is not None:
        output = _written(out, output)
    if see is None:
        return output
    return output, seen.gathered(lse, found, words)


def _written(out: Any, output: Any) -> Any:
    if output.requires_grad:
        raise RuntimeError(
            "out is given, and a gradient is asked for; expected one of the two; try out=None, or torch.no_grad()."
        )
    return out.copy_(output)


def _forward(query: Any, key: Any, value: Any, *, see: Any = None, out: Any = None, **options: Any) -> Any:
    """Forward derivatives, which kernels do not have: from the weights in full."""
    if out is not None:
        raise RuntimeError("out is given in a call with forward derivatives; try out=None.")
    words = seen.encode(see)
    if words not in {"", "lse"}:
        raise NotImplementedError(
            f"see asks for {words} in a call with forward derivatives; only lse has any; "
            f"try torch.func.vjp or torch.func.grad, or see=('lse',)."
        )
    output, lse, _ = dense.attention(as_call(query, key, value, **options))
    return output if see is None else (output, Seen(lse=lse if words else None))


attention.__signature__ = inspect.signature(door)  # type: ignore[attr-defined]
