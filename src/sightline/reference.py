"""The definition: attention as the textbook writes it, in NumPy float64, one head at a time.

Every kernel is tested against this file and nothing else. For query i, at p = query_offset + i, and key j:

    scores   q_i · k_j
    scaled   scale · scores                                  scale defaults to 1/√D
    capped   softcap · tanh(scaled / softcap)                if softcap
    masked   score_mod(capped) + bias − slope · |p − j|      where allowed, else −∞
    weights  exp(masked − lse)                               where masked is not −∞, else exactly 0
    kept     1/(1 − p), or 0 where the weight is dropped     1 without dropout
    output   Σ_j weights · kept · v_j                        over the keys that have a weight and are kept

    allowed  mask and j < key_length and (j ≤ p if causal) and (p − left ≤ j ≤ p + right if window)
    lse      log(Σ_j exp(masked) + exp(sink))                natural logarithm

A query that sees no key has output 0 and lse −∞ (with a sink: lse = sink). An undefined query, which sees a
score of NaN or +∞, has NaN for output, lse and max_score. What a query does not see never reaches it.
Which weights are dropped, `reference_dropout` says.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.reference_call import Array, Bool, Call, Float, Int, read
from sightline.reference_dropout import kept_or_not

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sightline.problem import Problem


@dataclass(frozen=True, slots=True)
class Steps:
    """What each step of attention leaves behind, in float64: of one head, or of all heads stacked in front.

    `attention` gives `output` in the caller's layout, and a plain (L, D) call has no head axis.
    """

    scores: Float  # (…, Hq, Lq, Lk)
    scaled: Float  # (…, Hq, Lq, Lk)
    capped: Float  # (…, Hq, Lq, Lk)
    masked: Float  # (…, Hq, Lq, Lk)
    weights: Float  # (…, Hq, Lq, Lk)
    kept: Float  # (…, Hq, Lq, Lk), 0 where a weight is dropped, else 1 / (1 − dropout_p)
    output: Float  # (…, Hq, Lq, Dv)
    lse: Float  # (…, Hq, Lq)
    max_score: Float  # (…, Hq, Lq), largest of `masked`: the sink is not a score
    positions: Int  # (…, Hq, Lq), p

    @property
    def seen(self) -> Bool:
        """Which keys have a weight, (…, Hq, Lq, Lk): the allowed ones, less those whose score is −∞."""
        return ~np.isneginf(self.masked)


def attention(query: object, key: object, value: object, **options: Any) -> Steps:
    """All steps of all heads, for (…, Hq, Lq, Lk) matrices that fit in memory; `read` lists the options."""
    return all_heads(read(query, key, value, **options))


def all_heads(call: Call) -> Steps:
    """The steps of all heads, stacked."""
    steps = empty_steps(call.problem)
    for index, head in heads(call):
        for field in fields(Steps):
            getattr(steps, field.name)[index] = getattr(head, field.name)
    return as_called(steps, call.problem)


def output_and_lse(query: object, key: object, value: object, **options: Any) -> tuple[Float, Float]:
    """The output, in the caller's layout, and the lse (…, Hq, Lq), keeping one head's matrices at a time."""
    call = read(query, key, value, **options)
    problem = call.problem
    rows = (*problem.batch, problem.heads, problem.queries)
    output, lse = np.empty((*rows, problem.value_dim)), np.empty(rows)
    for index, head in heads(call):
        output[index], lse[index] = head.output, head.lse
    return in_layout(output, problem), lse[0] if problem.rank == 2 else lse


def heads(call: Call) -> Iterator[tuple[tuple[int, ...], Steps]]:
    """Each head's index (…, h) with its steps, one at a time."""
    for index in np.ndindex(*call.problem.batch, call.problem.heads):
        yield index, one_head(call, index)


@np.errstate(all="ignore")  # NaN, Inf and log 0 mean what the definition says they mean
def one_head(call: Call, index: tuple[int, ...]) -> Steps:
    """Attention of the head at index (…, h), step by step."""
    problem, batch, head = call.problem, index[:-1], index[-1]
    shared = (*batch, head // problem.group)  # the key head that this query head reads
    query = call.query[index].astype(np.float64)  # (Lq, D)
    key = call.key[shared].astype(np.float64)  # (Lk, D)
    value = call.value[shared].astype(np.float64)  # (Lk, Dv)
    p = call.offsets[batch] + np.arange(problem.queries)[:, None]  # (Lq, 1)
    j = np.arange(problem.keys)[None, :]  # (1, Lk)

    scores = query @ key.T  # (Lq, Lk)
    scaled = scores * problem.scale
    capped = scaled if problem.softcap is None else problem.softcap * np.tanh(scaled / problem.softcap)
    masked = np.where(allowed(call, index, p, j), modified(call, index, capped, p, j), -np.inf)

    max_score = masked.max(axis=1, initial=-np.inf)  # (Lq,)
    sink = -np.inf if call.sinks is None else float(call.sinks[head])
    shift, total = denominator(masked, max_score, sink)  # (Lq,), (Lq,)
    lse = shift + np.log(total)  # (Lq,)

    seen = ~np.isneginf(masked)  # (Lq, Lk)
    # exp(masked − lse), without the rounding of lse: at scores of 10³⁰ that would be all there is.
    weights = np.where(seen, np.exp(masked - shift[:, None]) / total[:, None], 0.0)
    kept = factors(call, index)  # (Lq, Lk)
    output = sum_over_seen(weights * kept, seen & (kept > 0), value)  # (Lq, Dv)

    undefined = np.isnan(lse)
    output[undefined], max_score[undefined] = np.nan, np.nan
    return Steps(scores, scaled, capped, masked, weights, kept, output, lse, max_score, p[:, 0])


def modified(call: Call, index: tuple[int, ...], score: Float, p: Int, j: Int) -> Float:
    """score_mod(score) + bias − slope · |p − j|, each if given: (Lq, Lk)."""
    batch, head = index[:-1], index[-1]
    if call.score_mod is not None:
        sequence = int(np.ravel_multi_index(batch, call.problem.batch)) if batch else 0
        score = np.broadcast_to(call.score_mod(score, sequence, head, p, j), score.shape)
    if call.bias is not None:
        score = score + call.bias[index].astype(np.float64)
    if call.alibi_slopes is not None:
        score = score - float(call.alibi_slopes[head]) * abs(p - j)
    return score


def allowed(call: Call, index: tuple[int, ...], p: Int, j: Int) -> Bool:
    """Which keys each query may see: (Lq, Lk)."""
    may = np.broadcast_to(j < call.key_lengths[index[:-1]], (p.size, j.size))
    if call.mask is not None:
        may = may & call.mask[index]
    if call.problem.causal:
        may = may & (j <= p)
    left, right = call.problem.window or (None, None)
    if left is not None:
        may = may & (p - left <= j)
    if right is not None:
        may = may & (j <= p + right)
    return may


def factors(call: Call, index: tuple[int, ...]) -> Float:
    """What dropout multiplies each weight by, (Lq, Lk)."""
    problem, *batch, head = call.problem, *index
    if not problem.dropout_p:
        return np.ones((problem.queries, problem.keys))
    sequence = int(np.ravel_multi_index(tuple(batch), problem.batch)) if batch else 0
    return kept_or_not(call.seed, problem.dropout_p, sequence, head, problem.queries, problem.keys)


def denominator(masked: Float, max_score: Float, sink: float) -> tuple[Float, Float]:
    """Shift and total, (Lq,) each, with exp(shift) · total = Σ_j exp(masked) + exp(sink): none overflows."""
    top = np.maximum(max_score, sink)
    shift = np.where(np.isfinite(top), top, 0.0)
    total = np.exp(masked - shift[:, None]).sum(axis=1) + np.exp(sink - shift)
    return shift, np.where(np.isposinf(top), np.nan, total)


def sum_over_seen(weights: Float, seen: Bool, values: Float) -> Float:
    """Σ_j weights[i, j] · values[j] over seen[i, j]: the rest is not even multiplied, for 0 · NaN is NaN."""
    finite = np.isfinite(values)
    total: Float = weights @ np.where(finite, values, 0.0)
    for j in np.flatnonzero(~finite.all(axis=1)):
        rows = seen[:, j]
        total[rows] += weights[rows, j, None] * np.where(finite[j], 0.0, values[j])
    return total


def empty_steps(problem: Problem) -> Steps:
    """Room for the steps of all heads."""
    rows = (*problem.batch, problem.heads, problem.queries)
    scores, scaled, capped, masked, weights, kept = (np.empty((*rows, problem.keys)) for _ in range(6))
    output, lse, max_score = np.empty((*rows, problem.value_dim)), np.empty(rows), np.empty(rows)
    positions = np.empty(rows, np.int64)
    return Steps(scores, scaled, capped, masked, weights, kept, output, lse, max_score, positions)


def as_called(steps: Steps, problem: Problem) -> Steps:
    """Stacked steps with the caller's axes: a plain (L, D) call has no head axis."""
    if problem.rank == 2:
        return Steps(*(getattr(steps, field.name)[0] for field in fields(Steps)))
    return replace(steps, output=in_layout(steps.output, problem))


def in_layout(x: Array, problem: Problem) -> Array:
    """(…, H, L, D) in the caller's rank and layout."""
    plain: Array = x[0] if problem.rank == 2 else x
    return plain.swapaxes(-3, -2) if problem.layout == "BLHD" and problem.rank > 2 else plain
