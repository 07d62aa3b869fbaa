"""exp2, tanh and log2 are as exact as vmath's first lines say: over the whole range, for every lane width here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from programs import RUNNABLE, Array, mapped
from sightline.cpu import vmath

if TYPE_CHECKING:
    from collections.abc import Callable

    from sightline.cpu.isa import Isa

# In units of the last place, as in vmath's table.
EXP2_ERROR = {"amx": 1.5, "avx512": 1.5, "avx2": 1.0, "neon": 1.0}
TANH_ERROR = 4.2
LOG2_ERROR = {"near 1": 3.0, "elsewhere": 1.0}

WIDER: dict[Any, Any] = {np.float32: np.float64, np.float64: np.longdouble}
every_isa = pytest.mark.parametrize("here", RUNNABLE, ids=lambda isa: isa.name)
both_types = pytest.mark.parametrize("dtype", WIDER, ids=lambda dtype: dtype.__name__)


def last_places(got: Array, exact: Array) -> Array:
    """|got − exact| in units of the last place that `exact` has in got's type, subnormals included."""
    info = np.finfo(got.dtype)
    _, exponent = np.frexp(exact)  # |exact| in [2^(exponent − 1), 2^exponent)
    place = np.ldexp(np.ones_like(exact), np.maximum(exponent - 1, info.minexp) - info.nmant)
    error: Array = (abs(got.astype(exact.dtype) - exact) / place).astype(np.float64)
    return error


def samples(dtype: Any, lowest: float, highest: float) -> Array:
    """Positive numbers up to `highest`: many of every binade down to the subnormals, most above `lowest`."""
    rng = np.random.default_rng(0)
    info = np.finfo(dtype)
    exponents = np.arange(info.minexp - info.nmant, np.frexp(highest)[1])
    sparse = np.ldexp(1 + rng.random((exponents.size, 500)), exponents[:, None]).ravel()
    dense = np.concatenate(
        [rng.uniform(a, b, 300_000) for a, b in ((lowest, 1), (1, 2), (2, 16), (16, highest))]
    )
    integers = np.arange(0, min(highest, 2000.0), 0.5)
    near = [
        integers,
        np.nextafter(integers.astype(dtype), dtype(0)),
        np.nextafter(integers.astype(dtype), dtype(1e4)),
    ]
    x: Array = np.concatenate([sparse, dense, *near]).astype(dtype)
    return x[x <= highest]


def exact(function: Callable[[Array], Array], x: Array) -> Array:
    """The function in the next wider type, which must be wide enough to judge by."""
    wide = WIDER[x.dtype.type]
    if np.finfo(wide).nmant < np.finfo(x.dtype).nmant + 8:
        pytest.skip(f"NumPy's longdouble is no wider than {x.dtype} here: nothing to compare with")
    return function(x.astype(wide))


@every_isa
@both_types
def test_the_error_of_exp2_is_as_stated(here: Isa, dtype: Any) -> None:
    x = -samples(dtype, 1e-4, -float(np.finfo(dtype).minexp))
    error = last_places(mapped(here, vmath.exp2, x), exact(np.exp2, x))
    assert error.max() <= EXP2_ERROR[here.name], f"{error.max()} at {x[error.argmax()]!r}"


@every_isa
@both_types
def test_exp2_of_less_than_the_lowest_exponent_is_subnormal_or_zero(here: Isa, dtype: Any) -> None:
    lowest = float(np.finfo(dtype).minexp)
    x = np.concatenate([np.linspace(lowest * 1.3, lowest, 10_001)[:-1], [-1e4, -1e30]]).astype(dtype)
    got, want = mapped(here, vmath.exp2, x), exact(np.exp2, x)
    if here.vector_bytes == 64:
        assert last_places(got, want).max() <= EXP2_ERROR["avx512"]
    else:
        np.testing.assert_array_equal(got, np.zeros_like(got))


@every_isa
@both_types
def test_exp2_where_it_is_exact(here: Isa, dtype: Any) -> None:
    tiny, least = np.finfo(dtype).tiny, np.finfo(dtype).smallest_subnormal
    x = np.array([0.0, -0.0, -least, -tiny, -np.inf, np.nan, *range(int(np.finfo(dtype).minexp), 0)], dtype)
    want = np.exp2(x)
    np.testing.assert_array_equal(mapped(here, vmath.exp2, x), want)  # NaN is kept


@every_isa
@both_types
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_error_of_tanh_is_as_stated(here: Isa, dtype: Any, sign: float) -> None:
    x = (sign * samples(dtype, 1e-4, 30.0)).astype(dtype)
    x = x[x != 0]
    error = last_places(mapped(here, vmath.tanh, x), exact(np.tanh, x))
    assert error.max() <= TANH_ERROR, f"{error.max()} at {x[error.argmax()]!r}"


@every_isa
@both_types
def test_tanh_where_it_is_exact(here: Isa, dtype: Any) -> None:
    least = np.finfo(dtype).smallest_subnormal
    x = np.array([0.0, -0.0, least, -least, np.inf, -np.inf, 1e30, -1e30, 20.0, -20.0, np.nan], dtype)
    np.testing.assert_array_equal(mapped(here, vmath.tanh, x), np.tanh(x).astype(dtype))


def normal_numbers(dtype: Any) -> Array:
    """Positive normal numbers: many of every binade, most about 1, where the logarithm crosses 0."""
    rng = np.random.default_rng(0)
    info = np.finfo(dtype)
    exponents = np.arange(info.minexp, info.maxexp)
    sparse = np.ldexp(1 + rng.random((exponents.size, 500)), exponents[:, None]).ravel()
    dense = [rng.uniform(a, b, 300_000) for a, b in ((0.5, 1), (1, 2), (0.70, 0.72), (1.40, 1.43), (2, 1e4))]
    near = [1 + sign * 2.0 ** -np.arange(1, info.nmant + 1) for sign in (1, -1)]
    x: Array = np.concatenate([sparse, *dense, *near]).astype(dtype)
    return x


@every_isa
@both_types
def test_the_error_of_log2_is_as_stated(here: Isa, dtype: Any) -> None:
    x = normal_numbers(dtype)
    x = x[x != 1]
    error = last_places(mapped(here, vmath.log2, x), exact(np.log2, x))
    near = (x > 0.5) & (x < 2)
    for where, chosen in (("near 1", near), ("elsewhere", ~near)):
        worst = np.where(chosen, error, 0).argmax()
        assert error[worst] <= LOG2_ERROR[where], f"{error[worst]} at {x[worst]!r}"


@every_isa
@both_types
def test_log2_where_it_is_exact(here: Isa, dtype: Any) -> None:
    info = np.finfo(dtype)
    powers = np.ldexp(dtype(1), np.arange(info.minexp, info.maxexp)).astype(dtype)
    x = np.concatenate([powers, np.array([np.nan], dtype)])
    np.testing.assert_array_equal(mapped(here, vmath.log2, x), np.log2(x))  # NaN is kept


def test_the_judge_of_errors_counts_last_places() -> None:
    one = np.float32(1)
    got = np.array([np.nextafter(one, np.float32(2)), np.nextafter(one, np.float32(0)), 3e-45], np.float32)
    want = np.array([1.0, 1.0, 2.0**-149])
    np.testing.assert_array_equal(last_places(got, want), [1.0, 0.5, 1.0])
