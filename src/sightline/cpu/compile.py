"""LLVM IR → machine code → the address of a function, through a memory cache and a disk cache.

The import of llvmlite takes 30 to 40 ms and is made here, with the module: no first call, not even one from
the disk cache, can do without it.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import itertools
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llvmlite
import llvmlite.binding as llvm

from sightline.cpu import cache
from sightline.cpu.cache import CacheInfo, cache_clear, cache_info

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from sightline.cpu.isa import Isa

__all__ = ["ENTRY", "CacheInfo", "assembly", "cache_clear", "cache_info", "load", "object_code", "program"]

ENTRY = "attend"  # the name of the function that a kernel is called by

_FORMAT = 1  # raise it when the disk key or the calling convention changes in a way the sources do not show


def _sources() -> str:
    """A digest of the generator's source files, kernel_key.py among them; empty where they are unreadable."""
    here = Path(__file__).parent
    files = [*sorted(here.glob("*.py")), *sorted(here.parent.glob("*.py"))]
    try:
        return cache.digest([(file.name, file.read_bytes()) for file in files]) if files else ""
    except OSError:
        return ""


# Read now, when the generator is imported, not at the first kernel: a file edited in between would
# put the old generator's code under the new generator's key.
_SOURCES = _sources()

_lock = threading.RLock()
_addresses: dict[tuple[str, str, Isa], int] = {}
_serial = itertools.count()

# A fork while another thread compiles would leave LLVM half-way in the child: let the compilation end first.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


@functools.cache
def _initialise() -> None:
    """Make every target's code generator ready, and the host's assembler (for inline assembly)."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.initialize_native_asmparser()


def _machine(isa: Isa) -> Any:
    _initialise()
    # Position-independent code in the small model: a constant is one RIP-relative operand, not a 64-bit move.
    make = llvm.Target.from_triple(isa.triple).create_target_machine
    return make(cpu=isa.cpu, features=isa.features, opt=3, reloc="pic", codemodel="small")


def _optimised(ir_text: str, isa: Isa) -> tuple[Any, Any]:
    """The parsed, verified and optimised module with its target machine.

    The generator writes its own vectors and unrolls its own loops. Variables have to become registers; all else
    that LLVM's level 2 does takes half of a compilation's time, and no kernel is faster for it.
    """
    try:
        module = llvm.parse_assembly(ir_text)
        module.verify()
    except RuntimeError as error:
        raise ValueError(f"the generator made invalid LLVM IR: {error}") from error
    machine = _machine(isa)
    module.triple = isa.triple
    module.data_layout = str(machine.target_data)
    passes = llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.add_simplify_cfg_pass()
    passes.add_loop_rotate_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    return module, machine


def object_code(ir_text: str, isa: Isa) -> bytes:
    """Optimise and compile LLVM IR for `isa`, of this or another architecture; ValueError if invalid."""
    with _lock:
        module, machine = _optimised(ir_text, isa)
        return bytes(machine.emit_object(module))


def assembly(ir_text: str, isa: Isa) -> str:
    """The same code as text, for reading and for tests."""
    with _lock:
        module, machine = _optimised(ir_text, isa)
        return str(machine.emit_assembly(module))


@functools.cache
def _linker(isa: Isa) -> Any:
    return llvm.create_lljit_compiler(_machine(isa), use_jit_link=True)


def _link(name: str, code: bytes, isa: Isa) -> int:
    """Put object code into executable memory and return the address of its function `name`."""
    library = llvm.JITLibraryBuilder().add_object_img(code).export_symbol(name)
    try:
        tracker = library.link(_linker(isa), f"sightline{next(_serial)}")
    except RuntimeError as error:
        raise ValueError(f"the kernel {name!r} cannot be linked: {error}") from error
    tracker._owned = True  # never freed: pool threads may be in the machine code when the process ends
    return int(tracker[name])


def _disk_key(name: str, key: str, isa: Isa) -> str:
    """A file name that changes with everything the machine code depends on."""
    tools = (_FORMAT, _SOURCES, llvmlite.__version__, llvm.llvm_version_info)
    return cache.digest(tools, isa, name, key)


def _compiled(name: str, key: str, isa: Isa, build: Callable[[], str]) -> int:
    if not _SOURCES:  # without the sources two versions of the generator cannot be told apart on disk
        return _link(name, object_code(build(), isa), isa)
    disk_key = _disk_key(name, key, isa)
    code = cache.read(disk_key)
    if code is not None:
        return _link(name, code, isa)
    code = object_code(build(), isa)
    address = _link(name, code, isa)
    cache.write(disk_key, code)
    return address


def load(name: str, key: Hashable, isa: Isa, build: Callable[[], str]) -> int:
    """The address of the function `name` in the module whose IR `build()` returns.

    `name`, `repr(key)` and `isa` must determine the IR: `build` is called only when no cache has it.
    """
    words = repr(key)  # not the key itself: 1, 1.0 and True, or 0.0 and -0.0, are equal as dictionary keys
    entry = (name, words, isa)
    address = _addresses.get(entry)
    if address is None:
        with _lock:
            address = _addresses.get(entry)
            if address is None:
                address = _addresses[entry] = _compiled(name, words, isa, build)
    return address


@contextlib.contextmanager
def _garbage_left() -> Iterator[None]:
    """Python does not look for garbage: what a kernel is written of lives until it is written, in many pieces."""
    looked = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if looked:
            gc.enable()


def program(name: str, key: Hashable, isa: Isa) -> int:
    """The address of the kernel that the room `name` writes for this key."""

    def build() -> str:
        """The generator is imported when a kernel is not in the cache."""
        with _garbage_left():
            made: str = importlib.import_module(f"sightline.cpu.{name}").generate(key, isa)
        return made

    return load(ENTRY, (name, key), isa, build)
