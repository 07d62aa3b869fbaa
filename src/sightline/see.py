"""What can be seen of the weights of an attention call: the request, `See`, and the answer, `Seen`.

The weights themselves are never stored. Each field is something that can be said of them in O(L) memory, and
has the same name in the request and in the answer. Nothing is computed here.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple


@dataclass(frozen=True, slots=True)
class Received:
    """How to sum up the attention that each key received."""

    queries: slice | None = None
    """The queries that count, as in `slice(-64, None)` for the last 64; None for all."""
    reduce: Literal["sum", "max"] = "sum"
    """Whether to take the sum of their weights, or the largest."""


@dataclass(frozen=True, slots=True)
class See:
    """What to see: one field for each thing that can be asked. Nothing is asked by default."""

    lse: bool = False
    """log Σ exp(score) over the keys that a query may see (and its head's sink), natural logarithm."""
    max_score: bool = False
    """The largest score that a query saw."""
    entropy: bool = False
    """−Σ w · log w over the keys, in nats."""
    distance: bool = False
    """Σ w · |p − j|: how far away a query looked on average, in positions."""
    received: bool | Received = False
    """The attention that each key received, from all queries or as a `Received` says."""
    top_keys: int = 0
    """How many of a query's largest weights to name, with their keys."""
    pooled: tuple[int, int] | None = None
    """The size (R, C) to which the weight matrix is summed down in blocks: a picture of any length."""
    rows: tuple[int, ...] | None = None
    """The queries whose weights to return in full."""
    diagonals: bool = False
    """The sum of the weights along each diagonal."""


PER_QUERY = ("lse", "max_score", "entropy", "distance")
"""The statistics that are one number for each query: they come out of the pass that makes the output."""


def requested(see: object) -> See:
    """The request that `see=` means: a See, or the names of some of its fields.

    Raises:
        TypeError, ValueError: what came, what was expected, and what to try.
    """
    if see is None or isinstance(see, See):
        return see or See()
    names = [field.name for field in fields(See)]
    if isinstance(see, str) or not isinstance(see, Iterable):
        raise TypeError(f'see is {see!r}; expected a See or names of its fields; try see=("lse", "entropy").')
    asked = list(see)
    for name in asked:
        if name not in names:
            raise ValueError(f"see has {name!r}; expected names among {', '.join(names)}.")
        if name in {"top_keys", "pooled", "rows"}:
            raise ValueError(f"see has the name {name!r}, which needs a value; try see=See({name}=…).")
    flags: dict[str, Any] = dict.fromkeys(asked, True)
    return See(**flags)


class TopKeys(NamedTuple):
    """The largest weights of each query, in descending order; of equal weights the first key comes first."""

    indices: Any
    """(…, Hq, Lq, k) int64: the keys; −1 where a query sees fewer than k."""
    weights: Any
    """(…, Hq, Lq, k): their weights; 0 where a query sees fewer than k."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen: a field is None unless it was asked for.

    The arrays are of the same kind as the output (NumPy for NumPy, torch for torch) and of type float32, or
    float64 where the inputs are. Heads come before queries in them, whatever the inputs' layout. A query
    that sees no key has weights 0, entropy 0, lse −inf (or its sink) and max_score −inf.
    Inputs of rank 2 have no head axis, and so their statistics have none.
    """

    lse: Any = None
    """(…, Hq, Lq): log-sum-exp in nats. It is what merging partial results needs."""
    max_score: Any = None
    """(…, Hq, Lq): the largest score, after scale, softcap and bias, of the keys a query may see."""
    entropy: Any = None
    """(…, Hq, Lq): −Σ w · log w in nats, between 0 and log Lk."""
    distance: Any = None
    """(…, Hq, Lq): Σ w · |p − j| in positions, p being query_offset + i."""
    received: Any = None
    """(…, Hq, Lk): the sum (or largest) of the weights that each key received from the queries that count."""
    top_keys: TopKeys | None = None
    """Indices and weights, each (…, Hq, Lq, k), of the k largest weights."""
    pooled: Any = None
    """(…, Hq, R, C): the weight matrix summed in R × C blocks."""
    rows: Any = None
    """(…, Hq, n, Lk): the exact weights of the n queries asked for."""
    diagonals: Any = None
    """(…, Hq, Lq + Lk − 1): the sum along each diagonal j − i, from −(Lq − 1) to Lk − 1."""
