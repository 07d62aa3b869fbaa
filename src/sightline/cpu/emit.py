"""LLVM IR that reads like Python: functions being written, with loops and branches as context managers.

A `Module` holds `Function`s; inside a function, Python code handles `Value`s (a number or a vector of
numbers) and `Pointer`s (an address), and every operator writes one instruction. What Python knows while it
runs (a head size, how many registers to use) is a constant of the kernel; what only the call knows is a
`Value`. Nothing here knows about attention.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llvmlite import ir

from sightline.cpu.compile import ENTRY
from sightline.cpu.kinds import ADDRESS, INT, Type, constant
from sightline.cpu.values import Operand, Pointer, Value, Variable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sightline.cpu.isa import Isa


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
        """Write a function; the one named ENTRY is visible from outside, the others are its parts."""
        function = Function(self, name, kinds, returns or ir.VoidType())
        yield function
        if returns is None:
            function.builder.ret_void()

    def declared(self, name: str, returns: Type, kinds: Sequence[Type]) -> Any:
        """An LLVM intrinsic."""
        known = self.ir.globals.get(name)
        return known or ir.Function(self.ir, ir.FunctionType(returns, kinds), name)


class _Callee:
    """An address as llvmlite takes what is called: it has no pointers to functions."""

    def __init__(self, kind: Type, address: Any) -> None:
        self.function_type, self.get_reference = kind, address.get_reference


class Function:
    """A function being written: the place where the next instruction goes."""

    def __init__(self, module: Module, name: str, kinds: Sequence[Type], returns: Type) -> None:
        self.module, self.isa = module, module.isa
        self.ir = ir.Function(module.ir, ir.FunctionType(returns, kinds), name)
        if name != ENTRY:
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

    def call_at(self, address: Pointer, returns: Type, *arguments: Value | Pointer) -> Value:
        """Call the function at an address that only the call knows."""
        kind = ir.FunctionType(returns, [ADDRESS if isinstance(a, Pointer) else a.kind for a in arguments])
        return Value(self, self.builder.call(_Callee(kind, address.ir), [a.ir for a in arguments]))

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
