"""Gradients of attention in closed form, in NumPy float64: what backward kernels are tested against.

For dO = ∂loss/∂output and dlse = ∂loss/∂lse, with S the masked scores, P the weights and O the output:

    delta = Σ_d dO · O                                   one number for each query
    dP = (dO · Vᵀ) · kept                                kept: dropout's 0 or 1/(1 − p)
    dS = P · (dP − delta + dlse)                         0 wherever P is
    dV = (P · kept)ᵀ · dO
    dbias = dS
    dslope = −Σ_ij dS · |p − j|
    dsink = Σ_i exp(sink − lse) · (dlse − delta)         a sink is a key whose value is 0
    dscores = dS · (1 − (capped / softcap)²) · scale     1 − tanh² of the softcap, if any
    dQ = dscores · K
    dK = dscoresᵀ · Q

Query heads that share a key head add up there, and so does everything that was broadcast. A query that sees
nothing has gradient 0; what a query does not see reaches none of its gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline.reference import Steps, heads, in_layout, sum_over_seen
from sightline.reference_call import Array, Call, Float, heads_first, read


@dataclass(frozen=True, slots=True)
class Gradients:
    """With respect to each array of the call, in its shape; None for those that were not given."""

    query: Float
    key: Float
    value: Float
    bias: Float | None
    sinks: Float | None
    alibi_slopes: Float | None


def gradients(
    query: object, key: object, value: object, d_output: Array, d_lse: Array | None = None, **options: Any
) -> Gradients:
    """The gradients of a loss, from its gradients with respect to output and lse.

    Args:
        query: As for `reference.attention`, like key, value and the options (all of them but `score_mod`).
        key: See query.
        value: See query.
        d_output: In the shape and layout of the output.
        d_lse: (…, Hq, Lq), or (Lq,) in a plain (L, D) call; 0 if left out.
        options: See query.

    Raises:
        ValueError: `score_mod` is given, whose derivative nobody knows.
    """
    if options.get("score_mod") is not None:
        raise ValueError(
            "score_mod is given, but its derivative is unknown; try adding its effect as a bias."
        )
    call = read(query, key, value, **options)
    problem = call.problem
    rows = (*problem.batch, problem.heads, problem.queries)
    d_output = heads_first(np.asarray(d_output, np.float64), problem)
    d_lse = np.zeros(rows) if d_lse is None else np.asarray(d_lse, np.float64).reshape(rows)

    d_query, d_key, d_value = (np.zeros(x.shape) for x in (call.query, call.key, call.value))
    d_bias = np.zeros((*rows, problem.keys))
    d_sinks, d_slopes = np.zeros(problem.heads), np.zeros(problem.heads)
    for index, steps in heads(call):
        shared, head = (*index[:-1], index[-1] // problem.group), index[-1]
        one = head_gradients(call, index, steps, d_output[index], d_lse[index])
        d_query[index], d_bias[index] = one.query, one.bias
        d_key[shared] += one.key
        d_value[shared] += one.value
        d_sinks[head] += one.sinks
        d_slopes[head] += one.alibi_slopes
    return Gradients(
        as_given(in_layout(d_query, problem), call.shapes["query"]),
        as_given(in_layout(d_key, problem), call.shapes["key"]),
        as_given(in_layout(d_value, problem), call.shapes["value"]),
        None if call.bias is None else as_given(d_bias, call.shapes["bias"]),
        None if call.sinks is None else d_sinks,
        None if call.alibi_slopes is None else d_slopes,
    )


@np.errstate(all="ignore")  # NaN and Inf are numbers like others here
def head_gradients(
    call: Call, index: tuple[int, ...], steps: Steps, d_output: Float, d_lse: Float
) -> Gradients:
    """The gradients through the head at index (…, h)."""
    problem, head = call.problem, index[-1]
    shared = (*index[:-1], head // problem.group)
    query, key = call.query[index].astype(np.float64), call.key[shared].astype(np.float64)
    value = call.value[shared].astype(np.float64)
    seen, weights = steps.seen, steps.weights

    sees = seen.any(axis=1, keepdims=True)  # (Lq, 1)
    delta = np.where(sees, d_output * steps.output, 0.0).sum(axis=1, keepdims=True)  # (Lq, 1)
    used = seen & (steps.kept > 0)  # (Lq, Lk)
    d_weights = np.where(used, d_output @ value.T * steps.kept, 0.0)  # (Lq, Lk)
    d_masked = np.where(seen, weights * (d_weights - delta + d_lse[:, None]), 0.0)

    slope = 1.0 if problem.softcap is None else 1 - (steps.capped / problem.softcap) ** 2
    d_scores = np.where(seen, d_masked * slope * problem.scale, 0.0)
    distance = abs(steps.positions[:, None] - np.arange(problem.keys))
    sink = -np.inf if call.sinks is None else float(call.sinks[head])
    sink_weight = np.exp(sink - steps.lse[:, None]) if sink != -np.inf else np.zeros_like(delta)
    return Gradients(
        query=sum_over_seen(d_scores, seen, key),
        key=sum_over_seen(d_scores.T, seen.T, query),
        value=sum_over_seen((weights * steps.kept).T, used.T, d_output),
        bias=d_masked,
        sinks=(sink_weight * (d_lse[:, None] - delta)).sum(),
        alibi_slopes=-(d_masked * distance).sum(),
    )


def as_given(gradient: Float, shape: tuple[int, ...]) -> Float:
    """The sum over every axis that was broadcast from `shape`."""
    extra = gradient.ndim - len(shape)
    gradient = gradient.sum(axis=tuple(range(extra)))
    stretched = tuple(axis for axis, n in enumerate(shape) if n != gradient.shape[axis])
    total: Float = gradient.sum(axis=stretched, keepdims=True)
    return total
