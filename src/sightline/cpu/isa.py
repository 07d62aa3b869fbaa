"""Instruction sets as rows of data: what kernels may assume, and which one this machine gets.

A kernel body is written once, for `Isa.lanes()` lanes and `Isa.registers` registers: adding an instruction
set is adding a row here. What the machine has is what LLVM's host detection reports: it asks the processor
(CPUID, HWCAP) and the operating system (XCR0: are these registers saved?) on every platform, and answers in
the code generator's own words.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import llvmlite.binding as llvm

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

VARIABLE = "SIGHTLINE_ISA"


@dataclass(frozen=True, slots=True)
class Isa:
    """One target of the kernel generator: what the kernels need to know, and what LLVM needs to know."""

    name: str
    triple: str
    cpu: str  # LLVM's name: instructions allowed and their scheduling
    features: str  # LLVM's feature string, on top of what `cpu` implies
    vector_bytes: int
    registers: int  # vector registers
    extras: tuple[str, ...] = ()  # features beyond the row's own that a kernel may ask for, in LLVM's names
    fetches_near: bool = True  # rows that are read once go to the first-level cache at once (see FETCH_FAR)

    def lanes(self, dtype_bytes: int) -> int:
        """Numbers of `dtype_bytes` bytes in one vector register."""
        return self.vector_bytes // dtype_bytes

    @property
    def multiplies_pairs(self) -> bool:
        """Whether products of bfloat16 pairs are faster than widening to float32 and multiplying that.

        vdpbf16ps does two multiply-adds a lane. AMD's Zen issues as many of them as of FMAs; on Intel's server
        cores one was measured to take four times as long as an FMA.
        """
        return "avx512bf16" in self.extras and self.cpu.startswith("znver")

    @property
    def multiplies_tiles(self) -> bool:
        """Whether there is a unit that multiplies matrices of bfloat16."""
        return self.name == "amx"


# Processors, in LLVM's names, that are better asked to fetch into the second-level cache. On Zen 4 fetches into
# the first one hold up the reads beside them, and halve the speed of decoding in float32; on Zen 5 and on Intel's
# server cores they do not. Zen 1 to 3 are taken to be like Zen 4: nobody has measured them.
FETCH_FAR = ("znver1", "znver2", "znver3", "znver4")


@dataclass(frozen=True, slots=True)
class _Row:
    """An instruction set before it meets a machine."""

    name: str
    machine: str  # first part of LLVM's triple
    vector_bytes: int
    registers: int
    needs: tuple[str, ...]  # features the machine must have, in LLVM's names
    extras: tuple[str, ...]  # features recorded when the machine has them
    baseline: str  # LLVM's CPU name that has exactly what the row promises
    tuned: bool  # compile for the host's own CPU name where the host has the row


# Best first. The avx2 row is compiled for its baseline even on a larger processor, so that a forced avx2 runs the
# very code that AVX2 machines of its maker run and can hold no AVX-512 instruction. NEON is part of every AArch64.
_AVX512 = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd", "fma", "f16c", "bmi2")
_ROWS = (
    _Row(
        "amx",
        "x86_64",
        vector_bytes=64,
        registers=32,
        needs=(*_AVX512, "avx512fp16", "amx-tile", "amx-bf16"),
        extras=("avx512bf16", "avx512fp16"),
        baseline="sapphirerapids",
        tuned=True,
    ),
    _Row(
        "avx512",
        "x86_64",
        vector_bytes=64,
        registers=32,
        needs=_AVX512,
        extras=("avx512bf16", "avx512fp16"),
        baseline="x86-64-v4",
        tuned=True,
    ),
    _Row(
        "avx2",
        "x86_64",
        vector_bytes=32,
        registers=16,
        needs=("avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe"),
        extras=(),
        baseline="x86-64-v3",
        tuned=False,
    ),
    _Row(
        "neon",
        "aarch64",
        vector_bytes=16,
        registers=32,
        needs=(),
        extras=(),
        baseline="generic",
        tuned=False,
    ),
)
NAMES = tuple(row.name for row in _ROWS)


@dataclass(frozen=True, slots=True)
class _Host:
    """This machine as LLVM sees it."""

    triple: str
    machine: str
    cpu: str
    features: dict[str, bool]


def _tiles_granted() -> bool:
    """Whether Linux lets this process, its threads and its children use tile registers: it wants to be asked."""
    if not sys.platform.startswith("linux"):
        return False
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    return int(ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data)) == 0


@functools.cache
def _host() -> _Host:
    triple = llvm.get_process_triple()
    machine = triple.split("-")[0]
    try:
        features = dict(llvm.get_host_cpu_features())
    except RuntimeError:  # LLVM cannot tell on this platform
        features = {}
    if features.get("amx-tile", False):
        features["amx-tile"] = _tiles_granted()
    aliases = {"arm64": "aarch64", "amd64": "x86_64"}
    return _Host(triple, aliases.get(machine, machine), llvm.get_host_cpu_name(), features)


def _row(name: str) -> _Row:
    for row in _ROWS:
        if row.name == name:
            return row
    raise ValueError(f"there is no instruction set {name!r}: the words are {', '.join(NAMES)}")


def _missing(row: _Row, host: _Host) -> str | None:
    """What keeps `host` from running `row`, in words; None when nothing does."""
    if row.machine != host.machine:
        return f"it is for {row.machine} processors and this one is {host.machine}"
    lacking = [feature for feature in row.needs if not host.features.get(feature, False)]
    if lacking:
        return f"this machine's processor or operating system lacks {', '.join(lacking)}"
    return None


def target(name: str) -> Isa:
    """The instruction set `name` as a compile target, whether or not this machine could run it."""
    row, host = _row(name), _host()
    triple = host.triple if row.machine == host.machine else f"{row.machine}-unknown-linux-gnu"
    cpu, features, extras = row.baseline, "", ()  # type: str, str, tuple[str, ...]
    if row.tuned and _missing(row, host) is None:
        cpu = host.cpu
        # The CPU's name could promise what a virtual machine hides, hence every feature by name as well.
        features = ",".join(("+" if on else "-") + word for word, on in sorted(host.features.items()))
        extras = tuple(feature for feature in row.extras if host.features.get(feature, False))
    near = row.machine != host.machine or host.cpu not in FETCH_FAR
    return Isa(row.name, triple, cpu, features, row.vector_bytes, row.registers, extras, near)


def runnable() -> list[Isa]:
    """The instruction sets this machine runs, best first."""
    return [target(row.name) for row in _ROWS if _missing(row, _host()) is None]


def detect() -> Isa:
    """The best instruction set this machine runs."""
    found = runnable()
    if not found:
        reasons = "; ".join(f"{row.name}: {_missing(row, _host())}" for row in _ROWS)
        raise RuntimeError(f"sightline has no kernels for this machine ({reasons})")
    return found[0]


@functools.cache
def _choice(word: str) -> Isa:
    if not word:
        return detect()
    if word not in NAMES:
        raise ValueError(
            f"{VARIABLE}={word!r} is not an instruction set: use one of {', '.join(NAMES)}, or unset it"
        )
    missing = _missing(_row(word), _host())
    if missing:
        names = ", ".join(isa.name for isa in runnable()) or "none"
        raise RuntimeError(f"{VARIABLE}={word} cannot run here: {missing} (this machine runs: {names})")
    return target(word)


# os.environ takes half a microsecond to say that a variable is not set; the dict beneath it says so at once.
_environment: Mapping[Any, Any] = getattr(os.environ, "_data", os.environ)
_variable: Hashable = os.environ.encodekey(VARIABLE) if _environment is not os.environ else VARIABLE


def word() -> Hashable:
    """SIGHTLINE_ISA as it stands in the environment, None if it is not set: what `chosen` depends on."""
    return _environment.get(_variable)


def chosen() -> Isa:
    """The instruction set kernels are made for: SIGHTLINE_ISA if set, else the best this machine runs."""
    return _choice(os.environ.get(VARIABLE, "").strip().lower())


def why() -> str:
    """One line that says which instruction set was chosen, and for what reason."""
    isa = chosen()
    extras = f", with {' '.join(isa.extras)}" if isa.extras else ""
    if os.environ.get(VARIABLE, "").strip():
        return f"{isa.name}: forced by {VARIABLE}{extras}"
    better = [row for row in _ROWS[: NAMES.index(isa.name)] if row.machine == _host().machine]
    reasons = "".join(f"; not {row.name}: {_missing(row, _host())}" for row in better)
    return f"{isa.name}: the best this {_host().cpu} processor runs{extras}{reasons}"
