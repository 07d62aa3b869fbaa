"""LLVM IR that reads like Python: numbers, vectors and pointers with operators, loops as context managers.

A `Module` holds `Function`s; inside a function, Python code handles `Value`s (a number or a vector of
numbers) and `Pointer`s (an address), and every operator writes one instruction. What Python knows while it
runs (a head size, how many registers to use) is a constant of the kernel; what only the call knows is a
`Value`. Nothing here knows about attention.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from llvmlite import ir

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sightline.cpu.isa import Isa

Type: TypeAlias = Any  # an llvmlite type
Operand: TypeAlias = Union["Value", int, float]

BOOL, BYTE, I16, I32, INT = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
HALF, FLOAT, DOUBLE = ir.HalfType(), ir.FloatType(), ir.DoubleType()
ADDRESS = ir.PointerType()
_BITS_OF = {FLOAT: I32, DOUBLE: INT, HALF: I16}


def bytes_of(kind: Type) -> int:
    """Size of a number or a vector in memory."""
    if isinstance(kind, ir.VectorType):
        return int(kind.count) * bytes_of(kind.element)
    if isinstance(kind, ir.IntType):
        return max(1, int(kind.width) // 8)
    return int(_BITS_OF[kind].width) // 8


def vector(element: Type, lanes: int) -> Type:
    """A vector type."""
    return ir.VectorType(element, lanes)


def like(kind: Type, element: Type) -> Type:
    """`kind` with its element type replaced: a number stays a number, a vector keeps its lanes."""
    return ir.VectorType(element, kind.count) if isinstance(kind, ir.VectorType) else element


def scalar(kind: Type) -> Type:
    """The element type of a vector; a number's own type."""
    return kind.element if isinstance(kind, ir.VectorType) else kind


def constant(kind: Type, number: float) -> Any:
    """A constant of that type, the same in every lane."""
    if isinstance(kind, ir.VectorType):
        return ir.Constant(kind, [constant(kind.element, number)] * kind.count)
    return ir.Constant(kind, int(number) if isinstance(kind, ir.IntType) else float(number))


class Module:
    """One LLVM module, for one instruction set."""

    def __init__(self, isa: Isa) -> None:
        self.isa = isa
        self.ir = ir.Module("sightline")
        self.ir.triple = isa.triple

    def __str__(self) -> str:
        return str(self.ir)

    @contextmanager
    def function(self, name: str, *kinds: Type, returns: Type | None = None) -> Iterator[Function]:
        """Write a function; the one named "attend" is visible from outside, the others are its parts."""
        function = Function(self, name, kinds, returns or ir.VoidType())
        yield function
        if returns is None:
            function.builder.ret_void()

    def declared(self, name: str, returns: Type, kinds: Sequence[Type]) -> Any:
        """An LLVM intrinsic."""
        known = self.ir.globals.get(name)
        return known or ir.Function(self.ir, ir.FunctionType(returns, kinds), name)


class Function:
    """A function being written: the place where the next instruction goes."""

    def __init__(self, module: Module, name: str, kinds: Sequence[Type], returns: Type) -> None:
        self.module, self.isa = module, module.isa
        self.ir = ir.Function(module.ir, ir.FunctionType(returns, kinds), name)
        if name != "attend":
            self.ir.linkage = "internal"
            self.ir.attributes.add("noinline")
        self.ir.attributes.add("nounwind")
        self._entry = ir.IRBuilder(self.ir.append_basic_block("entry"))
        body = self.ir.append_basic_block("body")
        self._jump = self._entry.branch(body)
        self.builder = ir.IRBuilder(body)

    def arguments(self) -> list[Any]:
        """The parameters, as `Pointer`s and `Value`s."""
        return [Pointer(self, a) if a.type == ADDRESS else Value(self, a) for a in self.ir.args]

    def call(self, callee: Function, *arguments: Value | Pointer | int) -> Value:
        """Call another function of the module."""
        kinds = callee.ir.function_type.args
        made = [
            self.value(a, t).ir if isinstance(a, int) else a.ir for a, t in zip(arguments, kinds, strict=True)
        ]
        return Value(self, self.builder.call(callee.ir, made))

    def give(self, value: Operand) -> None:
        """Return a value and end the function."""
        self.builder.ret(self.value(value, self.ir.function_type.return_type).ir)

    def give_if(self, condition: Value, value: Operand) -> None:
        """Return a value here if the condition holds, else go on."""
        leave, stay = (self.ir.append_basic_block(name) for name in ("leave", "stay"))
        self.builder.cbranch(condition.ir, leave, stay)
        self.builder.position_at_end(leave)
        self.give(value)
        self.builder.position_at_end(stay)

    def value(self, number: Operand, kind: Type = INT) -> Value:
        """A Python number as a constant of the kernel."""
        return number if isinstance(number, Value) else Value(self, constant(kind, number))

    def zeros(self, kind: Type) -> Value:
        """Zero in every lane."""
        return self.value(0, kind)

    def variable(self, start: Value) -> Variable:
        """A value that changes: a register by the time LLVM is done."""
        self._entry.position_before(self._jump)
        variable = Variable(self, self._entry.alloca(start.kind), start.kind)
        variable.value = start
        return variable

    def intrinsic(self, name: str, returns: Type, *arguments: Value) -> Value:
        """Call an LLVM intrinsic by its full name."""
        callee = self.module.declared(name, returns, [a.kind for a in arguments])
        return Value(self, self.builder.call(callee, [a.ir for a in arguments]))

    @contextmanager
    def loop(self, start: Operand, end: Operand, step: Operand = 1, name: str = "loop") -> Iterator[Value]:
        """`for i in range(start, end, step)`, step positive."""
        head, body, done = (self.ir.append_basic_block(f"{name}.{part}") for part in ("head", "body", "done"))
        first, last, stride = (self.value(x) for x in (start, end, step))
        before = self.builder.block
        self.builder.branch(head)
        self.builder.position_at_end(head)
        index = self.builder.phi(INT)
        index.add_incoming(first.ir, before)
        i = Value(self, index)
        self.builder.cbranch((i < last).ir, body, done)
        self.builder.position_at_end(body)
        yield i
        index.add_incoming((i + stride).ir, self.builder.block)
        self.builder.branch(head)
        self.builder.position_at_end(done)

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """`if condition:`."""
        with self.builder.if_then(condition.ir):
            yield

    @contextmanager
    def either(self, condition: Value) -> Iterator[tuple[Any, Any]]:
        """`if condition: … else: …`, as `with f.either(c) as (then, otherwise): with then: …`."""
        with self.builder.if_else(condition.ir) as branches:
            yield branches


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

    def fma(self, factor: Operand, addend: Operand) -> Value:
        """Self · factor + addend, rounded once."""
        b, c = (self.f.value(x, self.kind) for x in (factor, addend))
        name = f"llvm.fma.{mangled(self.kind)}"
        return self.f.intrinsic(name, self.kind, self, b, c)

    def splat(self, lanes: int) -> Value:
        """This number in every lane of a vector."""
        kind = vector(self.kind, lanes)
        undefined = ir.Constant(kind, ir.Undefined)
        one = self.f.builder.insert_element(undefined, self.ir, ir.Constant(I32, 0))
        zeros = ir.Constant(vector(I32, lanes), [0] * lanes)
        return Value(self.f, self.f.builder.shuffle_vector(one, undefined, zeros))

    def bits(self) -> Value:
        """The same bits as integers."""
        return Value(self.f, self.f.builder.bitcast(self.ir, like(self.kind, _BITS_OF[scalar(self.kind)])))

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

    def unsigned(self, element: Type) -> Value:
        """A shorter unsigned integer, widened."""
        return Value(self.f, self.f.builder.zext(self.ir, like(self.kind, element)))

    def any(self) -> Value:
        """Whether a condition holds in some lane."""
        count = self.kind.count
        return Value(self.f, self.f.builder.bitcast(self.ir, ir.IntType(count))) != 0

    def shuffled(self, other: Value, lanes: Sequence[int]) -> Value:
        """Lanes picked from self (0 …) and other (n …)."""
        mask = ir.Constant(vector(I32, len(lanes)), list(lanes))
        return Value(self.f, self.f.builder.shuffle_vector(self.ir, other.ir, mask))


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

    def distance(self) -> Value:
        """The address as a number."""
        return Value(self.f, self.f.builder.ptrtoint(self.ir, INT))

    def claim(self, amount: int) -> Value:
        """Atomically add to the integer there and give what it was: how threads share out work."""
        return Value(self.f, self.f.builder.atomic_rmw("add", self.ir, self.f.value(amount).ir, "monotonic"))


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
                place = place + self.at.f.value(i) * stride  # type: ignore[arg-type]
        return place + fixed

    def __getitem__(self, index: Any) -> Value:
        return self.pointer(*(index if isinstance(index, tuple) else (index,))).load(self._kind, self._align)

    def __setitem__(self, index: Any, value: Value) -> None:
        self.pointer(*(index if isinstance(index, tuple) else (index,))).store(value, self._align)


def mangled(kind: Type) -> str:
    """LLVM's short name of a type inside an intrinsic's name: v16f32."""
    element = scalar(kind)
    name = f"i{element.width}" if isinstance(element, ir.IntType) else f"f{bytes_of(element) * 8}"
    return f"v{kind.count}{name}" if isinstance(kind, ir.VectorType) else name
