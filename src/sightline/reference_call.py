"""What the reference is given: a call's arrays as NumPy sees them, validated as the door validates them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sightline.arrays import to_numpy, view
from sightline.options import check_seed
from sightline.problem import Problem, int_or_spec, sequence_ints

Array: TypeAlias = NDArray[Any]
Float: TypeAlias = NDArray[np.float64]
Bool: TypeAlias = NDArray[np.bool_]
Int: TypeAlias = NDArray[np.int64]
ScoreMod: TypeAlias = Callable[[Float, int, int, Int, Int], Float]
"""(score (Lq, Lk), batch, head, p (Lq, 1), j (1, Lk)) → score; batch counts the sequences in C order."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call's arrays in canonical form, broadcast but not yet converted, with its validated Problem."""

    problem: Problem
    query: Array  # (…, Hq, Lq, D)
    key: Array  # (…, Hkv, Lk, D)
    value: Array  # (…, Hkv, Lk, Dv)
    mask: Array | None  # (…, Hq, Lq, Lk)
    bias: Array | None  # (…, Hq, Lq, Lk)
    sinks: Array | None  # (Hq,)
    alibi_slopes: Array | None  # (Hq,)
    offsets: Int  # (…)
    key_lengths: Int  # (…)
    score_mod: ScoreMod | None
    seed: int
    shapes: dict[str, tuple[int, ...]]  # of the arrays as they came, by argument name


def read(
    query: object,
    key: object,
    value: object,
    *,
    mask: object = None,
    bias: object = None,
    causal: bool = False,
    window: tuple[int | None, int | None] | None = None,
    query_offset: object = None,
    key_lengths: object = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: object = None,
    alibi_slopes: object = None,
    score_mod: ScoreMod | None = None,
    dropout_p: float = 0.0,
    seed: int | None = None,
    layout: str = "BHLD",
    precision: str = "highest",
) -> Call:
    """Every option of the door that changes the answer; `precision` is taken and changes nothing here."""
    seed = check_seed(seed, dropout_p)
    named = {"query": query, "key": key, "value": value, "mask": mask, "bias": bias}
    named |= {"sinks": sinks, "alibi_slopes": alibi_slopes}
    required = ("query", "key", "value")  # a None among these is an error in the view's words
    views = {name: view(x, name) for name, x in named.items() if x is not None or name in required}
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
    arrays = {name: to_numpy(looked_at) for name, looked_at in views.items()}
    scores = (*problem.batch, problem.heads, problem.queries, problem.keys)
    return Call(
        problem=problem,
        query=heads_first(arrays["query"], problem),
        key=heads_first(arrays["key"], problem),
        value=heads_first(arrays["value"], problem),
        mask=None if mask is None else np.broadcast_to(arrays["mask"], scores),
        bias=None if bias is None else np.broadcast_to(arrays["bias"], scores),
        sinks=arrays.get("sinks"),
        alibi_slopes=arrays.get("alibi_slopes"),
        offsets=sequence_ints(0 if query_offset is None else query_offset, "query_offset", problem),
        key_lengths=sequence_ints(
            problem.keys if key_lengths is None else key_lengths, "key_lengths", problem
        ),
        score_mod=score_mod,
        seed=seed,
        shapes={name: x.shape for name, x in arrays.items()},
    )


def heads_first(x: Array, problem: Problem) -> Array:
    """Query, key or value as (…, H, L, D), with the call's batch; a plain (L, D) array is one head."""
    if problem.rank == 2:
        return x[None]
    x = x.swapaxes(-3, -2) if problem.layout == "BLHD" else x
    return np.broadcast_to(x, (*problem.batch, *x.shape[-3:]))
