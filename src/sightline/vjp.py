"""The door to gradients: what came out of attention and its gradient in, gradients of what went in out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sightline import arrays
from sightline.cpu import isa
from sightline.cpu.differentiate import differentiate
from sightline.cpu.work import available
from sightline.gradient_call import GradientCall
from sightline.options import check_seed, describe
from sightline.passes import GRADIENTS, passes
from sightline.problem import Problem, int_or_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sightline.arrays import View


class Gradients(NamedTuple):
    """With respect to each array of the call, in its shape, dtype and kind; None for those not wanted."""

    query: Any = None
    key: Any = None
    value: Any = None
    bias: Any = None
    sinks: Any = None
    alibi_slopes: Any = None


def attention_vjp(
    query: Any,
    key: Any,
    value: Any,
    output: Any,
    lse: Any,
    grad_output: Any,
    *,
    grad_lse: Any = None,
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
    seed: int | None = None,
    layout: str = "BHLD",
    precision: str = "highest",
    wanted: Sequence[str] = ("query", "key", "value"),
) -> Gradients:
    """The gradients of a loss, from its gradients with respect to attention's output and lse.

    The vector-Jacobian product of `attention`: weights are made again from query, key and lse, tile by tile, in
    memory that grows with the length. The same bits for any number of threads. A query that sees no key has
    gradient 0, and what a query does not see reaches none of its gradients.

    Args:
        query: As for `attention`, like key, value and every option, each with the value that it had there.
        key: See query.
        value: See query.
        output: (…, Hq, Lq, Dv), what `attention` gave.
        lse: (…, Hq, Lq), what `see=("lse",)` gave. Where keys were split and merged, the merged output and lse.
        grad_output: ∂loss/∂output, in the output's shape and dtype; any strides.
        grad_lse: ∂loss/∂lse, (…, Hq, Lq); 0 if left out.
        mask: See query.
        bias: See query.
        causal: See query.
        window: See query.
        query_offset: See query.
        key_lengths: See query.
        scale: See query.
        softcap: See query.
        sinks: See query.
        alibi_slopes: See query.
        dropout_p: See query.
        seed: See query: the weights that were dropped there are dropped here.
        layout: See query.
        precision: See query.
        wanted: names of the arrays whose gradients to make: "query", "key", "value", "bias", "sinks",
            "alibi_slopes".

    Returns:
        Gradients, each in the shape, dtype and kind of its array: summed over what was broadcast, and over the
        query heads that share a key head.

    Raises:
        TypeError, ValueError: what came, what was expected, and what to try.

    Example:
        >>> import numpy as np, sightline
        >>> q, k, v = np.random.default_rng(0).standard_normal((3, 1, 4, 100, 16))
        >>> out, seen = sightline.attention(q, k, v, causal=True, see=["lse"])
        >>> grads = sightline.attention_vjp(q, k, v, out, seen.lse, np.ones_like(out), causal=True)
        >>> grads.value.shape, bool(np.isclose(grads.value[..., 0].sum(), 400))  # weights of 4 × 100 queries
        ((1, 4, 100, 16), True)

    Source: Dao, FlashAttention-2, 2023, https://arxiv.org/abs/2307.08691
    """
    asked, seed = _asked(wanted), check_seed(seed, dropout_p)
    named = {"query": query, "key": key, "value": value, "mask": mask, "bias": bias}
    named |= {"sinks": sinks, "alibi_slopes": alibi_slopes}
    views = _views(named, asked)
    problem = Problem.of(
        **{name: looked_at.spec for name, looked_at in views.items()},
        query_offset=int_or_spec(query_offset, "query_offset"),
        key_lengths=int_or_spec(key_lengths, "key_lengths"),
        causal=causal,
        window=window,
        scale=scale,
        softcap=softcap,
        dropout_p=dropout_p,
        layout=layout,
        precision=precision,
    )
    call = GradientCall(problem, views)
    call.numbers["seed"] = seed
    call.read(output, "output", "out")
    call.read(grad_output, "grad_output", "d_out")
    call.read_rows(lse, "lse", "lse")
    if grad_lse is not None:
        call.read_rows(grad_lse, "grad_lse", "d_lse")
    return _made(call, {name: named[name] for name in asked}, query_offset, key_lengths)


def _views(named: dict[str, Any], asked: tuple[str, ...]) -> dict[str, View]:
    """A look at every array that is given, those that gradients are asked of among them."""
    views = {
        name: arrays.view(x, name) for name, x in named.items() if x is not None or name in GRADIENTS[:3]
    }
    for name in asked:
        if name not in views:
            raise ValueError(f'wanted has "{name}", but there is no {name} in the call; try leaving it out.')
    return views


def _made(call: GradientCall, asked: dict[str, Any], query_offset: object, key_lengths: object) -> Gradients:
    """The gradients of the arrays in `asked`: memory for them, and the passes that fill it."""
    for name, x in asked.items():
        call.make(name, x)
    per_sequence = {"query_offset": query_offset, "key_lengths": key_lengths}
    workers = call.workers
    for made in passes(call.problem, isa.chosen(), tuple(asked), call.bias_shape, available(workers)):
        differentiate(made, call.specs, call.numbers, per_sequence, workers)
    return Gradients(**{name: call.finished(name, x) for name, x in asked.items()})


def _asked(wanted: object) -> tuple[str, ...]:
    """The names of the gradients, in the fields' order."""
    names = tuple(wanted) if isinstance(wanted, list | tuple) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise TypeError(f'wanted is {describe(wanted)}; expected names such as ("query", "key", "value").')
    for name in names:
        if name not in GRADIENTS:
            raise ValueError(f'wanted has "{name}"; expected some of {", ".join(GRADIENTS)}.')
    return tuple(name for name in GRADIENTS if name in names)
