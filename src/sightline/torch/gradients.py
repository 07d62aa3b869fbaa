"""The operator's gradients: a second operator, whose own gradients are taken from the weights in full (`dense`).

Gradients reach query, key, value, bias, sinks and slopes, from the output and from lse. The other statistics have
none: asking for one is an error.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from sightline.torch import dense
from sightline.torch.call import SCHEMA, Call
from sightline.torch.operator import ATTENTION, Operator
from sightline.vjp import attention_vjp

DIFFERENTIABLE = ("query", "key", "value", "bias", "sinks", "alibi_slopes")
FIELDS = len(Call._fields)
_EXTRA = ("output", "lse", "d_output", "d_lse", "wanted")

BACKWARD = Operator(
    "attention_backward",
    f"{SCHEMA}, Tensor output, Tensor lse, Tensor d_output, Tensor? d_lse, bool[] wanted",
)
"""It returns the gradients of those of DIFFERENTIABLE that are wanted."""


def _run(*arguments: Any) -> list[Any]:
    """The backward kernel's answer."""
    call = Call(*arguments[:FIELDS])
    output, lse, d_output, d_lse = arguments[FIELDS:-1]
    wanted = _chosen(arguments[-1])
    with torch.no_grad():
        found = attention_vjp(
            *(call.query, call.key, call.value, output, lse, d_output),
            grad_lse=d_lse,
            wanted=wanted,
            **call.options(),
        )
    return [getattr(found, name) for name in wanted]


def _like(*arguments: Any) -> list[Any]:
    """Tensors of the gradients' form."""
    call = Call(*arguments[:FIELDS])
    given = (getattr(call, name) for name in _chosen(arguments[-1]))
    return [x.new_empty(x.shape) for x in given]


def _chosen(wanted: list[bool]) -> list[str]:
    return [name for name, wants in zip(DIFFERENTIABLE, wanted, strict=True) if wants]


# ── First order: the operator's gradients are the second operator ──


def _keep(ctx: Any, inputs: tuple[Any, ...], output: list[Any]) -> None:
    """What the backward pass needs: the inputs, the output, lse."""
    ctx.set_materialize_grads(False)
    ctx.call = Call._make(None if isinstance(x, torch.Tensor) else x for x in inputs)
    ctx.save_for_backward(*(x if isinstance(x, torch.Tensor) else None for x in inputs), *output[:2])


def _kept(ctx: Any) -> tuple[Call, list[Any]]:
    tensors = ctx.saved_tensors
    merged = (value if x is None else x for x, value in zip(tensors, ctx.call, strict=False))
    return Call._make(merged), list(tensors[FIELDS:])


def _backward(ctx: Any, grads: list[Any]) -> tuple[Any, ...]:
    """From the gradients of the output, lse, and what else was returned."""
    call, (output, lse) = _kept(ctx)
    d_output, d_lse, *others = grads
    if any(x is not None for x in others):
        raise NotImplementedError(
            "a gradient of a statistic was asked for; only the output and lse have gradients; "
            "try seen.entropy.detach(), and the like."
        )
    if d_output is None:
        d_output = torch.zeros_like(output)
    wanted = [needs and getattr(call, name) is not None for name, needs in _needs(ctx)]
    found = BACKWARD(*call, output, lse, d_output, d_lse, wanted)
    named = dict(zip(_chosen(wanted), found, strict=True))
    return tuple(named.get(name) for name in Call._fields)


def _needs(ctx: Any) -> list[tuple[str, bool]]:
    needs = dict(zip(Call._fields, ctx.needs_input_grad, strict=False))
    return [(name, needs[name]) for name in DIFFERENTIABLE]


ATTENTION.register_autograd(_keep, _backward)


# ── Second order: the gradients' gradients, from the weights in full ──


def _keep_first(ctx: Any, inputs: tuple[Any, ...], output: list[Any]) -> None:
    """The inputs: output and lse are functions of them, and are computed again."""
    ctx.set_materialize_grads(False)
    call, (_, _, d_output, d_lse, ctx.wanted) = Call(*inputs[:FIELDS]), inputs[FIELDS:]
    ctx.call = Call._make(None if isinstance(x, torch.Tensor) else x for x in call)
    tensors = (x if isinstance(x, torch.Tensor) else None for x in call)
    ctx.save_for_backward(*tensors, d_output, d_lse)


def _second(ctx: Any, grads: list[Any]) -> tuple[Any, ...]:
    """Through q, k, …, dO, dlse ↦ dQ, dK, …; what leads through output and lse is in there too."""
    call, (d_output, d_lse) = _kept(ctx)
    named = {name: getattr(call, name) for name in DIFFERENTIABLE} | {"d_output": d_output, "d_lse": d_lse}
    given = {name: x for name, x in named.items() if x is not None}
    found, pull = torch.func.vjp(partial(_first, call, _chosen(ctx.wanted)), given)
    (back,) = pull([torch.zeros_like(x) if g is None else g for x, g in zip(found, grads, strict=True)])
    return tuple(back.get(name) for name in (*Call._fields, *_EXTRA))


def _first(call: Call, chosen: list[str], given: dict[str, Any]) -> list[Any]:
    """The first-order gradients that were wanted, in full, as a function of all that they depend on."""
    inputs = {name: x for name, x in given.items() if name in DIFFERENTIABLE}
    (_, lse), pull = torch.func.vjp(lambda named: dense.attention(call._replace(**named))[:2], inputs)
    d_lse = given["d_lse"].to(lse.dtype) if "d_lse" in given else torch.zeros_like(lse)
    (found,) = pull((given["d_output"], d_lse))
    return [found[name] for name in chosen]


BACKWARD.register(_run, _like)
BACKWARD.register_autograd(_keep_first, _second)
