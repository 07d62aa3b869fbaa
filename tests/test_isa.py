"""Instruction sets: which one a machine gets, and that code made for one holds no instruction of another."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import matrix_unit
from sightline.cpu import isa
from sightline.cpu.compile import assembly

if TYPE_CHECKING:
    from collections.abc import Iterator

AVX2 = dict.fromkeys(("avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe"), True)
AVX512 = AVX2 | dict.fromkeys(("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd"), True)
AMX = AVX512 | {"avx512bf16": True, "avx512fp16": True, "amx-tile": True, "amx-bf16": True}


def fma_module(lanes: int) -> str:
    """IR of one fused multiply-add on vectors of `lanes` floats."""
    vector = f"<{lanes} x float>"
    return f"""
        define i64 @f(ptr %p) {{
          %q = getelementptr {vector}, ptr %p, i64 1
          %x = load {vector}, ptr %p, align 4
          %y = load {vector}, ptr %q, align 4
          %z = call {vector} @llvm.fma.v{lanes}f32({vector} %x, {vector} %y, {vector} %x)
          store {vector} %z, ptr %p, align 4
          ret i64 0
        }}
        declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})
    """


POPULATION_COUNT = """
    declare i64 @llvm.ctpop.i64(i64)
    define i64 @f(i64 %x) {
      %y = call i64 @llvm.ctpop.i64(i64 %x)
      ret i64 %y
    }
"""


@pytest.fixture(autouse=True)
def _fresh_choice(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(isa.VARIABLE, raising=False)
    isa._choice.cache_clear()
    yield
    isa._choice.cache_clear()


def pretend(
    monkeypatch: pytest.MonkeyPatch, machine: str, cpu: str = "", features: dict[str, bool] | None = None
) -> None:
    host = isa._Host(f"{machine}-unknown-linux-gnu", machine, cpu, features or {})
    monkeypatch.setattr(isa, "_host", lambda: host)


@pytest.mark.parametrize(
    ("name", "vector_bytes", "registers"),
    [("avx2", 32, 16), ("avx512", 64, 32), ("amx", 64, 32), ("neon", 16, 32)],
)
def test_rows(name: str, vector_bytes: int, registers: int) -> None:
    row = isa.target(name)
    assert (row.vector_bytes, row.registers) == (vector_bytes, registers)
    assert [row.lanes(size) for size in (2, 4, 8)] == [vector_bytes // size for size in (2, 4, 8)]
    assert hash(row) == hash(isa.target(name))


def test_the_best_set_the_machine_has_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "x86_64", "sapphirerapids", AMX)
    assert [row.name for row in isa.runnable()] == ["amx", "avx512", "avx2"]
    assert isa.chosen() == isa.detect()
    assert isa.detect().name == "amx"
    assert isa.detect().cpu == "sapphirerapids"
    assert isa.detect().extras == ("avx512bf16", "avx512fp16")
    assert isa.why() == "amx: the best this sapphirerapids processor runs, with avx512bf16 avx512fp16"


def test_a_matrix_unit_may_be_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "x86_64", "sapphirerapids", AMX)
    assert isa.detect().multiplies_tiles
    monkeypatch.setenv(isa.VARIABLE, "avx512")
    assert isa.chosen().name == "avx512"
    assert not isa.chosen().multiplies_tiles


@pytest.mark.parametrize(("granted", "best"), [(True, "amx"), (False, "avx512")])
def test_the_system_is_asked_for_tile_registers(
    monkeypatch: pytest.MonkeyPatch, granted: bool, best: str
) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("tile registers are x86-64's")
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", lambda: AMX)
    monkeypatch.setattr(isa, "_tiles_granted", lambda: granted)
    host = isa._host.__wrapped__()
    monkeypatch.setattr(isa, "_host", lambda: host)
    assert isa.detect().name == best


@pytest.mark.parametrize("lacking", ["avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd"])
def test_every_part_of_avx512_is_needed(monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    pretend(monkeypatch, "x86_64", "somelake", AVX512 | {lacking: False})
    assert isa.detect().name == "avx2"
    assert isa.detect().extras == ()
    assert f"not avx512: this machine's processor or operating system lacks {lacking}" in isa.why()
    monkeypatch.setenv(isa.VARIABLE, "avx512")
    with pytest.raises(RuntimeError, match=rf"SIGHTLINE_ISA=avx512 .* lacks {lacking} .*runs: avx2"):
        isa.chosen()


@pytest.mark.parametrize("lacking", ["avx512fp16", "amx-tile", "amx-bf16"])
def test_every_part_of_amx_is_needed(monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    pretend(monkeypatch, "x86_64", "somerapids", AMX | {lacking: False})
    assert isa.detect().name == "avx512"
    assert f"not amx: this machine's processor or operating system lacks {lacking}" in isa.why()


@pytest.mark.parametrize("lacking", ["avx2", "fma", "f16c", "bmi2"])
def test_every_part_of_avx2_is_needed(monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    features = dict(AVX2)
    del features[lacking]  # as absent as False
    pretend(monkeypatch, "x86_64", "old", features)
    with pytest.raises(RuntimeError, match=f"no kernels for this machine .*avx2: .*lacks {lacking}; neon: "):
        isa.detect()


def test_aarch64_gets_neon(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "aarch64", "neoverse-v1")
    assert [row.name for row in isa.runnable()] == ["neon"]
    assert isa.chosen().triple == "aarch64-unknown-linux-gnu"
    assert isa.target("avx2").triple == "x86_64-unknown-linux-gnu"
    assert isa.why() == "neon: the best this neoverse-v1 processor runs"


def test_other_machines_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "riscv64")
    assert isa.runnable() == []
    with pytest.raises(RuntimeError, match="avx2: it is for x86_64 processors and this one is riscv64"):
        isa.detect()


@pytest.mark.parametrize("word", ["avx2", " AVX2 "])
def test_the_variable_forces(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    pretend(monkeypatch, "x86_64", "znver5", AVX512)
    monkeypatch.setenv(isa.VARIABLE, word)
    assert isa.chosen().name == "avx2"
    assert isa.why() == "avx2: forced by SIGHTLINE_ISA"
    before = isa.word()
    monkeypatch.setenv(isa.VARIABLE, "avx512")  # a change is seen
    assert isa.chosen().name == "avx512"
    assert isa.word() != before
    monkeypatch.delenv(isa.VARIABLE)
    assert isa.word() is None


def test_an_unknown_word_is_answered_with_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(isa.VARIABLE, "sse9")
    with pytest.raises(
        ValueError, match=r"SIGHTLINE_ISA='sse9' .* one of amx, avx512, avx2, neon, or unset it"
    ):
        isa.chosen()
    with pytest.raises(ValueError, match="no instruction set 'sse9': the words are amx, avx512, avx2, neon"):
        isa.target("sse9")


def test_forcing_another_architecture_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "x86_64", "znver5", AVX512)
    monkeypatch.setenv(isa.VARIABLE, "neon")
    with pytest.raises(RuntimeError, match=r"SIGHTLINE_ISA=neon .* for aarch64 processors .* is x86_64"):
        isa.chosen()


def test_a_host_that_llvm_cannot_read_has_no_features(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("failed to get host cpu features")

    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", fail)
    assert isa._host.__wrapped__().features == {}


def test_detection_agrees_with_the_kernels_own_list() -> None:
    cpuinfo = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not cpuinfo.exists():
        pytest.skip("compares with /proc/cpuinfo of an x86-64 Linux")
    found = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)
    assert found is not None
    flags = set(found[1].split())
    if "amx_tile" in flags and not isa._tiles_granted():
        flags.remove("amx_tile")
    expected = [
        name
        for name, needs in (
            ("amx", {"amx_tile", "amx_bf16", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd"}),
            ("avx512", {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd"}),
            ("avx2", {"avx2", "fma", "f16c", "bmi2"}),
        )
        if needs <= flags
    ]
    names = [row.name for row in isa.runnable()]
    assert (names[1:] if matrix_unit.installed() else names) == expected
    if "avx512" in expected:
        listed = {name.replace("_", "") for name in ("avx512_bf16", "avx512_fp16") if name in flags}
        assert listed == set(isa.detect().extras)


@pytest.mark.parametrize(
    "cpu", ["sapphirerapids", "skylake-avx512", "icelake-server", "graniterapids", "znver4", "znver5"]
)
def test_avx512_uses_whole_registers(monkeypatch: pytest.MonkeyPatch, cpu: str) -> None:
    pretend(monkeypatch, "x86_64", cpu, AVX512)
    target = isa.detect()
    assert target.cpu == cpu
    text = assembly(fma_module(16), target)
    assert re.search(r"vfmadd\w+\s.*%zmm", text)
    assert "%ymm" not in text


@pytest.mark.parametrize(
    ("cpu", "near"), [("znver2", False), ("znver4", False), ("znver5", True), ("sapphirerapids", True)]
)
def test_where_rows_are_fetched_to_is_the_processors_own(
    monkeypatch: pytest.MonkeyPatch, cpu: str, near: bool
) -> None:
    pretend(monkeypatch, "x86_64", cpu, AVX512)
    assert [isa.target(name).fetches_near for name in ("avx512", "avx2")] == [near, near]
    assert isa.target("neon").fetches_near


def test_avx2_never_holds_avx512() -> None:
    text = assembly(fma_module(16), isa.target("avx2"))
    assert re.search(r"vfmadd\w+\s.*%ymm", text)
    assert not re.search(r"%zmm|%k[0-7]|mm(1[6-9]|2\d|3[01])\b", text)


def test_a_feature_the_host_hides_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "x86_64", "znver5", AVX512 | {"popcnt": True})
    assert "popcnt" in assembly(POPULATION_COUNT, isa.detect())
    pretend(monkeypatch, "x86_64", "znver5", AVX512 | {"popcnt": False})
    assert "popcnt" not in assembly(POPULATION_COUNT, isa.detect())


def test_neon_compiles_anywhere() -> None:
    text = assembly(fma_module(4), isa.target("neon"))
    assert re.search(r"fmla\s+v\d+\.4s", text)
