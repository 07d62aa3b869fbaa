"""The types of what kernels handle, numbers and vectors of them, and constants of these types.

Types and constants are made once: llvmlite keeps with each the text that it is written as.
"""

from __future__ import annotations

import functools
import math
from typing import Any, TypeAlias

from llvmlite import ir

Type: TypeAlias = Any  # an llvmlite type

BOOL, BYTE, I16, I32, INT = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
HALF, FLOAT, DOUBLE = ir.HalfType(), ir.FloatType(), ir.DoubleType()
ADDRESS = ir.PointerType()
INFINITY = float("inf")
NEGATIVE_INFINITY = -INFINITY


class _BFloat(ir.types.Type):  # type: ignore[misc]  # llvmlite is untyped
    """LLVM's bfloat, which llvmlite does not know: only instructions that take pairs of them name it."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


BFLOAT = _BFloat()
BITS_OF = {FLOAT: I32, DOUBLE: INT, HALF: I16}


def bytes_of(kind: Type) -> int:
    """Size of a number or a vector in memory."""
    if isinstance(kind, ir.VectorType):
        return int(kind.count) * bytes_of(kind.element)
    if isinstance(kind, ir.IntType):
        return max(1, int(kind.width) // 8)
    return int(BITS_OF[kind].width) // 8


@functools.cache
def vector(element: Type, lanes: int) -> Type:
    """A vector type."""
    return ir.VectorType(element, lanes)


def like(kind: Type, element: Type) -> Type:
    """`kind` with its element type replaced: a number stays a number, a vector keeps its lanes."""
    return vector(element, kind.count) if isinstance(kind, ir.VectorType) else element


def scalar(kind: Type) -> Type:
    """The element type of a vector; a number's own type."""
    return kind.element if isinstance(kind, ir.VectorType) else kind


def constant(kind: Type, number: float) -> Any:
    """A constant of that type, the same in every lane."""
    return _constant(kind, number, math.copysign(1.0, number))  # 0.0 and -0.0 are equal


@functools.cache
def _constant(kind: Type, number: float, _sign: float) -> Any:
    if isinstance(kind, ir.VectorType):
        return ir.Constant(kind, [constant(kind.element, number)] * kind.count)
    return ir.Constant(kind, int(number) if isinstance(kind, ir.IntType) else float(number))


@functools.cache
def lane_numbers(*each: int) -> Any:
    """Which lanes a shuffle picks: a constant vector of 32-bit integers."""
    return ir.Constant(vector(I32, len(each)), list(each))


@functools.cache
def undefined(kind: Type) -> Any:
    """Any number."""
    return ir.Constant(kind, ir.Undefined)


@functools.cache
def mangled(kind: Type) -> str:
    """LLVM's short name of a type inside an intrinsic's name: v16f32."""
    element = scalar(kind)
    name = f"i{element.width}" if isinstance(element, ir.IntType) else f"f{bytes_of(element) * 8}"
    return f"v{kind.count}{name}" if isinstance(kind, ir.VectorType) else name
