"""What a conformance case is, and how its arrays are made: the same every time, in any of the four types.

`conformance` is the table of cases, `judge` says what the answers must be.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Make: TypeAlias = Callable[["Case", np.random.Generator, np.dtype[Any]], Array]
DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


@dataclass(frozen=True, eq=False)
class Case:
    """One call. Arrays among the options are given by functions that make them."""

    name: str
    lengths: tuple[int, int] = (65, 65)  # Lq, Lk
    dims: tuple[int, int] = (64, 64)  # D, Dv
    heads: tuple[int, int] = (2, 2)  # Hq, Hkv
    batch: tuple[int, ...] = (2,)
    key_batch: tuple[int, ...] | None = None  # where it differs from the query's
    plain: bool = False  # rank 2: one head without a head axis
    options: dict[str, Any] = field(default_factory=dict)
    spread: float = 1.0  # factor on the queries, so on the scores
    poison: Callable[[Array, Array, Array], None] | None = (
        None  # writes special values into query, key, value
    )
    arrange: Callable[[Array], Array] | None = None  # the same numbers, lying otherwise in memory


@dataclass(frozen=True)
class Inputs:
    """The arguments of the call."""

    query: Array
    key: Array
    value: Array
    options: dict[str, Any]


def build(case: Case, dtype: str) -> Inputs:
    """The arrays of a case, rounded to `dtype`; their numbers follow from the case's name."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    (queries, keys), (dim, value_dim), (heads, kv_heads) = case.lengths, case.dims, case.heads
    key_batch = case.batch if case.key_batch is None else case.key_batch
    query = case.spread * rng.standard_normal((*case.batch, heads, queries, dim))
    key = rng.standard_normal((*key_batch, kv_heads, keys, dim))
    value = rng.standard_normal((*key_batch, kv_heads, keys, value_dim))
    if case.poison:
        case.poison(query, key, value)
    kind = DTYPES[dtype]
    arrays = [x.astype(kind) for x in (query, key, value)]
    if case.plain:
        arrays = [x[0] for x in arrays]
    elif case.options.get("layout") == "BLHD":
        arrays = [np.ascontiguousarray(x.swapaxes(-3, -2)) for x in arrays]
    if case.arrange:
        arrays = [case.arrange(x) for x in arrays]
    options = {name: make(case, rng, kind) if callable(make) else make for name, make in case.options.items()}
    return Inputs(arrays[0], arrays[1], arrays[2], options)


# ── Arrays among the options ──


def axes_shape(case: Case, axes: str) -> tuple[int, ...]:
    """The shape that has only these of the axes b, h, q, k: "bk" is (B, 1, 1, Lk), "qk" is (Lq, Lk)."""
    sizes = [
        *((n, "b") for n in case.batch),
        (case.heads[0], "h"),
        (case.lengths[0], "q"),
        (case.lengths[1], "k"),
    ]
    first = next(i for i, (_, axis) in enumerate(sizes) if axis in axes)
    return tuple(n if axis in axes else 1 for n, axis in sizes[first:])


def random_mask(axes: str, density: float = 0.5) -> Make:
    return lambda case, rng, _: rng.random(axes_shape(case, axes)) < density


def documents(count: int) -> Make:
    """Each query sees the keys of its own document."""

    def make(case: Case, rng: np.random.Generator, _: np.dtype[Any]) -> Array:
        queries, keys = case.lengths
        same: Array = np.arange(queries)[:, None] * count // queries == np.arange(keys) * count // keys
        return same

    return make


def mask_without(*rows: int) -> Make:
    """A random mask in which these queries see nothing."""

    def make(case: Case, rng: np.random.Generator, dtype: np.dtype[Any]) -> Array:
        mask = random_mask("hqk")(case, rng, dtype)
        mask[:, rows, :] = False
        return mask

    return make


def mask_hiding(*keys: int) -> Make:
    """A mask that hides these keys from everyone."""
    return lambda case, rng, _: ~np.isin(np.arange(case.lengths[1]), keys)


def lying(arrange: Callable[[Array], Array], make: Make) -> Make:
    """The same numbers, lying otherwise in memory."""
    return lambda case, rng, dtype: arrange(make(case, rng, dtype))


def random_bias(axes: str, dtype: str | None = None, *, hidden: float = 0.0) -> Make:
    """Normal numbers, a fraction `hidden` of them −∞; in the case's own type unless one is named."""

    def make(case: Case, rng: np.random.Generator, own: np.dtype[Any]) -> Array:
        shape = axes_shape(case, axes)
        bias = np.where(rng.random(shape) < hidden, -np.inf, rng.standard_normal(shape))
        return bias.astype(own if dtype is None else DTYPES[dtype])

    return make


def bias_with(value: float, row: int, key: int) -> Make:
    """Zeros, but for one number."""

    def make(case: Case, rng: np.random.Generator, own: np.dtype[Any]) -> Array:
        bias = np.zeros(case.lengths)
        bias[row, key] = value
        return bias.astype(own)

    return make


def bias_column(value: float, key: int) -> Make:
    """Zeros, but for one key."""
    return lambda case, rng, own: np.where(np.arange(case.lengths[1]) == key, value, 0.0).astype(own)


def per_head(*values: float) -> Make:
    return lambda case, rng, own: np.array(values, np.float32)


def ints(*values: int) -> Make:
    return lambda case, rng, own: np.array(values)
