"""One attention call as plain frozen data: everything that decides how it is computed, and no address.

A `Problem` exists only if the call makes sense: `Problem.of` checks types, then ranks, then sizes, then
options, and every later room trusts it. It is hashable, so plans and compiled kernels are looked up by it.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline import operands, options
from sightline.arrays import Spec
from sightline.masks import Band, band
from sightline.operands import Shape, Trio
from sightline.options import Window


@dataclass(frozen=True, slots=True)
class Problem:
    """One attention call, with arrays as (*batch, heads, length, dim) whatever the caller's layout."""

    query: Spec
    """(*batch, Hq, Lq, D)"""
    key: Spec
    """(*batch, Hkv, Lk, D)"""
    value: Spec
    """(*batch, Hkv, Lk, Dv)"""
    mask: Spec | None
    """(*batch, Hq, Lq, Lk) bool, True where a query may attend; stride 0 where it broadcasts"""
    bias: Spec | None
    """(*batch, Hq, Lq, Lk), any float type, added to the scores; stride 0 where it broadcasts"""
    sinks: Spec | None
    """(Hq,), any float type"""
    alibi_slopes: Spec | None
    """(Hq,), any float type"""
    causal: bool
    window: Window | None
    """(left, right), None where it bounds nothing"""
    query_offset: int | None
    """position of the first query, or None: one for each sequence, given at run time"""
    key_lengths: bool
    """whether the keys of each sequence end early, at lengths given at run time"""
    scale: float
    softcap: float | None
    dropout_p: float
    """the probability with which a weight is dropped; by which seed is said at run time"""
    precision: str
    layout: str
    """the caller's order of axes, "BHLD" or "BLHD": batch, heads, length, dim"""
    rank: int
    """the caller's: rank 2 is (length, dim), one head"""

    @classmethod
    def of(
        cls,
        query: Spec,
        key: Spec,
        value: Spec,
        *,
        mask: Spec | None = None,
        bias: Spec | None = None,
        causal: bool = False,
        window: object = None,
        query_offset: object = None,
        key_lengths: object = None,
        scale: object = None,
        softcap: object = None,
        sinks: Spec | None = None,
        alibi_slopes: Spec | None = None,
        layout: str = "BHLD",
        precision: str = "highest",
        dropout_p: object = 0.0,
        out: Spec | None = None,
    ) -> "Problem":
        """The problem that these arrays and options pose.

        The arguments are the door's, with a Spec for each array. `query_offset` and `key_lengths` are an
        int, or the Spec of an array whose values `sequence_ints` checks when they are known.

        Raises:
            TypeError, ValueError: what came, what was expected, and what to try.
        """
        given = Trio(query, key, value)
        layout = options.word(layout, "layout", options.LAYOUTS)
        operands.check_types(given)
        rank = operands.check_ranks(given, layout)
        query, key, value = operands.canonical(given, layout)
        batch, (heads, queries, dim), keys = query.shape[:-3], query.shape[-3:], key.shape[-2]
        scores = (*batch, heads, queries, keys)
        reach = options.check_window(window)
        problem = cls(
            query=query,
            key=key,
            value=value,
            mask=operands.check_mask(mask, scores),
            bias=operands.check_bias(bias, scores),
            sinks=operands.check_per_head(sinks, "sinks", heads),
            alibi_slopes=operands.check_per_head(alibi_slopes, "alibi_slopes", heads),
            causal=options.switch(causal, "causal"),
            window=reach,
            query_offset=_query_offset(query_offset, batch),
            key_lengths=_key_lengths(key_lengths, batch, keys),
            scale=options.check_scale(scale, dim, query.dtype),
            softcap=options.check_softcap(softcap, query.dtype),
            dropout_p=options.check_dropout(dropout_p),
            precision=options.word(precision, "precision", options.PRECISIONS),
            layout=layout,
            rank=rank,
        )
        if query_offset is None:
            options.check_alignment(
                queries, keys, causal=problem.causal, window=reach, key_lengths=problem.key_lengths
            )
        operands.check_out(out, problem.output_shape, problem.dtype)
        return problem

    @property
    def batch(self) -> Shape:
        """The leading axes of every array."""
        return self.query.shape[:-3]

    @property
    def heads(self) -> int:
        """Hq, the query heads."""
        return self.query.shape[-3]

    @property
    def kv_heads(self) -> int:
        """Hkv, the key and value heads."""
        return self.key.shape[-3]

    @property
    def group(self) -> int:
        """Query heads that share a key head: query head h reads key head h // group."""
        return self.heads // self.kv_heads

    @property
    def queries(self) -> int:
        """Lq."""
        return self.query.shape[-2]

    @property
    def keys(self) -> int:
        """Lk."""
        return self.key.shape[-2]

    @property
    def dim(self) -> int:
        """D, of queries and keys."""
        return self.query.shape[-1]

    @property
    def value_dim(self) -> int:
        """Dv, of values and the output."""
        return self.value.shape[-1]

    @property
    def dtype(self) -> str:
        """The type of query, key, value and output."""
        return self.query.dtype

    @property
    def statistics_dtype(self) -> str:
        """The type of lse and of every statistic."""
        return "float64" if self.dtype == "float64" else "float32"

    @property
    def output_shape(self) -> Shape:
        """The output's shape in the caller's layout and rank."""
        if self.rank == 2:
            return (self.queries, self.value_dim)
        inner = (self.queries, self.heads) if self.layout == "BLHD" else (self.heads, self.queries)
        return (*self.batch, *inner, self.value_dim)

    @property
    def rows_shape(self) -> Shape:
        """The shape of what is one number for each query: (*batch, Hq, Lq), or (Lq,) for rank 2."""
        return (self.queries,) if self.rank == 2 else (*self.batch, self.heads, self.queries)

    @property
    def band(self) -> Band:
        """What a query may see around its position, causality and window together."""
        return band(self.causal, self.window)


def sequence_ints(values: object, name: str, problem: Problem) -> NDArray[np.int64]:
    """`query_offset` or `key_lengths` as one int64 for each sequence, shape `problem.batch`.

    The result is a new C-contiguous array, so that kernels may read it in place.

    Args:
        values: an int, or ints that broadcast to the batch: a list, or an array that NumPy reads.
        name: "query_offset" or "key_lengths".
        problem: the call that they belong to.

    Raises:
        TypeError, ValueError: what came (which sequence, where one is wrong), what was expected, what to try.
    """
    check = (
        options.check_offset if name == "query_offset" else partial(options.check_length, keys=problem.keys)
    )
    if not isinstance(values, list | tuple) and not hasattr(values, "__array__"):
        return np.full(problem.batch, check(values, name), dtype=np.int64)
    ints = _array(values, name)
    spec = Spec(ints.shape, ints.strides, ints.dtype.name)
    operands.check_per_sequence(spec, name, problem.batch)
    for extreme in (ints.argmin(), ints.argmax()) if ints.size else ():
        index = np.unravel_index(extreme, ints.shape)
        check(ints[index], f"{name}[{', '.join(map(str, index))}]" if index else name)
    return np.broadcast_to(ints, problem.batch).astype(np.int64, order="C")


def int_or_spec(values: object, name: str) -> object:
    """`query_offset` or `key_lengths` as `Problem.of` takes it: an int, or the form of an array of them."""
    if isinstance(values, list | tuple) or hasattr(values, "__array__"):
        ints = _array(values, name)
        return Spec(ints.shape, ints.strides, ints.dtype.name)
    return values


def _array(values: object, name: str) -> NDArray[Any]:
    """NumPy's reading of ints for each sequence, or a TypeError in our words."""
    try:
        found: NDArray[Any] = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):  # a ragged list, a tensor that NumPy cannot read
        raise TypeError(
            f"{name} is {options.describe(values)}; expected one int for each sequence; "
            f"try a flat list, or a NumPy array of ints."
        ) from None
    return found if found.size or not isinstance(values, list | tuple) else found.astype(np.int64)


def _query_offset(value: object, batch: Shape) -> int | None:
    """The int, or None for one int for each sequence; 0 unless said."""
    if isinstance(value, Spec):
        operands.check_per_sequence(value, "query_offset", batch)
        return None
    return 0 if value is None else options.check_offset(value, "query_offset")


def _key_lengths(value: object, batch: Shape, keys: int) -> bool:
    """Whether there are key lengths."""
    if isinstance(value, Spec):
        operands.check_per_sequence(value, "key_lengths", batch)
    elif value is not None:
        options.check_length(value, "key_lengths", keys)
    return value is not None
