"""The matrix unit's instructions, the processor's own or the tests' (matrix_unit): sums of products of tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

import matrix_unit
from programs import run
from sightline.cpu import isa, strips
from sightline.cpu.kinds import HALF, vector
from sightline.cpu.workspace import TILE_BYTES

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.values import Pointer

Array = np.ndarray[Any, Any]
RUNNABLE = [choice.name for choice in isa.runnable()]
EMULATED = matrix_unit.installed()
pytestmark = pytest.mark.skipif(
    "amx" not in RUNNABLE, reason="there is no AMX here, nor AVX-512 to emulate it"
)
emulated = pytest.mark.skipif(
    not EMULATED, reason="the processor's own instructions: their bits are its affair"
)
TINY = 2.0**-126


def numbers(*shape: int, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(ml_dtypes.bfloat16)


def products(left: Array, right: Array, total: Array) -> Array:
    """Total + left·right, as three instructions and a row stride of two tiles' rows make it."""
    pairs = np.ascontiguousarray(right.reshape(16, 2, 16).swapaxes(1, 2))
    result, config = np.zeros((16, 32), np.float32), np.zeros(64, np.uint8)

    def write(f: Function, c: Pointer, a: Pointer, b: Pointer, t: Pointer, r: Pointer) -> None:
        strips.configure(f, c)
        strips._load(f, 3, t)
        strips._load(f, 6, a)
        strips._load(f, 7, b)
        strips.multiply(f, 3, 6, 7)
        strips._store(f, 3, r, 128)
        strips.release(f)

    run(isa.target("amx"), write, config, np.ascontiguousarray(left), pairs, total.copy(), result)
    assert left.nbytes == pairs.nbytes == total.nbytes == TILE_BYTES
    assert not result[:, 16:].any(), "beyond the tile's rows"
    return result[:, :16]


def test_products_of_tiles() -> None:
    left, right = numbers(16, 32, seed=0), numbers(32, 16, seed=1)
    total = np.random.default_rng(2).standard_normal((16, 16)).astype(np.float32)
    a, b = left.astype(np.float64), right.astype(np.float64)
    off = abs(products(left, right, total) - (total + a @ b))
    assert (off <= 2.0**-22 * (abs(total) + abs(a) @ abs(b))).all()
    assert off.any(), "rounded nowhere"


@emulated
def test_the_order_in_which_products_are_added() -> None:
    left, right = numbers(16, 32, seed=3), numbers(32, 16, seed=4)
    total = np.random.default_rng(5).standard_normal((16, 16)).astype(np.float32)
    first, second = np.zeros((2, 16, 16), np.float32)
    for c in range(0, 32, 2):  # a product of two bfloat16 is exact in float32
        first += left[:, c, None].astype(np.float32) * right[c].astype(np.float32)
        second += left[:, c + 1, None].astype(np.float32) * right[c + 1].astype(np.float32)
    np.testing.assert_array_equal(products(left, right, total), total + (first + second))


def test_tiny_numbers_are_zero() -> None:
    nothing, one = np.zeros((16, 16), np.float32), np.zeros((32, 16), ml_dtypes.bfloat16)
    one[0, 0], left = 1, np.zeros((16, 32), ml_dtypes.bfloat16)
    left[:4, 0] = [TINY, TINY / 2, -TINY / 4, 3]
    np.testing.assert_array_equal(products(left, one, nothing)[:4, 0], [TINY, 0, 0, 3])
    one[0, 0] = 0.5
    np.testing.assert_array_equal(products(left, one, nothing)[:4, 0], [0, 0, 0, 1.5])


def test_tiny_numbers_stay_for_the_instructions_around() -> None:
    """What the thread does with them is as before."""
    zeros, x = np.zeros((16, 32), ml_dtypes.bfloat16), np.full(1, TINY / 2, np.float32)
    products(zeros, zeros.reshape(32, 16), np.zeros((16, 16), np.float32))
    assert (x * np.float32(0.5) > 0).all()


@emulated
def test_multiply_adds_of_float16_are_rounded_once() -> None:
    def write(f: Function, x: Pointer, y: Pointer, z: Pointer, result: Pointer) -> None:
        kind = vector(HALF, 32)
        for i in range(0, 8192, 64):
            a, b, c = ((place + i).load(kind) for place in (x, y, z))
            (result + i).store(a.fma(b, c))

    random = np.random.default_rng(0)
    x, y = (random.standard_normal(4096).astype(np.float16) for _ in range(2))
    z = (random.standard_normal(4096) * 2.0 ** random.integers(-14, 8, 4096)).astype(np.float16)
    # 1 − 2⁻²⁰ of half a last bit: in float32 it would seem to be all of it.
    x[:2], y[:2], z[:2] = 1 + 2.0**-10, (1 - 2.0**-10) * 2.0**-11, [1, 1 + 2.0**-10]
    made = np.empty_like(x)
    run(isa.target("amx"), write, x, y, z, made)
    exact = x.astype(np.float64) * y.astype(np.float64) + z.astype(np.float64)  # its 53 bits hold all
    np.testing.assert_array_equal(made, exact.astype(np.float16))
    twice = (x.astype(np.float32) * y.astype(np.float32) + z.astype(np.float32)).astype(np.float16)
    assert (made != twice).any(), "no number that tells"
