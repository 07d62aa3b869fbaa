"""Numbers, vectors, addresses and tables as kernels know them: Python operators that write instructions.

A Python number beside a `Value` becomes a constant of its type. Comparisons give conditions, one per lane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, Union

from llvmlite import ir

from sightline.cpu.kinds import (
    ADDRESS,
    BITS_OF,
    BYTE,
    I32,
    INT,
    Type,
    bytes_of,
    constant,
    lane_numbers,
    like,
    mangled,
    scalar,
    undefined,
    vector,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sightline.cpu.emit import Function

Operand: TypeAlias = Union["Value", int, float]


class Value:
    """A number, or a vector of numbers; Python numbers beside it become constants of its type."""

    __slots__ = ("f", "ir")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, f: Function, instruction: Any) -> None:
        self.f, self.ir = f, instruction

    @property
    def kind(self) -> Type:
        """LLVM type."""
        return self.ir.type

    @property
    def floating(self) -> bool:
        """Floating point, not an integer."""
        return not isinstance(scalar(self.kind), ir.IntType)

    def _pair(self, other: Operand) -> tuple[Any, Any]:
        return self.ir, self.f.value(other, self.kind).ir

    def _do(self, integer: str, floating: str, other: Operand) -> Value:
        return Value(
            self.f, getattr(self.f.builder, floating if self.floating else integer)(*self._pair(other))
        )

    def __add__(self, other: Operand) -> Value:
        return self._do("add", "fadd", other)

    def __sub__(self, other: Operand) -> Value:
        return self._do("sub", "fsub", other)

    def __mul__(self, other: Operand) -> Value:
        return self._do("mul", "fmul", other)

    def __truediv__(self, other: Operand) -> Value:
        return Value(self.f, self.f.builder.fdiv(*self._pair(other)))

    def __floordiv__(self, other: Operand) -> Value:
        """Unsigned."""
        return Value(self.f, self.f.builder.udiv(*self._pair(other)))

    def __mod__(self, other: Operand) -> Value:
        """Unsigned."""
        return Value(self.f, self.f.builder.urem(*self._pair(other)))

    def __and__(self, other: Operand) -> Value:
        return Value(self.f, self.f.builder.and_(*self._pair(other)))

    def __or__(self, other: Operand) -> Value:
        return Value(self.f, self.f.builder.or_(*self._pair(other)))

    def __xor__(self, other: Operand) -> Value:
        return Value(self.f, self.f.builder.xor(*self._pair(other)))

    def __lshift__(self, other: Operand) -> Value:
        return Value(self.f, self.f.builder.shl(*self._pair(other)))

    def __rshift__(self, other: Operand) -> Value:
        """Unsigned."""
        return Value(self.f, self.f.builder.lshr(*self._pair(other)))

    def __invert__(self) -> Value:
        return Value(self.f, self.f.builder.not_(self.ir))

    def __neg__(self) -> Value:
        return Value(self.f, self.f.builder.fneg(self.ir) if self.floating else self.f.builder.neg(self.ir))

    def _compare(self, sign: str, other: Operand) -> Value:
        make = self.f.builder.fcmp_ordered if self.floating else self.f.builder.icmp_signed
        return Value(self.f, make(sign, *self._pair(other)))

    def __lt__(self, other: Operand) -> Value:
        return self._compare("<", other)

    def __le__(self, other: Operand) -> Value:
        return self._compare("<=", other)

    def __gt__(self, other: Operand) -> Value:
        return self._compare(">", other)

    def __ge__(self, other: Operand) -> Value:
        return self._compare(">=", other)

    def __eq__(self, other: object) -> Value:  # type: ignore[override]
        return self._compare("==", other)  # type: ignore[arg-type]

    def __ne__(self, other: object) -> Value:  # type: ignore[override]
        """For floating point: true when either is NaN."""
        if self.floating:
            return Value(self.f, self.f.builder.fcmp_unordered("!=", *self._pair(other)))  # type: ignore[arg-type]
        return self._compare("!=", other)  # type: ignore[arg-type]

    def below(self, other: Operand) -> Value:
        """Unsigned integers: self < other."""
        return Value(self.f, self.f.builder.icmp_unsigned("<", *self._pair(other)))

    def where(self, yes: Operand, no: Operand) -> Value:
        """A condition's choice, lane by lane: `yes` where it holds, else `no`."""
        model = yes if isinstance(yes, Value) else no
        if not isinstance(model, Value):
            raise TypeError("where() needs a Value on one side to know the type")
        chosen = [self.f.value(x, model.kind).ir for x in (yes, no)]
        return Value(self.f, self.f.builder.select(self.ir, *chosen))

    def max(self, other: Operand) -> Value:
        """The larger; `other` where self is NaN."""
        return (self > other).where(self, other)

    def min(self, other: Operand) -> Value:
        """The smaller; `other` where self is NaN."""
        return (self < other).where(self, other)

    def magnitude(self) -> Value:
        """|self|, of floating point."""
        return (self < 0.0).where(-self, self)

    def fma(self, factor: Operand, addend: Operand) -> Value:
        """Self · factor + addend, rounded once."""
        b, c = (self.f.value(x, self.kind) for x in (factor, addend))
        name = f"llvm.fma.{mangled(self.kind)}"
        return self.f.intrinsic(name, self.kind, self, b, c)

    def splat(self, lanes: int) -> Value:
        """This number in every lane of a vector."""
        kind = vector(self.kind, lanes)
        one = self.f.builder.insert_element(undefined(kind), self.ir, constant(I32, 0))
        return Value(
            self.f, self.f.builder.shuffle_vector(one, undefined(kind), constant(vector(I32, lanes), 0))
        )

    def bits(self) -> Value:
        """The same bits as integers."""
        return Value(self.f, self.f.builder.bitcast(self.ir, like(self.kind, BITS_OF[scalar(self.kind)])))

    def as_bits_of(self, kind: Type) -> Value:
        """The same bits as another type of the same size."""
        return Value(self.f, self.f.builder.bitcast(self.ir, kind))

    def to(self, element: Type) -> Value:
        """Converted to another element type: integers keep their sign, floats round to nearest even."""
        builder, kind = self.f.builder, like(self.kind, element)
        if kind == self.kind:
            return self
        wider = bytes_of(kind) > bytes_of(self.kind)
        if self.floating and not isinstance(element, ir.IntType):
            return Value(self.f, (builder.fpext if wider else builder.fptrunc)(self.ir, kind))
        if isinstance(element, ir.IntType) and not self.floating:
            return Value(self.f, (builder.sext if wider else builder.trunc)(self.ir, kind))
        return Value(self.f, (builder.fptosi if self.floating else builder.sitofp)(self.ir, kind))

    def as_pointer(self) -> Pointer:
        """This number as an address."""
        return Pointer(self.f, self.f.builder.inttoptr(self.ir, ADDRESS))

    def unsigned(self, element: Type) -> Value:
        """A shorter unsigned integer, widened."""
        return Value(self.f, self.f.builder.zext(self.ir, like(self.kind, element)))

    def lane(self, number: int) -> Value:
        """One number of a vector."""
        return Value(self.f, self.f.builder.extract_element(self.ir, constant(I32, number)))

    def any(self) -> Value:
        """Whether a condition holds in some lane."""
        count = self.kind.count
        return Value(self.f, self.f.builder.bitcast(self.ir, ir.IntType(count))) != 0

    def shuffled(self, other: Value, lanes: Sequence[int]) -> Value:
        """Lanes picked from self (0 …) and other (n …)."""
        return Value(self.f, self.f.builder.shuffle_vector(self.ir, other.ir, lane_numbers(*lanes)))


class Variable:
    """A value that changes, e.g. an accumulator of a loop."""

    __slots__ = ("_address", "_f", "_kind")

    def __init__(self, f: Function, address: Any, kind: Type) -> None:
        self._f, self._address, self._kind = f, address, kind

    @property
    def value(self) -> Value:
        """Its value here."""
        return Value(self._f, self._f.builder.load(self._address, typ=self._kind))

    @value.setter
    def value(self, new: Value) -> None:
        self._f.builder.store(new.ir, self._address)


class Pointer:
    """An address; `p + bytes` moves it."""

    __slots__ = ("f", "ir")

    def __init__(self, f: Function, instruction: Any) -> None:
        self.f, self.ir = f, instruction

    def __add__(self, distance: Value | int) -> Pointer:
        if isinstance(distance, int) and distance == 0:
            return self
        return Pointer(self.f, self.f.builder.gep(self.ir, [self.f.value(distance).ir], source_etype=BYTE))

    def load(self, kind: Type, align: int = 1) -> Value:
        """What stands there."""
        return Value(self.f, self.f.builder.load(self.ir, typ=kind, align=align))

    def store(self, value: Value, align: int = 1) -> None:
        """Put a value there."""
        self.f.builder.store(value.ir, self.ir, align=align)

    def follow(self) -> Pointer:
        """The address that stands there."""
        return Pointer(self.f, self.f.builder.load(self.ir, typ=ADDRESS, align=8))

    def prefetch(self, *, write: bool = False, near: bool = False) -> None:
        """Bring the cache line there into the second-level cache, or the first; harmless for any address."""
        module, builder = self.f.module, self.f.builder
        callee = module.declared("llvm.prefetch.p0", ir.VoidType(), [ADDRESS, I32, I32, I32])
        builder.call(callee, [self.ir, *(constant(I32, x) for x in (int(write), 3 if near else 2, 1))])

    def address(self) -> Value:
        """The address as a number."""
        return Value(self.f, self.f.builder.ptrtoint(self.ir, INT))

    def claim(self, amount: Value | int, order: str = "monotonic") -> Value:
        """Atomically add to the integer there and give what it was: how threads share out work.

        With the order "acq_rel" whoever comes later sees what earlier ones wrote before they came here.
        """
        return Value(self.f, self.f.builder.atomic_rmw("add", self.ir, self.f.value(amount).ir, order))


class Table:
    """An array of equal values in memory, `t[i, j]`, its strides in bytes."""

    __slots__ = ("_align", "_kind", "_strides", "at")

    def __init__(self, at: Pointer, kind: Type, *strides: Operand, align: int = 1) -> None:
        self.at, self._kind, self._strides, self._align = at, kind, strides, align

    def pointer(self, *index: Operand) -> Pointer:
        """Address of an entry."""
        place, fixed = self.at, 0
        for i, stride in zip(index, self._strides, strict=True):
            if isinstance(i, int) and isinstance(stride, int):
                fixed += i * stride
            else:
                place = place + self.at.f.value(i) * stride
        return place + fixed

    def __getitem__(self, index: Any) -> Value:
        return self.pointer(*(index if isinstance(index, tuple) else (index,))).load(self._kind, self._align)

    def __setitem__(self, index: Any, value: Value) -> None:
        self.pointer(*(index if isinstance(index, tuple) else (index,))).store(value, self._align)
