"""Numbers on their way between memory and registers, `formats` and `transpose`, against NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

from programs import RUNNABLE, Array, floating, run
from sightline.cpu import formats
from sightline.cpu.kinds import FLOAT, bytes_of, vector
from sightline.cpu.transpose import transposed

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.isa import Isa
    from sightline.cpu.values import Pointer

pytestmark = pytest.mark.parametrize("here", RUNNABLE, ids=lambda isa: isa.name)
HALF_TYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def numbers_around(dtype: np.dtype[Any]) -> Array:
    """float32 numbers of both signs at, beside and half-way between those of a half type, and beyond."""
    infinity = 0x7F80 if dtype.name == "bfloat16" else 0x7C00
    own = np.arange(infinity, dtype=np.uint16).view(dtype).astype(np.float32)
    middle = own[:-1] + (own[1:] - own[:-1]) / 2  # where the last bit decides
    largest = own[-1] * np.array([1, 1 + 2.0**-12, 1 + 2.0**-11, 1.01, 2], np.float64)
    up, down = np.float32(np.inf), np.float32(0)
    parts: list[Array] = [
        own,
        middle,
        np.nextafter(own, up),
        np.nextafter(middle, up),
        np.nextafter(middle, down),
    ]
    parts += [np.minimum(largest, np.finfo(np.float32).max).astype(np.float32)]
    parts += [
        np.array([0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF], np.uint32).view(np.float32)
    ]  # ∞, NaN
    some = np.concatenate([part[:: 7 if part.size > 100 else 1] for part in parts])
    return np.concatenate([some, -some, np.zeros(-2 * some.size % 16, np.float32)])


def same(got: Array, want: Array) -> None:
    """Bit for bit, but that one NaN is as good as another."""
    nan = np.isnan(want)
    np.testing.assert_array_equal(np.isnan(got), nan)
    np.testing.assert_array_equal(got.view(np.uint16)[~nan], want.view(np.uint16)[~nan])


@pytest.mark.parametrize("lanes", [None, 4, 8, 16])
@pytest.mark.parametrize("name", HALF_TYPES)
def test_storing_a_half_type_rounds_to_nearest_even(here: Isa, name: str, lanes: int | None) -> None:
    x = numbers_around(HALF_TYPES[name])
    made, width = np.zeros(x.size, HALF_TYPES[name]), lanes or 1

    def write(f: Function, given: Pointer, out: Pointer) -> None:
        with f.loop(0, x.size, width) as i:
            formats.store(
                (given + i * 4).load(FLOAT if lanes is None else vector(FLOAT, lanes)), out + i * 2, name
            )

    run(here, write, x, made.view(np.uint16))
    with np.errstate(over="ignore", invalid="ignore"):
        same(made, x.astype(HALF_TYPES[name]))


@pytest.mark.parametrize("lanes", [None, 4, 16])
@pytest.mark.parametrize("name", HALF_TYPES)
@pytest.mark.parametrize("compute", [np.float32, np.float64])
def test_loading_a_half_type_keeps_every_number(
    here: Isa, name: str, lanes: int | None, compute: Any
) -> None:
    x = np.arange(2**16, dtype=np.uint16).view(HALF_TYPES[name])
    made, kind, size = np.zeros(x.size, compute), floating(np.dtype(compute)), np.dtype(compute).itemsize

    def write(f: Function, given: Pointer, out: Pointer) -> None:
        with f.loop(0, x.size, lanes or 1) as i:
            (out + i * size).store(formats.load(given + i * 2, name, kind, lanes))

    run(here, write, x.view(np.uint16), made)
    with np.errstate(invalid="ignore"):  # signalling NaN
        np.testing.assert_array_equal(made, x.astype(compute))


@pytest.mark.parametrize(("name", "dtype"), [("float32", np.float32), ("float64", np.float64)])
def test_the_wide_types_lie_in_memory_as_they_are(here: Isa, name: str, dtype: Any) -> None:
    x = np.array([1.5, -0.0, np.inf, np.nan, 1e-300, 5e-324, 1 / 3, -7], dtype)
    made, kind = np.zeros_like(x), floating(x.dtype)
    run(here, lambda f, a, b: formats.store(formats.load(a, name, kind, x.size), b, name), x, made)
    np.testing.assert_array_equal(made, x)
    assert formats.size(name) == x.itemsize
    assert formats.memory(name) == formats.arithmetic(name) == kind


@pytest.mark.parametrize("lanes", [2, 4, 8, 16])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_transposed(here: Isa, lanes: int, dtype: Any) -> None:
    x = np.arange(lanes * lanes, dtype=dtype).reshape(lanes, lanes)
    made, kind = np.zeros_like(x), vector(floating(np.dtype(dtype)), lanes)

    def write(f: Function, given: Pointer, out: Pointer) -> None:
        rows = [(given + r * bytes_of(kind)).load(kind) for r in range(lanes)]
        for c, column in enumerate(transposed(rows)):
            (out + c * bytes_of(kind)).store(column)

    run(here, write, x, made)
    np.testing.assert_array_equal(made, x.T)
