"""Intel's matrix unit (AMX), done by multiply-adds where the processor has AVX-512 and no such unit.

The generator writes its kernels for AMX as ever; only the unit's seven instructions become functions here. Each
thread has eight tiles in memory from `ldtilecfg` until `tilerelease`: without them a kernel crashes, as it would
on the processor. Products of tiles are added up in the order that Intel's manual gives (TDPBF16PS), with its
rounding and its flushing of tiny numbers. What this cannot tell is how fast anything is.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import os
from typing import TYPE_CHECKING, Any

import pytest
from llvmlite import ir

from sightline.cpu import compile as compiler
from sightline.cpu import isa, strips
from sightline.cpu.kinds import ADDRESS, FLOAT, HALF, I32, INT, scalar, vector
from sightline.cpu.strips import TILE_ROW_BYTES
from sightline.cpu.values import Pointer, Value, Variable
from sightline.cpu.workspace import TILE_BYTES, TILE_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sightline.cpu.emit import Function, Module
    from sightline.cpu.values import Operand

TILES = 8
ROW, INTEGERS = vector(FLOAT, 16), vector(I32, 16)
FLUSH = 1 << 15 | 1 << 6  # of MXCSR


def why_not() -> str | None:
    """What keeps this machine from it, in words; a machine with the unit itself needs none."""
    names = [choice.name for choice in isa.runnable()]
    if "amx" in names:
        return "this machine has the unit itself"
    return None if "avx512" in names else "this machine's processor lacks AVX-512"


OWN = strips._instruct  # the processor's instructions


def stand_in() -> None:
    """Let this process run kernels for AMX, where the processor does not and can be helped."""
    if why_not() is None:
        install(pytest.MonkeyPatch())


def installed() -> bool:
    """Whether AMX is done here by what stands below."""
    return strips._instruct is instruct


def install(patch: pytest.MonkeyPatch) -> None:
    """From here on this process runs kernels for AMX if they are asked for by name; its best choice stays."""
    best, detect, target = isa.detect(), isa.detect, isa.target
    missing, machine = isa._missing, compiler._machine
    made = dataclasses.replace(
        target("amx"),
        # The code holds this process's addresses: nobody else may take it from the disk.
        features=f"emulated for {os.urandom(8).hex()}",
        extras=("avx512bf16", "avx512fp16"),
    )
    host = isa._host()

    def lacks(row: Any, where: Any) -> str | None:
        return None if row.name == "amx" and where is host else missing(row, where)

    patch.setattr(isa, "_missing", lacks)
    patch.setattr(isa, "target", lambda name: made if name == "amx" and isa._host() is host else target(name))
    patch.setattr(isa, "detect", lambda: best if isa._host() is host else detect())
    patch.setattr(compiler, "_machine", lambda choice: machine(best if choice == made else choice))
    patch.setattr(strips, "_instruct", instruct)
    patch.setattr(Value, "fma", functools.partialmethod(_fma, plain=Value.fma))


def instruct(f: Function, name: str, *operands: Value | Pointer | int) -> None:
    """What a kernel does instead of an instruction."""
    f.builder.call(
        _function(f.module, name), [f.value(x).ir if isinstance(x, int) else x.ir for x in operands]
    )


def _function(module: Module, name: str) -> Any:
    """A function of the kernel's module, written when first needed."""
    if known := module.ir.globals.get(f"unit.{name}"):
        return known
    body, *kinds = INSTRUCTIONS[name]
    with module.function(f"unit.{name}", *kinds) as f:
        body(f, *f.arguments())
    return f.ir


# ---- the unit's instructions ----


def _configure(f: Function, place: Pointer) -> None:
    """Tiles of zeros, if the words at `place` are those of eight whole tiles; else the thread has none."""
    wanted = b"\1".ljust(16, b"\0") + TILES * TILE_ROW_BYTES.to_bytes(2, "little")
    wanted = wanted.ljust(48, b"\0") + TILES * TILE_ROWS.to_bytes(1, "little")
    wrong = f.value(0)
    for offset in range(0, 64, 8):
        word = int.from_bytes(wanted[offset : offset + 8].ljust(8, b"\0"), "little")
        wrong = wrong | ((place + offset).load(INT) ^ word)
    _release(f)
    with f.when(wrong == 0):
        count, size = f.value(TILES), f.value(TILE_BYTES)
        _system(
            f, "pthread_setspecific", I32, _key(f), Pointer(f, _system(f, "calloc", ADDRESS, count, size).ir)
        )


def _release(f: Function) -> None:
    _system(f, "free", INT, _tiles(f))
    _system(f, "pthread_setspecific", I32, _key(f), f.value(0).as_pointer())


def _load(f: Function, tile: Value, place: Pointer, row: Value) -> None:
    mine = _tiles(f) + tile * TILE_BYTES
    for i in range(TILE_ROWS):
        (mine + i * TILE_ROW_BYTES).store((place + row * i).load(ROW))


def _store(f: Function, tile: Value, place: Pointer, row: Value) -> None:
    mine = _tiles(f) + tile * TILE_BYTES
    for i in range(TILE_ROWS):
        (place + row * i).store((mine + i * TILE_ROW_BYTES).load(ROW))


def _zero(f: Function, tile: Value) -> None:
    for i in range(TILE_ROWS):
        (_tiles(f) + (tile * TILE_BYTES + i * TILE_ROW_BYTES)).store(f.zeros(ROW))


def _multiply(f: Function, total: Value, left: Value, right: Value) -> None:
    """As `_products`, with tiny numbers taken for 0, and tiny results made 0."""
    before, during = f.variable(f.value(0, I32)), f.variable(f.value(0, I32))
    _control(f, "stmxcsr", before)
    during.value = before.value | FLUSH
    _control(f, "ldmxcsr", during)
    f.builder.call(_function(f.module, "products"), [total.ir, left.ir, right.ir])
    _control(f, "ldmxcsr", before)


def _products(f: Function, total: Value, left: Value, right: Value) -> None:
    """Total[i, j] += Σ left[i, 2c]·right[c, 2j] + Σ left[i, 2c + 1]·right[c, 2j + 1], c by c from 0 on."""
    tiles = _tiles(f)
    sums, a, b = (tiles + tile * TILE_BYTES for tile in (total, left, right))
    factors = [_widened((b + c * TILE_ROW_BYTES).load(INTEGERS)) for c in range(TILE_ROWS)]
    with f.loop(0, TILE_ROWS * TILE_ROW_BYTES, TILE_ROW_BYTES) as row:
        made = [f.zeros(ROW), f.zeros(ROW)]
        for c, factor in enumerate(factors):
            pair = _widened((a + row + 4 * c).load(I32).splat(16))
            made = [x.fma(y, z) for x, y, z in zip(pair, factor, made, strict=True)]
        (sums + row).store((sums + row).load(ROW) + (made[0] + made[1]))


def _widened(pairs: Value) -> list[Value]:
    """The first and the second bfloat16 of each pair."""
    return [(pairs << 16).as_bits_of(ROW), (pairs & -(1 << 16)).as_bits_of(ROW)]


def _control(f: Function, name: str, word: Variable) -> None:
    """Keep or set how the thread rounds, and what it does with tiny numbers."""
    callee = f.module.declared(f"llvm.x86.sse.{name}", ir.VoidType(), [ADDRESS])
    f.builder.call(callee, [word._address])


INSTRUCTIONS: dict[str, tuple[Any, ...]] = {
    "ldtilecfg": (_configure, ADDRESS),
    "tilerelease": (_release,),
    "tileloadd64": (_load, INT, ADDRESS, INT),
    "tileloaddt164": (_load, INT, ADDRESS, INT),
    "tilestored64": (_store, INT, ADDRESS, INT),
    "tilezero": (_zero, INT),
    "tdpbf16ps": (_multiply, INT, INT, INT),
    "products": (_products, INT, INT, INT),
}


# ---- what such processors have besides: multiply-adds of float16 (AVX512-FP16) ----


def _fma(x: Value, factor: Operand, addend: Operand, *, plain: Callable[..., Value]) -> Value:
    """X · factor + addend in float16, rounded once: summed up in float32, rounded to odd."""
    if scalar(x.kind) != HALF:
        return plain(x, factor, addend)
    a, b, c = (x.f.value(n, x.kind).to(FLOAT) for n in (x, factor, addend))
    product = a * b
    total = product + c
    part = total - product
    rest = (product - (total - part)) + (c - part)  # Knuth's: product + c = total + rest
    bits = total.bits()
    away = ((rest > 0.0) ^ (total < 0.0)).where(bits + 1, bits - 1)
    odd = ((rest == 0.0) | ((bits & 1) == 1)).where(bits, away)
    return odd.as_bits_of(total.kind).to(HALF)


# ---- where a thread has its tiles ----


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None)


@functools.cache
def _made_key() -> int:
    key = ctypes.c_uint()
    failed = _library().pthread_key_create(ctypes.byref(key), _library().free)
    assert not failed, "no key for what is a thread's own"
    return key.value


def _key(f: Function) -> Value:
    return f.value(_made_key(), I32)


def _system(f: Function, name: str, returns: Any, *arguments: Value | Pointer) -> Value:
    """Call a function of the C library."""
    address = ctypes.cast(getattr(_library(), name), ctypes.c_void_p).value
    assert address is not None
    return f.call_at(f.value(address).as_pointer(), returns, *arguments)


def _tiles(f: Function) -> Pointer:
    return Pointer(f, _system(f, "pthread_getspecific", ADDRESS, _key(f)).ir)
