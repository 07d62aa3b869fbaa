"""What the second pass must say of a conformance case: the definition's numbers, and how far off they may be.

A weight is off by r·w (r as in `judge`), plus what underflows. So what is summed from weights is off by the sum
of that and, adding n weights, by λ·u·√n of the sum. Of top keys, places are free where weights are as good as
equal: what has to be right is the weight of the key that is named, and that no larger one was left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cases import DTYPES, Array, Case, build
from judge import DEVIATIONS, arithmetic, compare, unit_roundoff, weight_error
from sightline import reference
from sightline.reference_call import read
from sightline.reference_statistics import attention_received, diagonals, pooled

if TYPE_CHECKING:
    from sightline import See


@dataclass(frozen=True)
class Weights:
    """All weights of a case, and a bound for each."""

    steps: reference.Steps
    bounds: Array
    group: int
    plain: bool
    dtype: Any


def weights(case: Case, dtype: str, heads: tuple[int, ...] | None) -> Weights:
    """The definition's weights of the chosen heads, (…, H, Lq, Lk)."""
    inputs = build(case, dtype)
    call = read(inputs.query, inputs.key, inputs.value, **inputs.options)
    p, u = call.problem, unit_roundoff(arithmetic(dtype))
    steps = reference.empty_steps(p)
    slip = np.empty((*p.batch, p.heads, p.queries))
    for index, head in reference.heads(call):
        for name in ("weights", "masked", "lse", "max_score", "positions"):
            getattr(steps, name)[index] = getattr(head, name)
        slip[index] = DEVIATIONS * u * (weight_error(call, index, head) + np.sqrt(p.queries))
    chosen = list(range(p.heads)) if heads is None else list(heads)
    for name in ("weights", "masked", "lse", "max_score", "positions"):
        object.__setattr__(steps, name, np.take(getattr(steps, name), chosen, axis=len(p.batch)))
    slip = np.take(slip, chosen, axis=len(p.batch))
    tiny = float(np.finfo(arithmetic(dtype)).tiny)
    with np.errstate(invalid="ignore"):
        bounds = np.where(steps.seen, (slip[..., None] + u) * steps.weights + tiny, 0.0)
    return Weights(steps, bounds, p.group, p.rank == 2, DTYPES[arithmetic(dtype)])


def check(case: Case, dtype: str, seen: Any, request: See) -> None:
    """Raise AssertionError unless this is what is to be seen of the case by a second pass."""
    want = weights(case, dtype, request.heads)
    loose = reference.Steps(
        **{name: getattr(want.steps, name) for name in reference.Steps.__slots__ if name != "weights"},
        weights=want.bounds,
    )
    how = request.how_received
    if how:
        bound = attention_received(loose, how, want.group)
        _compare("received", seen.received, attention_received(want.steps, how, want.group), bound, want)
    if request.pooled:
        bound = pooled(loose, *request.pooled)
        _compare("pooled", seen.pooled, pooled(want.steps, *request.pooled), bound, want)
    if request.diagonals:
        _compare("diagonals", seen.diagonals, diagonals(want.steps), diagonals(loose), want)
    if request.rows is not None:
        rows = list(request.rows)
        _compare("rows", seen.rows, want.steps.weights[..., rows, :], want.bounds[..., rows, :], want)
    if request.top_keys:
        _check_top_keys(seen.top_keys, want, request.top_keys)


def _compare(name: str, got: Any, expected: Array, bound: Array, want: Weights) -> None:
    if want.plain:
        expected, bound = expected[0], bound[0]
    assert np.asarray(got).dtype == want.dtype, f"{name} is {np.asarray(got).dtype}, expected {want.dtype}"
    compare(name, np.asarray(got).astype(np.float64), expected, bound)


def _check_top_keys(got: Any, want: Weights, count: int) -> None:
    """Each weight is that of its key; in descending order; and the k-th is as large as the k-th largest."""
    indices, found = (np.asarray(x)[None] if want.plain else np.asarray(x) for x in got)
    steps = want.steps
    assert indices.dtype == np.dtype(np.int64)
    assert found.dtype == want.dtype
    assert indices.shape == found.shape == (*steps.lse.shape, count)
    undefined = np.isnan(steps.lse)
    assert (indices[undefined] == -1).all()
    assert np.isnan(found[undefined]).all()
    visible = np.where(undefined, 0, steps.seen.sum(axis=-1))
    there = np.arange(count) < visible[..., None]
    assert ((indices >= 0) == there).all(), "top_keys: a key is missing, or one too many"
    assert (found[~there & ~undefined[..., None]] == 0).all(), "top_keys: a weight without a key"
    if not steps.weights.shape[-1]:
        return
    place = np.where(there, indices, 0)
    named, bound = (np.take_along_axis(x, place, axis=-1) for x in (steps.weights, want.bounds))
    seen = np.take_along_axis(steps.seen, place, axis=-1)
    assert (seen | ~there).all(), "top_keys: a key that is not seen"
    compare("top_keys", np.where(there, found, 0.0), np.where(there, named, 0.0), np.where(there, bound, 0.0))
    assert (np.diff(np.where(there, found, 0.0), axis=-1) <= 0).all(), "top_keys: not in descending order"
    largest = -np.sort(-np.where(steps.seen & ~undefined[..., None], steps.weights, 0.0), axis=-1)[
        ..., :count
    ]
    wide = np.zeros(found.shape)
    wide[..., : largest.shape[-1]] = largest
    assert (np.where(there, wide - found, 0.0) <= 2 * np.where(there, bound, 0.0)).all(), (
        "top_keys: a larger one"
    )
    repeated = np.sort(np.where(there, indices, -1 - np.arange(count)), axis=-1)
    assert (np.diff(repeated, axis=-1) > 0).all(), "top_keys: a key twice"
