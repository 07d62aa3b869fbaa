"""What can be seen of the weights of an attention call: the request, `See`, and the answer, `Seen`.

The weights themselves are never stored. Each field is something that can be said of them in O(L) memory, and
has the same name in the request and in the answer. Nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from os import PathLike


@dataclass(frozen=True, slots=True)
class Received:
    """How to sum up the attention that each key received."""

    queries: slice | None = None
    """The queries that count, as in `slice(-64, None)` for the last 64; None for all."""
    reduce: Literal["sum", "max"] = "sum"
    """Whether to take the sum of their weights, or the largest."""
    normalize: bool = False
    """Whether to divide a sum by the number of queries that count and see the key (0 where none does): the
    first keys of a causal sequence, which all later queries see, then have no advantage."""
    per_group: bool = False
    """Whether to take the mean over the query heads that share a key head: (…, Hkv, Lk) instead of (…, Hq, Lk)."""

    def __post_init__(self) -> None:
        bounds = () if self.queries is None else (self.queries.start, self.queries.stop, self.queries.step)
        if any(bound is not None and not _is_int(bound) for bound in bounds) or 0 in bounds[2:]:
            raise ValueError(
                f"received.queries is {self.queries!r}; expected a slice of ints; try slice(-64, None)."
            )
        if self.reduce not in {"sum", "max"}:
            raise ValueError(f'received.reduce is {self.reduce!r}; expected "sum" or "max".')
        if self.normalize and self.reduce == "max":
            raise ValueError('received.normalize divides sums; expected reduce="sum" with it.')

    def __hash__(self) -> int:  # slices have none before Python 3.12
        return hash((str(self.queries), self.reduce, self.normalize, self.per_group))


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
    """The queries whose weights to return in full; negative ones count from the end."""
    diagonals: bool = False
    """The sum of the weights along each diagonal."""
    heads: tuple[int, ...] | None = None
    """The query heads to see, in this order; None for all. Every field's axis of heads is then as long as this."""

    def __post_init__(self) -> None:
        for name in (*PER_QUERY, "diagonals"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"see.{name} is {getattr(self, name)!r}; expected True or False.")
        if not isinstance(self.received, (bool, Received)):
            raise TypeError(f"see.received is {self.received!r}; expected True, False or a Received.")
        if not _is_int(self.top_keys) or self.top_keys < 0:
            raise ValueError(f"see.top_keys is {self.top_keys!r}; expected how many, an int ≥ 0; try 8.")
        for name in ("pooled", "rows", "heads"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _ints(getattr(self, name), name))
        if self.pooled is not None and (len(self.pooled) != 2 or min(self.pooled) < 1):
            raise ValueError(f"see.pooled is {self.pooled!r}; expected two ints ≥ 1; try (256, 256).")

    @property
    def how_received(self) -> Received | None:
        """`received` as a Received, or None."""
        return Received() if self.received is True else self.received or None


PER_QUERY = ("lse", "max_score", "entropy", "distance")
"""The statistics that are one number for each query: they come out of the pass that makes the output."""


def _is_int(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _ints(values: object, name: str) -> tuple[int, ...]:
    """A sequence of whole numbers as a tuple."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"see.{name} is {values!r}; expected a sequence of ints; try {name}=(0, 1).")
    numbers = tuple(values)
    for number in numbers:
        if not _is_int(number):
            raise TypeError(f"see.{name} has {number!r}; expected ints.")
    return tuple(int(number) for number in numbers)


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
        if name in {"top_keys", "pooled", "rows", "heads"}:
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

    def plot(
        self,
        path: str | PathLike[str] | None = None,
        *,
        tokens: Sequence[str] | None = None,
        heads: Sequence[int] | None = None,
        names: Sequence[str | int] | None = None,
        title: str = "attention",
        sequence: int = 0,
        query_offset: int = 0,
    ) -> None:
        """Draws what was seen: in the terminal, as a PNG, or as one HTML page. Needs `sightline[look]`.

        What was not asked for is left out. `received` is drawn as the sum over all queries. The picture with
        everything in it comes from see=See(entropy=True, distance=True, received=True, top_keys=8,
        pooled=(256, 256)).

        Args:
            path: a file that ends in .png or .html; None for the terminal.
            tokens: Lk labels of the keys, and of the queries where they stand at the same positions.
            heads: which of the heads here to draw, counted from 0; None for all.
            names: what to call the heads here, for instance See.heads; default their numbers.
            title: what to call the picture.
            sequence: which sequence of the batch, counted in C order.
            query_offset: the call's, an int: where the first query stands among the keys.

        Raises:
            ValueError: something does not fit, or the fields do not tell how many queries and keys there are.
            ImportError: a package that draws is missing.

        Example:
            >>> import numpy as np, sightline
            >>> q, k, v = np.random.default_rng(0).standard_normal((3, 2, 5, 64), dtype=np.float32)
            >>> _, seen = sightline.attention(q, k, v, causal=True, see=("entropy",))
            >>> seen.plot(tokens=["once", "upon", "a", "time", "."])  # doctest: +ELLIPSIS
            <BLANKLINE>
              head  entropy
                 0     0...
        """
        _later["plot"](
            self,
            path,
            tokens=tokens,
            heads=heads,
            names=names,
            title=title,
            sequence=sequence,
            query_offset=query_offset,
        )

    @classmethod
    def merge(
        cls,
        parts: Sequence[Seen],
        see: See | Sequence[str],
        *,
        over: Literal["keys", "queries"],
        first_keys: Sequence[int] | None = None,
        sinks: Any = None,
    ) -> Seen:
        """Joins what was seen of the parts of a call into what would be seen of the whole, where that is possible.

        Over "queries" (a long prompt in chunks): parts have the queries one after the other, each its own
        query_offset, and the same keys, or fewer of them if only keys are missing at the end that their queries
        do not see. Everything can be joined but `pooled`, a normalised `received` and the mean of largest
        weights (`per_group` with "max").

        Over "keys" (a cache in chunks, or on several machines): parts have the same queries, and keys one
        after the other, without sinks. A part whose keys begin at key f is called with query_offset − f. `lse`
        must have been seen, and what adds up the weights of many queries (received, pooled, diagonals) cannot
        be joined.

        Args:
            parts: what was seen of each part, in order.
            see: what the parts were asked, in the same words; or less of it. What it asks is joined.
            over: "keys" or "queries".
            first_keys: over keys, with top_keys: the place of each part's first key among all keys.
            sinks: over keys: (Hq,) logits of the whole call.

        Raises:
            TypeError, ValueError: what came, what was expected, and what to try.

        Example:
            >>> import numpy as np, sightline
            >>> q, k = np.random.default_rng(0).standard_normal((2, 8, 100, 16))
            >>> see = sightline.See(lse=True, entropy=True, received=True)
            >>> def chunk(i):  # 50 queries, from number i on
            ...     return sightline.look_only(q[:, i:i + 50], k, causal=True, query_offset=i, see=see)
            >>> seen = sightline.Seen.merge([chunk(0), chunk(50)], see, over="queries")
            >>> np.allclose(seen.received, sightline.look_only(q, k, causal=True, see=see).received)
            True
        """
        joined: Seen = _later["merge"](parts, see, over=over, first_keys=first_keys, sinks=sinks)
        return joined


_later: dict[str, Callable[..., Any]] = {}


def do_with(*, plot: Callable[..., None], merge: Callable[..., Seen]) -> None:
    """What `Seen.plot` and `Seen.merge` do from here on: this room knows no later one that draws or joins."""
    _later.update(plot=plot, merge=merge)
