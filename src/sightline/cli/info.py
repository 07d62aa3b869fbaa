"""This machine and installation as sightline sees them."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from sightline import __version__
from sightline.cli import show
from sightline.cli.errors import reason

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

Rows = list[tuple[str, str]]

# Features that decide between kernels, in LLVM's names. The rest of a long list would hide them.
TELLING = (
    *("sse4.2", "avx", "f16c", "fma", "avx2", "avxvnni", "avx512f", "avx512bw", "avx512vl", "avx512dq"),
    *("avx512bf16", "avx512fp16", "avx512vnni", "amx-tile", "amx-bf16", "amx-int8", "amx-fp16", "avx10.1"),
    *("neon", "fullfp16", "bf16", "i8mm", "dotprod", "sve", "sve2", "sme"),
)
NEEDED = ("numpy", "llvmlite", "ml_dtypes")
OPTIONAL = ("rich", "safetensors", "torch", "jax", "onnx")


def add_to(parser: argparse.ArgumentParser) -> None:
    """This command has no words of its own."""


def run(words: argparse.Namespace) -> int:
    """Prints every section; one that fails says why in its own place, and the others go on."""
    for name, section in SECTIONS.items():
        show.title(name)
        show.fields(guarded(section))
    return 0


def guarded(section: Callable[[], Rows]) -> Rows:
    """What `section` says, or why it cannot say it: a report must not fail where something is amiss."""
    try:
        return section()
    except Exception as error:
        return [("unknown", f"{type(error).__name__}: {reason(error)}")]


def versions() -> Rows:
    """What is installed, from the packages' own records: nothing is imported."""
    rows = [
        ("sightline", __version__),
        ("python", f"{platform.python_version()} ({sys.executable})"),
    ]
    rows += [(name, _version(name)) for name in NEEDED]
    return rows + [(name, _version(name)) for name in OPTIONAL]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def machine() -> Rows:
    """The computer and its operating system."""
    return [
        ("system", platform.platform()),
        ("processor", _model()),
        ("cores", f"{_usable_cores()} of {os.cpu_count()} may be used"),
    ]


def _model() -> str:
    """The processor's name, from where this system keeps it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            label, _, value = line.partition(":")
            if label.strip() in {"model name", "Model"}:
                return value.strip()
    return platform.processor() or platform.machine()


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def features() -> Rows:
    """What the processor and the operating system offer to kernels, as LLVM reports it."""
    import llvmlite.binding as llvm

    has = {name for name, there in dict(llvm.get_host_cpu_features()).items() if there}
    return [
        ("llvm name", llvm.get_host_cpu_name()),
        ("features", " ".join(name for name in TELLING if name in has) or "none that matter here"),
        ("llvm", ".".join(map(str, llvm.llvm_version_info))),
    ]


def instruction_set() -> Rows:
    """Which kernels this machine gets, and why."""
    from sightline.cpu import isa

    can = ", ".join(each.name for each in isa.runnable()) or "none"
    return [("can run", can), ("chosen", isa.why())]


def threads() -> Rows:
    """How many threads a call uses."""
    from sightline.cpu import threads as pool

    word = os.environ.get("SIGHTLINE_NUM_THREADS")
    return [
        ("threads", f"{pool.get_num_threads()}"),
        ("set by", f"SIGHTLINE_NUM_THREADS={word}" if word else "default"),
    ]


def environment() -> Rows:
    """The variables that change what sightline does."""
    found = {name: value for name, value in sorted(os.environ.items()) if name.startswith("SIGHTLINE_")}
    return list(found.items()) or [("variables", "no SIGHTLINE_ variable is set")]


def kernel_cache() -> Rows:
    """Where compiled kernels are kept."""
    from sightline.cli import cache

    return cache.described()


SECTIONS: dict[str, Callable[[], Rows]] = {
    "versions": versions,
    "machine": machine,
    "processor features": features,
    "instruction set": instruction_set,
    "threads": threads,
    "environment": environment,
    "kernel cache": kernel_cache,
}
