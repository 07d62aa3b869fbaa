"""The NEON kernels: what AArch64 code they become, and a handful of conformance cases under QEMU."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

import emulated
from cases import DTYPES, build
from conformance import CASES
from judge import arithmetic, check, expected
from sightline.cpu import compile as compiler
from sightline.cpu import isa
from sightline.cpu.forward import generate
from sightline.kernel_key import KernelKey
from sightline.see import PER_QUERY

if TYPE_CHECKING:
    from pathlib import Path

NEON = isa.target("neon")
KEYS = {
    "float32": KernelKey("float32", 64, 64, 64),
    "float64": KernelKey("float64", 80, 48, 64, banded=True),
    "float16": KernelKey("float16", 128, 128, 64, stage_key=True, stage_value=True, mask=True),
    "bfloat16": KernelKey("bfloat16", 40, 40, 64, stage_key=True, stage_value=True, sinks=True),
    "modified": KernelKey(
        "float32", 63, 65, 64, banded=True, mask=True, bias="float16", scaled=True, softcap=True, alibi=True
    ),
}


@functools.lru_cache
def assembly(name: str) -> str:
    return compiler.assembly(generate(KEYS[name], NEON), NEON)


def test_kernels_become_aarch64_object_code() -> None:
    code = compiler.object_code(generate(KEYS["modified"], NEON), NEON)
    assert code[:6] == b"\x7fELF\x02\x01"  # ELF, 64 bits, little-endian
    assert int.from_bytes(code[18:20], "little") == 183  # EM_AARCH64


@pytest.mark.parametrize("name", KEYS)
def test_the_products_are_fused_multiply_adds_on_whole_registers(name: str) -> None:
    lanes = "2d" if name == "float64" else "4s"
    for function in ("scores", "accumulate"):
        body = re.search(rf"^{function}:$(.*?)^\.Lfunc_end", assembly(name), re.MULTILINE | re.DOTALL)
        assert body, function
        fused = re.findall(rf"\bfmla\s+v\d+\.{lanes}, v\d+\.{lanes}, v\d+\.", body[1])
        unfused = re.findall(r"\bfmul\s", body[1])
        assert len(fused) >= 20, function  # at least one whole tile of sums
        assert not unfused, function


@pytest.mark.parametrize("name", KEYS)
def test_kernels_use_all_of_neon_and_nothing_beyond(name: str) -> None:
    used = {int(number) for number in re.findall(r"\bv(\d+)\.(?:4s|2d)\b", assembly(name))}
    assert max(used) == 31
    assert not re.search(r"\b[pz]\d+\.[bhsd]\b", assembly(name))  # SVE


# Each with a type it has something to say about. "decode" folds a group's heads into rows.
CALLS = [
    ("length-65-causal", "float32"),
    ("window-causal", "float32"),
    ("mask-hqk", "float16"),
    ("bias-hqk", "bfloat16"),
    ("softcap-5.0", "float32"),
    ("sinks", "float32"),
    ("alibi-causal", "float64"),
    ("decode", "float32"),
    ("dim-7", "float32"),
    ("dim-7-value-40", "float16"),
    ("key-lengths", "float64"),
    ("nan-behind-random-mask", "float32"),
    ("everything", "float32"),
    ("everything", "bfloat16"),
    ("everything", "float64"),
]


SEEN = [("everything", "float32"), ("decode", "float16"), ("nan-value-seen", "float64")]


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if emulated.MISSING:
        pytest.skip(
            f"no {' and no '.join(emulated.MISSING)} here: apt-get install qemu-user gcc-aarch64-linux-gnu"
        )
    return emulated.harness(tmp_path_factory.mktemp("harness"))


@pytest.mark.parametrize(
    ("name", "dtype", "see"), [*((*call, ()) for call in CALLS), *((*call, PER_QUERY) for call in SEEN)]
)
def test_emulated_neon_kernels_keep_the_definition(
    name: str,
    dtype: str,
    see: tuple[str, ...],
    harness: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = next(case for case in CASES if case.name == name)
    inputs = build(case, dtype)
    if see:
        inputs.options["see"] = see
    call = emulated.record(inputs, "neon", monkeypatch)
    # Cortex-A53 is ARMv8.0 and nothing more: code for it runs on every AArch64 processor.
    after = emulated.emulated(call, harness, tmp_path, "cortex-a53")
    shape, seen_as = emulated.output_shape(inputs), DTYPES[arithmetic(dtype)]
    output = emulated.output(call, after, "out", inputs.query.dtype, shape)
    seen = {
        name: emulated.output(call, after, name, seen_as, expected(case, dtype).statistics[name].shape)
        for name in see
    }
    check(case, dtype, output, **seen)
    untouched = np.ones(after.size, bool)
    for place in call.outputs.values():
        untouched[place] = False
    np.testing.assert_array_equal(after[untouched], call.image[untouched])
