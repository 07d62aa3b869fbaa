"""The number formats of arrays in memory: widened on the way into a kernel, rounded on the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu.kinds import BFLOAT, DOUBLE, FLOAT, HALF, I16, I32, bytes_of, like, vector

if TYPE_CHECKING:
    from sightline.cpu.kinds import Type
    from sightline.cpu.values import Pointer, Value

_MEMORY = {"float64": DOUBLE, "float32": FLOAT, "float16": HALF, "bfloat16": I16}


def size(dtype: str) -> int:
    """Bytes of one number."""
    return bytes_of(_MEMORY[dtype])


def arithmetic(dtype: str) -> Type:
    """The type that kernels compute in: float64 for float64, else float32."""
    return DOUBLE if dtype == "float64" else FLOAT


def load(place: Pointer, dtype: str, compute: Type, lanes: int | None = None) -> Value:
    """A number, or `lanes` neighbours, exactly as the wider type."""
    kind = _MEMORY[dtype]
    return widened(place.load(kind if lanes is None else vector(kind, lanes)), dtype, compute)


def widened(raw: Value, dtype: str, compute: Type) -> Value:
    """Numbers as they lie in memory, exactly as the wider type."""
    if dtype == "bfloat16":  # the upper half of a float32
        raw = (raw.unsigned(I32) << 16).as_bits_of(like(raw.kind, FLOAT))
    return raw.to(compute)


def store(value: Value, place: Pointer, dtype: str) -> None:
    """Round to nearest even and write; float64 goes to the half types by way of float32."""
    if size(dtype) == 2:
        value = value.to(FLOAT)
    if dtype == "bfloat16":
        place.store(_to_bfloat16(value))
    else:
        place.store(value.to(_MEMORY[dtype]))


def _to_bfloat16(value: Value) -> Value:
    return (rounded_to_bfloat16(value) >> 16).to(I16)


def rounded_to_bfloat16(value: Value) -> Value:
    """A float32's bits, of which the upper half is the nearest bfloat16; the lower half says nothing."""
    bits = value.bits()
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    quiet_nan = bits | 0x400000
    return (value != value).where(quiet_nan, rounded)  # noqa: PLR0124 (NaN)


def both_rounded(first: Value, second: Value) -> Value:
    """Two vectors rounded to bfloat16, one after the other: an instruction of processors that multiply pairs."""
    count = 2 * first.kind.count
    name, kind = "llvm.x86.avx512bf16.cvtne2ps2bf16.512", vector(BFLOAT, count)
    return first.f.intrinsic(name, kind, second, first).as_bits_of(vector(I16, count))


def side_by_side(both: Value) -> Value:
    """The same, each number of the first beside one of the second."""
    half = both.kind.count // 2
    return both.shuffled(both, [lane + place for lane in range(half) for place in (0, half)])


def blended(low: Value, high: Value) -> Value:
    """Lower halves of one, upper halves of the other: one instruction, if it is asked for in halves."""
    count = 2 * low.kind.count
    a, b = (x.as_bits_of(vector(I16, count)) for x in (low, high))
    return a.shuffled(b, [lane + count * (lane % 2) for lane in range(count)]).as_bits_of(low.kind)


def memory(dtype: str) -> Type:
    """The type as it lies in memory."""
    return _MEMORY[dtype]
