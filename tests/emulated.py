"""Kernels for a processor this machine is not: the door's calls are recorded, and run again under QEMU.

What the door does before the kernel starts (plan, arguments, addresses) is the code every call runs; only the
kernel is replaced, by one that writes down what it was given.
"""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import sightline
from cases import DTYPES
from sightline import arrays
from sightline.cpu import compile as compiler
from sightline.cpu import isa
from sightline.cpu.arguments import BATCH_COLUMNS, SLOT, SLOTS
from sightline.see import PER_QUERY

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    import pytest

    from cases import Array, Inputs

COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
MISSING = [tool for tool in (COMPILER, EMULATOR) if shutil.which(tool) is None]
WORKSPACE = 4 << 20  # what a kernel may need at most
CANARY = 0xA5
OUTPUTS = ("out", *PER_QUERY)
_serial = itertools.count()


@dataclasses.dataclass
class Recorded:
    """A call as its kernel sees it: IR, argument block, and copies of all the memory it points at."""

    ir: str
    target: isa.Isa
    block: Array  # addresses count from the image's start
    addresses: list[int]  # slots
    image: Array  # bytes
    outputs: dict[str, slice]  # where they lie in it: "out", and what is seen


def record(inputs: Inputs, name: str, patch: pytest.MonkeyPatch) -> Recorded:
    """Call the door for instruction set `name`, and stop where the kernel would start."""
    target = isa.target(name)
    # The door remembers calls by instruction set: one of its own for each recording.
    unique = dataclasses.replace(target, extras=(f"recorded {next(_serial)}",))
    texts: list[str] = []
    out = np.empty(output_shape(inputs), inputs.query.dtype)
    given: dict[str, Array] = {"query": inputs.query, "key": inputs.key, "value": inputs.value, "out": out}
    made: list[Recorded] = []

    def empty_like(_: object, shape: tuple[int, ...], dtype: str) -> Array:
        """What is seen, in the order of its names."""
        name = next(name for name in inputs.options["see"] if name not in given)
        given[name] = np.empty(shape, DTYPES[dtype])
        return given[name]

    given |= {option: inputs.options[option] for option in ("mask", "bias") if option in inputs.options}

    def write_down(block: int, _: int) -> int:
        made.append(copied(block, given, texts[0], target))
        return 0  # nothing is left to do

    kernel = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)(write_down)

    def load(_: str, key: Hashable, here: isa.Isa, build: Callable[[], str]) -> int:
        texts.append(build())
        return int(ctypes.cast(kernel, ctypes.c_void_p).value or 0)

    with patch.context() as during:
        during.setattr(isa, "chosen", lambda: unique)
        during.setattr(compiler, "load", load)
        during.setattr(arrays, "empty_like", empty_like)
        sightline.attention(inputs.query, inputs.key, inputs.value, **inputs.options, out=out)
    return made[0]


def output_shape(inputs: Inputs) -> tuple[int, ...]:
    """Shape of the output for arrays of one batch."""
    return (*inputs.query.shape[:-1], inputs.value.shape[-1])


def copied(at: int, given: dict[str, Array], ir: str, target: isa.Isa) -> Recorded:
    """The argument block at this address with everything it points at, in one image."""
    block = np.frombuffer(ctypes.string_at(at, 8 * SLOTS), np.int64).copy()
    for name, x in given.items():
        assert x.flags.c_contiguous, f"{name}: only contiguous arrays can be recorded"
        assert block[SLOT[name]] == x.ctypes.data, name
    sizes = {name: x.nbytes for name, x in given.items()}
    heads = int(block[SLOT["spaces"]] * block[SLOT["space_heads"]])
    sequences = int(block[SLOT["items"]] // (block[SLOT["spaces"]] * block[SLOT["blocks"]]))
    sizes |= {name: 8 * heads for name in ("sinks", "slopes") if block[SLOT[name]]}
    sizes["batches"] = 8 * sequences * len(BATCH_COLUMNS)
    parts, place, outputs = [], 0, {}
    for name, size in sizes.items():
        slot = SLOT[name]
        memory = ctypes.string_at(int(block[slot]), size) if name not in OUTPUTS else bytes([CANARY]) * size
        gap = bytes([CANARY]) * (64 + -size % 64)
        if name in OUTPUTS:
            outputs[name] = slice(place, place + size)
        parts.append(np.frombuffer(memory + gap, np.uint8))
        block[slot], place = place, place + size + len(gap)
    return Recorded(ir, target, block, [SLOT[name] for name in sizes], np.concatenate(parts), outputs)


def harness(folder: Path) -> Path:
    """The program that every kernel is linked with, as an object file."""
    made, source = folder / "harness.o", Path(__file__).with_name("neon_harness.c")
    subprocess.run([COMPILER, "-O1", "-Wall", "-Werror", "-c", source, "-o", made], check=True)
    return made


def emulated(call: Recorded, harness: Path, folder: Path, processor: str) -> Array:
    """The memory image after the kernel has run on an emulated processor."""
    kernel, program, given, answer = (folder / name for name in ("kernel.o", "program", "call", "answer"))
    kernel.write_bytes(compiler.object_code(call.ir, call.target))
    subprocess.run([COMPILER, "-static", harness, kernel, "-o", program], check=True)
    sizes = np.array([call.block.size, len(call.addresses), WORKSPACE, call.image.size])
    addresses = np.array(call.addresses, np.int64)
    given.write_bytes(b"".join(x.tobytes() for x in (sizes, call.block, addresses, call.image)))
    subprocess.run([EMULATOR, "-cpu", processor, program, given, answer], check=True, timeout=60)
    return np.frombuffer(answer.read_bytes(), np.uint8)


def output(call: Recorded, after: Array, name: str, dtype: Any, shape: tuple[int, ...]) -> Any:
    """The output, or what is seen, in a memory image."""
    return after[call.outputs[name]].view(dtype).reshape(shape)
