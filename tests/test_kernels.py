"""What the machine code of kernels promises: instructions, registers, size, memory; the same every time."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from dataclasses import fields, replace

import pytest
from llvmlite.binding import ObjectFileRef

from sightline.arrays import Spec
from sightline.cpu import backward, isa
from sightline.cpu import compile as compiler
from sightline.cpu.forward import generate
from sightline.cpu.workspace import run_bytes
from sightline.kernel_key import KernelKey, register_tile
from sightline.plan import plan
from sightline.problem import Problem
from sightline.see import PER_QUERY

# The first-level instruction cache of every processor these kernels are for, so that no tile waits for code.
LARGEST_CODE = 32 << 10
LARGEST_WORKSPACE = 4 << 20
EVERYTHING = KernelKey(
    "bfloat16", 128, 128, 64, stage_key=True, stage_value=True, banded=True, mask=True, bias="float32",
    scaled=True, softcap=True, alibi=True, sinks=True, see=PER_QUERY,
)  # fmt: skip
KEYS = {
    "float32-64": KernelKey("float32", 64, 64, 64),
    "float32-128": KernelKey("float32", 128, 128, 64),
    "float32-64-causal": KernelKey("float32", 64, 64, 64, banded=True),
    "float64-80-mask": KernelKey("float64", 80, 80, 64, mask=True),
    "float16-64-causal": KernelKey("float16", 64, 64, 64, stage_key=True, stage_value=True, banded=True),
    "bfloat16-128-everything": EVERYTHING,
    "float32-64-gradients": KernelKey("float32", 64, 64, 64, gradients=("query", "key", "value")),
}
every_key = pytest.mark.parametrize("name", KEYS)
every_target = pytest.mark.parametrize("instructions", isa.NAMES)


@functools.cache
def assembly(name: str, instructions: str) -> str:
    target = isa.target(instructions)
    return compiler.assembly(made(KEYS[name], target), target)


def made(key: KernelKey, target: isa.Isa) -> str:
    """The text of the program that the key is for."""
    return (backward.generate if key.gradients else generate)(key, target)


def body(text: str, function: str) -> str:
    """The instructions of one function."""
    found = re.search(rf"^{re.escape(function)}:$(.*?)^\.Lfunc_end", text, re.MULTILINE | re.DOTALL)
    assert found, f"no function {function}"
    return found[1]


# ── Instructions and registers ──


@every_key
def test_avx2_code_holds_no_instruction_of_avx512(name: str) -> None:
    text = assembly(name, "avx2")
    beyond = r"%zmm\d+|%k[0-7]\b|%[xy]mm(?:1[6-9]|2\d|3[01])\b"  # registers that only AVX-512 has
    assert re.findall(r"vfmadd\w+\s.*%ymm", text)
    assert not re.findall(beyond, text)


@every_key
def test_avx512_code_multiplies_whole_registers_and_uses_more_than_sixteen(name: str) -> None:
    text = assembly(name, "avx512")
    for function in ("scores", "accumulate"):
        lines = re.findall(r"vfn?m[as]\w+[sp][sd]\s.*", body(text, function))
        assert lines
        assert all("%zmm" in line for line in lines)
    assert re.search(r"%zmm(?:1[6-9]|2\d|3[01])\b", text)


# What a vector's way to the stack or back looks like, in AT&T's and in ARM's words.
SPILL = {
    "x86_64": r"\s.*\(%rsp.*%[xyz]mm.*|\s.*%[xyz]mm\d+, -?\d*\(%rsp.*",
    "aarch64": r"\s(?:ldr|str|ldp|stp|ldur|stur)\s+q\d+.*\[sp.*",
}
GRADIENT_PRODUCTS = ("scores", "d_weights", "accumulate", "d_value", "d_key")
MULTIPLY_ADD = {"x86_64": ("vfmadd", "vdpbf16ps"), "aarch64": ("fmla",)}
JUMP = {"x86_64": r"\s+j\w+\s+(\.LBB\w+)", "aarch64": r"\s+(?:b|b\.\w+|t?c?bn?z\s.*,)\s*(\.LBB\w+)"}


@every_target
@pytest.mark.parametrize(
    ("name", "function"),
    [
        *(
            (name, function)
            for name in ("float32-64", "float32-128")
            for function in ("scores", "accumulate")
        ),
        *(("float32-64-gradients", function) for function in GRADIENT_PRODUCTS),
    ],
)
def test_the_hottest_loop_keeps_its_sums_in_registers(name: str, function: str, instructions: str) -> None:
    machine = isa.target(instructions).triple.split("-")[0]
    loop = hottest_loop(body(assembly(name, instructions), function), machine)
    tile = register_tile(isa.target(instructions))
    least = tile.queries * min(tile.keys, tile.dims)
    assert multiply_adds(loop, machine) >= least  # the full tile of sums
    spilled = [line for line in loop if re.match(SPILL[machine], line)]
    assert not spilled, f"{len(spilled)} vectors go to the stack, the first: {spilled[0].strip()}"


@pytest.mark.parametrize(
    ("gradients", "function"),
    [
        *(((), function) for function in ("scores", "accumulate")),
        *((("query", "key", "value"), function) for function in GRADIENT_PRODUCTS),
    ],
)
def test_pairs_of_bfloat16_are_multiplied_in_registers(gradients: tuple[str, ...], function: str) -> None:
    """Compiled for a processor that has the instruction, whatever this one has."""
    target = replace(isa.target("avx512"), cpu="znver4", features="", extras=("avx512bf16",))
    key = KernelKey("bfloat16", 64, 64, 64, stage_value=True, paired=True, gradients=gradients)
    loop = hottest_loop(body(compiler.assembly(made(key, target), target), function), "x86_64")
    tile = register_tile(target)
    least = tile.queries * min(tile.keys, tile.dims)
    assert len([line for line in loop if re.match(r"\s+vdpbf16ps\s.*%zmm", line)]) >= least
    assert not [line for line in loop if re.match(SPILL["x86_64"], line)]


def hottest_loop(text: str, machine: str) -> list[str]:
    """The innermost loop with most multiply-adds, and of two with as many, the shorter."""
    lines = text.splitlines()
    place = {label[1]: i for i, line in enumerate(lines) if (label := re.match(r"(\.LBB\w+):", line))}
    ends: dict[int, int] = {}
    for i, line in enumerate(lines):
        jump = re.match(JUMP[machine], line)
        if jump and place.get(jump[1], i) < i:
            ends[place[jump[1]]] = i
    inner = [
        (start, end)
        for start, end in ends.items()
        if not any(start < first and last <= end for first, last in ends.items())
    ]
    loops = [lines[start : end + 1] for start, end in inner]
    return max(loops, key=lambda loop: (multiply_adds(loop, machine), -len(loop)))


def multiply_adds(loop: list[str], machine: str) -> int:
    """How many there are in a piece of assembly."""
    return sum(word in line for line in loop for word in MULTIPLY_ADD[machine])


def test_the_reader_of_assembly_sees_a_spill() -> None:
    spills = ["\tvmovups\t%zmm3, -72(%rsp)", "\tvfmadd231ps\t64(%rsp), %zmm1, %zmm2"]
    harmless = ["\tmovq\t8(%rsp), %rax", "\tvmovups\t%ymm3, 72(%rax)"]
    assert all(re.match(SPILL["x86_64"], line) for line in spills)
    assert not any(re.match(SPILL["x86_64"], line) for line in harmless)
    spills = ["\tstp\tq3, q4, [sp, #32]", "\tldr\tq5, [sp]"]
    harmless = ["\tstp\td9, d8, [sp, #32]", "\tldr\tq1, [x11, x6]"]
    assert all(re.match(SPILL["aarch64"], line) for line in spills)
    assert not any(re.match(SPILL["aarch64"], line) for line in harmless)


# ── Sizes ──


@every_target
@every_key
def test_code_fits_the_first_level_instruction_cache(name: str, instructions: str) -> None:
    target = isa.target(instructions)
    code = ObjectFileRef.from_data(compiler.object_code(made(KEYS[name], target), target))
    sizes = [section.size() for section in code.sections() if section.is_text()]
    assert 0 < sum(sizes) <= LARGEST_CODE


@every_target
@pytest.mark.parametrize("dim", [2, 64, 128, 256, 257, 512, 1024])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_a_thread_needs_less_than_four_mebibytes(dtype: str, dim: int, instructions: str) -> None:
    size = {"float64": 8, "float32": 4}.get(dtype, 2)
    # Every other element of longer rows: keys and values are copied to the workspace.
    rows = Spec((1, 300, dim), (600 * dim * size, 2 * dim * size, 2 * size), dtype)
    mask, bias = Spec((300, 300), (300, 1), "bool"), Spec((300, 300), (2400, 8), "float64")
    head = Spec((1,), (4,), "float32")
    problem = Problem.of(
        rows, rows, rows, mask=mask, bias=bias, causal=True, softcap=5.0, sinks=head, alibi_slopes=head
    )
    made = plan(problem, isa.target(instructions))
    assert made.kernel.terms or (made.kernel.stage_key and made.kernel.stage_value)
    assert 0 < run_bytes(made.kernel, made.isa, made.kernel.most_sharing) <= LARGEST_WORKSPACE
    key = replace(made.kernel, gradients=("query", "key", "value"), terms=0, stage_key=True, stage_value=True)
    assert 0 < run_bytes(key, made.isa, 1) <= LARGEST_WORKSPACE


# ── The same every time ──


@every_target
def test_a_key_gives_the_same_text_in_every_process(instructions: str) -> None:
    here = generate(EVERYTHING, isa.target(instructions))
    assert generate(EVERYTHING, isa.target(instructions)) == here
    program = f"""
from sightline.cpu import isa
from sightline.cpu.forward import generate
from sightline.kernel_key import KernelKey
print(generate({EVERYTHING!r}, isa.target({instructions!r})), end="")
"""
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == here, done.stderr


PLAIN = KernelKey("float32", 64, 64, 64)
OTHERS = [
    replace(PLAIN, dtype="float64"),
    replace(PLAIN, dim=63),
    replace(PLAIN, value_dim=63),
    replace(PLAIN, tile_keys=32),
    replace(PLAIN, stage_key=True),
    replace(PLAIN, stage_value=True),
    replace(PLAIN, paired=True),
    replace(PLAIN, banded=True),
    replace(PLAIN, mask=True),
    replace(PLAIN, bias="float32"),
    replace(PLAIN, bias="float16"),
    replace(PLAIN, scaled=True),
    replace(PLAIN, softcap=True),
    replace(PLAIN, alibi=True),
    replace(PLAIN, sinks=True),
    replace(PLAIN, dropout=True),
    replace(PLAIN, listed=True),
    replace(PLAIN, gradients=("query",)),
    *(replace(PLAIN, see=(name,)) for name in PER_QUERY),
    replace(PLAIN, few=1),
    replace(PLAIN, split=True),
    replace(PLAIN, see=PER_QUERY),
    *(replace(PLAIN, terms=terms) for terms in (1, 2, 3)),
]


@pytest.mark.parametrize("instructions", ["amx", "avx2"])
def test_every_part_of_the_key_changes_the_code(instructions: str) -> None:
    target = isa.target(instructions)
    texts = [generate(key, target) for key in (PLAIN, *OTHERS) if target.multiplies_tiles or not key.terms]
    assert len(set(texts)) == len(texts)
    names = {field.name for field in fields(KernelKey)}  # a new field needs its line above
    assert names == {name for name in names for key in OTHERS if getattr(key, name) != getattr(PLAIN, name)}
