"""Small programs written through `emit`, compiled for an instruction set of this machine, run on arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sightline.cpu import compile as compiler
from sightline.cpu import isa
from sightline.cpu.emit import Function, Module
from sightline.cpu.kinds import ADDRESS, DOUBLE, FLOAT, INT, Type, vector

if TYPE_CHECKING:
    from sightline.cpu.isa import Isa
    from sightline.cpu.values import Pointer, Value

Array: TypeAlias = NDArray[Any]
Write: TypeAlias = Callable[..., None]
RUNNABLE = isa.runnable()
MAPPED = 64  # numbers a mapped function takes at once: a whole number of vectors of every instruction set


def compiled(here: Isa, write: Write, pointers: int) -> Callable[..., None]:
    """The program that `write(function, pointer, …)` writes, to be called with as many arrays."""
    module = Module(here)
    with module.function("attend", *[ADDRESS] * pointers) as f:
        write(f, *f.arguments())
    text = str(module)
    address = compiler.load("attend", text, here, lambda: text)
    program = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * pointers)(address)

    def call(*arrays: Array) -> None:
        program(*[x.ctypes.data for x in arrays])

    return call


def run(here: Isa, write: Write, *arrays: Array) -> None:
    """Write, compile and call it."""
    compiled(here, write, len(arrays))(*arrays)


def mapped(here: Isa, function: Callable[[Value], Value], x: Array) -> Array:
    """function(x), number by number, in the instruction set's own vectors; any number of numbers."""
    kind = vector(floating(x.dtype), here.lanes(x.dtype.itemsize))
    whole = -(-x.size // MAPPED) * MAPPED
    source = np.zeros(whole, x.dtype)
    source[: x.size] = x.ravel()
    target, count = np.empty_like(source), np.array([source.nbytes])

    def write(f: Function, given: Pointer, made: Pointer, size: Pointer) -> None:
        with f.loop(0, size.load(INT), here.vector_bytes) as i:
            (made + i).store(function((given + i).load(kind)))

    run(here, write, source, target, count)
    return target[: x.size].reshape(x.shape)


def floating(dtype: np.dtype[Any]) -> Type:
    """LLVM's name of a floating-point type."""
    return {4: FLOAT, 8: DOUBLE}[dtype.itemsize]
