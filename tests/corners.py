"""The corners of the conformance table: unusual strides, and NaN and Inf, hidden and in sight."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cases import Array, Case, bias_column, bias_with, mask_hiding, mask_without, per_head, random_mask

if TYPE_CHECKING:
    from collections.abc import Callable

# ── Special values ──


def poison_keys(first: int, end: int) -> Callable[[Array, Array, Array], None]:
    """NaN and Inf in keys and values [first, end)."""

    def poison(query: Array, key: Array, value: Array) -> None:
        key[..., first:end, :] = np.nan
        value[..., first:end, ::2], value[..., first:end, 1::2] = np.nan, np.inf

    return poison


def put(name: str, number: float, *where: int) -> Callable[[Array, Array, Array], None]:
    """One number, at [head, position, dim], in the query, key or value of every sequence."""

    def poison(query: Array, key: Array, value: Array) -> None:
        chosen = {"query": query, "key": key, "value": value}[name]
        for sequence in np.ndindex(chosen.shape[:-3]):
            chosen[(*sequence, *where)] = number

    return poison


def infinite_scores(sign: float) -> Callable[[Array, Array, Array], None]:
    """Queries all positive, and key 3 infinite: its score is ±∞ for everyone."""

    def poison(query: Array, key: Array, value: Array) -> None:
        np.abs(query, out=query)
        key[..., 3, :] = sign * np.inf

    return poison


# ── The same numbers, lying otherwise in memory. What lies between them is NaN ──


def reversed_lengths(x: Array) -> Array:
    return np.ascontiguousarray(x[..., ::-1, :])[..., ::-1, :]


def reversed_dims(x: Array) -> Array:
    return np.ascontiguousarray(x[..., ::-1])[..., ::-1]


def every_other(x: Array) -> Array:
    """Last dimension with stride 2."""
    wide = np.full((*x.shape, 2), np.nan, x.dtype)
    wide[..., 0] = x
    return wide[..., 0]


def dims_first(x: Array) -> Array:
    """Dimension before length in memory, as a transposed K often is."""
    return np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)


def amid_nan(x: Array) -> Array:
    """A slice of a larger array: whoever reads past an edge reads NaN."""
    wide = np.full(tuple(n + 2 for n in x.shape), np.nan, x.dtype)
    inside = wide[tuple(slice(1, -1) for _ in x.shape)]
    inside[...] = x
    return inside


def heads_broadcast(x: Array) -> Array:
    """All heads are the first one, with stride 0."""
    return np.broadcast_to(x[..., :1, :, :], x.shape)


def lengths_broadcast(x: Array) -> Array:
    """All positions are the first one, with stride 0."""
    return np.broadcast_to(x[..., :1, :], x.shape)


def read_only(x: Array) -> Array:
    x.flags.writeable = False
    return x


ARRANGEMENTS = [
    reversed_lengths,
    reversed_dims,
    every_other,
    dims_first,
    amid_nan,
    heads_broadcast,
    read_only,
]

# ── The cases ──

MEMORY = [
    *(
        Case(f"memory-{arrange.__name__}", heads=(4, 2), lengths=(33, 70), dims=(40, 40), arrange=arrange)
        for arrange in ARRANGEMENTS
    ),
    Case("memory-lengths-broadcast", lengths=(33, 70), arrange=lengths_broadcast),
    Case(
        "memory-amid-nan-odd",
        lengths=(7, 67),
        dims=(7, 9),
        arrange=amid_nan,
        options={"query_offset": 0, "causal": True},
    ),
    Case("memory-amid-nan-blhd", heads=(4, 2), arrange=amid_nan, options={"layout": "BLHD"}),
    Case("memory-every-other-plain", heads=(1, 1), batch=(), plain=True, arrange=every_other),
]

SPECIAL = [
    Case("nan-past-key-lengths", poison=poison_keys(40, 65), options={"key_lengths": 40}),
    Case(
        "nan-past-causal",
        poison=poison_keys(30, 70),
        lengths=(30, 70),
        options={"query_offset": 0, "causal": True},
    ),
    Case("nan-in-the-future", poison=poison_keys(33, 34), options={"causal": True}),
    Case("nan-before-window", poison=poison_keys(0, 1), options={"causal": True, "window": (5, 0)}),
    Case("nan-behind-mask", poison=poison_keys(10, 13), options={"mask": mask_hiding(10, 11, 12)}),
    Case("nan-behind-random-mask", poison=poison_keys(10, 12), options={"mask": random_mask("hqk")}),
    Case(
        "nan-value-behind-bias",
        poison=put("value", np.nan, 0, 4, 1),
        options={"bias": bias_column(-np.inf, 4)},
    ),
    Case(
        "inf-value-behind-bias",
        poison=put("value", np.inf, 1, 64, 0),
        options={"bias": bias_column(-np.inf, 64)},
    ),
    Case("nan-keys-for-nobody", lengths=(9, 9), poison=poison_keys(0, 9), options={"key_lengths": 0}),
    Case("nan-key-seen", poison=put("key", np.nan, 1, 20, 3), options={"causal": True}),
    Case("nan-key-seen-gqa", heads=(4, 2), poison=put("key", np.nan, 1, 20, 3), options={"window": (3, 3)}),
    Case("nan-query", poison=put("query", np.nan, 0, 5, 0)),
    Case("inf-query", poison=put("query", np.inf, 0, 5, 0)),
    Case(
        "nan-query-that-sees-nothing",
        poison=put("query", np.nan, 0, 17, 0),
        options={"mask": mask_without(17)},
    ),
    Case("nan-value-seen", poison=put("value", np.nan, 0, 20, 3), options={"causal": True}),
    Case("inf-value-seen", poison=put("value", np.inf, 1, 20, 3), options={"causal": True}),
    Case("inf-value-seen-negative", poison=put("value", -np.inf, 1, 64, 0)),
    Case(
        "score-plus-inf", lengths=(9, 9), dims=(1, 8), poison=infinite_scores(1.0), options={"causal": True}
    ),
    Case(
        "score-minus-inf", lengths=(9, 9), dims=(1, 8), poison=infinite_scores(-1.0), options={"causal": True}
    ),
    Case(
        "score-minus-inf-alone",
        lengths=(9, 9),
        dims=(1, 8),
        poison=infinite_scores(-1.0),
        options={"window": (0, 0)},
    ),
    Case(
        "score-plus-inf-capped",
        lengths=(9, 9),
        dims=(1, 8),
        poison=infinite_scores(1.0),
        options={"softcap": 3.0},
    ),
    Case("bias-nan", options={"bias": bias_with(np.nan, 7, 9)}),
    Case("bias-nan-masked", options={"bias": bias_with(np.nan, 7, 9), "mask": mask_hiding(9)}),
    Case("bias-plus-inf", options={"bias": bias_with(np.inf, 7, 9)}),
    Case("sink-nan", options={"sinks": per_head(np.nan, 1.0)}),
    Case("sink-plus-inf", options={"sinks": per_head(1.0, np.inf), "mask": mask_without(4)}),
]
