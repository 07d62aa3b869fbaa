"""Every statistic of `See` from the weights in full, in float64: what the streamed ones are tested against.

All take the steps of one head, or of many stacked in front. An undefined query (see `reference`) has NaN in
every statistic, and so has whatever it adds to.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sightline.see import Received, See, Seen, TopKeys

if TYPE_CHECKING:
    from sightline.reference import Steps
    from sightline.reference_call import Float


def see(steps: Steps, request: See, group: int = 1) -> Seen:
    """What was asked for, in float64; `group`: query heads per key head, which Received.per_group needs."""
    if request.heads is not None:
        steps = of_heads(steps, request.heads)
    received = request.how_received
    return Seen(
        lse=steps.lse if request.lse else None,
        max_score=steps.max_score if request.max_score else None,
        entropy=entropy(steps) if request.entropy else None,
        distance=distance(steps) if request.distance else None,
        received=attention_received(steps, received, group) if received else None,
        top_keys=top_keys(steps, request.top_keys) if request.top_keys else None,
        pooled=pooled(steps, *request.pooled) if request.pooled else None,
        rows=None if request.rows is None else steps.weights[..., list(request.rows), :],
        diagonals=diagonals(steps) if request.diagonals else None,
    )


def of_heads(steps: Steps, heads: tuple[int, ...]) -> Steps:
    """The steps of some heads: what is about queries and keys; the output is of all."""
    chosen = list(heads)
    matrices = ("scores", "scaled", "capped", "masked", "weights")
    made = {name: getattr(steps, name)[..., chosen, :, :] for name in matrices}
    made |= {name: getattr(steps, name)[..., chosen, :] for name in ("lse", "max_score", "positions")}
    return replace(steps, **made)


def entropy(steps: Steps) -> Float:
    """−Σ_j w · log w: (…, Hq, Lq). A sink has no part in the sum."""
    logs = np.log(np.where(steps.weights > 0, steps.weights, 1.0))  # 0 · log 0 is 0
    return or_undefined(steps, 0.0 - (steps.weights * logs).sum(axis=-1))


def distance(steps: Steps) -> Float:
    """Σ_j w · |p − j|: (…, Hq, Lq)."""
    far = abs(steps.positions[..., None] - np.arange(steps.weights.shape[-1]))
    return or_undefined(steps, (steps.weights * far).sum(axis=-1))


def or_undefined(steps: Steps, per_query: Float) -> Float:
    """NaN for undefined queries, also those that see no key (under a sink of NaN or +∞)."""
    return np.where(np.isnan(steps.lse), np.nan, per_query)


def attention_received(steps: Steps, received: Received, group: int = 1) -> Float:
    """The sum, or the largest, of the weights that each key has from the queries that count: (…, Hq, Lk).

    Divided by the number of them that see the key, if `normalize`; its mean over each group, if `per_group`.
    """
    counted = slice(None) if received.queries is None else received.queries
    weights = steps.weights[..., counted, :]
    total: Float = weights.sum(axis=-2) if received.reduce == "sum" else weights.max(axis=-2, initial=0.0)
    if received.normalize:
        total = total / np.maximum(steps.seen[..., counted, :].sum(axis=-2), 1)
    if received.per_group and total.ndim > 1:  # a plain (L, D) call has no axis of heads
        *stack, heads, keys = total.shape
        total = total.reshape(*stack, heads // group, group, keys).mean(axis=-2)
    return total


def top_keys(steps: Steps, count: int) -> TopKeys:
    """The largest weights and their keys, (…, Hq, Lq, count); −1 and 0 where a query sees fewer keys.

    Of equal weights the first key comes first. In an undefined row all are −1 and NaN.
    """
    order = np.argsort(np.where(steps.seen, -steps.weights, np.inf), axis=-1, kind="stable")[..., :count]
    found = np.take_along_axis(steps.seen, order, axis=-1)
    undefined = np.isnan(steps.lse)[..., None]
    indices = np.full((*steps.lse.shape, count), -1, np.int64)
    weights = np.where(undefined, np.nan, np.zeros(indices.shape))
    width = order.shape[-1]
    indices[..., :width] = np.where(found & ~undefined, order, -1)
    weights[..., :width] += np.where(found, np.take_along_axis(steps.weights, order, axis=-1), 0.0)
    return TopKeys(indices, weights)


def pooled(steps: Steps, rows: int, columns: int) -> Float:
    """The weights summed in blocks, (…, Hq, R, C): query i in block i·R // Lq, key j in block j·C // Lk."""
    *stack, queries, keys = steps.weights.shape
    blocks = np.zeros((*stack, rows, columns))
    row_of = np.arange(queries) * rows // max(queries, 1)  # (Lq,)
    column_of = np.arange(keys) * columns // max(keys, 1)  # (Lk,)
    for row in range(rows):
        strip = steps.weights[..., row_of == row, :].sum(axis=-2)  # (…, Hq, Lk)
        for column in range(columns):
            blocks[..., row, column] = strip[..., column_of == column].sum(axis=-1)
    return blocks


def diagonals(steps: Steps) -> Float:
    """The sum along each diagonal j − i, from −(Lq − 1) to Lk − 1: (…, Hq, Lq + Lk − 1)."""
    *stack, queries, keys = steps.weights.shape
    sums = np.zeros((*stack, max(queries + keys - 1, 0)))
    for place in range(sums.shape[-1]):
        sums[..., place] = np.trace(steps.weights, offset=place - (queries - 1), axis1=-2, axis2=-1)
    return sums
