"""From IR to a function that runs: caches, errors instead of aborts, forks, code that outlives all."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import os
import struct
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from sightline.cpu import cache, isa
from sightline.cpu import compile as compiler

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HERE = isa.detect()
X86 = pytest.mark.skipif(not HERE.triple.startswith("x86_64"), reason="inline assembly of x86-64")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    monkeypatch.setattr(cache._Record, "hits", 0)
    monkeypatch.setattr(compiler, "_addresses", {})
    return tmp_path


def adds(number: int) -> str:
    """IR of a kernel that returns its first argument plus `number`."""
    return f"""
        define i64 @kernel(ptr %arguments) {{
          %x = load i64, ptr %arguments
          %y = add i64 %x, {number}
          ret i64 %y
        }}
    """


def call(address: int, *arguments: int) -> int:
    function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(address)
    return int(function((ctypes.c_int64 * len(arguments))(*arguments)))


class Builder:
    """A build function that counts its calls."""

    def __init__(self, text: str) -> None:
        self.text, self.calls = text, 0

    def __call__(self) -> str:
        self.calls += 1
        return self.text


@pytest.fixture
def forget() -> Callable[[], None]:
    """To go on as a new process would: with nothing in memory."""
    return compiler._addresses.clear


def test_a_loaded_function_runs_and_is_built_once() -> None:
    build = Builder(adds(5))
    address = compiler.load("kernel", "once", HERE, build)
    assert call(address, 37) == 42
    assert compiler.load("kernel", "once", HERE, build) == address
    assert build.calls == 1


def test_every_part_of_the_key_counts() -> None:
    def both(number: int) -> str:
        return adds(number) + adds(number + 1).replace("@kernel", "@other")

    assert call(compiler.load("kernel", ("a", 1), HERE, lambda: both(1)), 0) == 1
    assert call(compiler.load("kernel", ("a", 2), HERE, lambda: both(10)), 0) == 10
    assert call(compiler.load("other", ("a", 1), HERE, lambda: both(100)), 0) == 101


@pytest.mark.parametrize(("one", "two"), [((1,), (True,)), ((1,), (1.0,)), ((0.0,), (-0.0,))])
def test_keys_that_only_look_equal(one: tuple[float], two: tuple[float]) -> None:
    assert one == two
    assert call(compiler.load("kernel", one, HERE, lambda: adds(1)), 0) == 1
    assert call(compiler.load("kernel", two, HERE, lambda: adds(2)), 0) == 2


def test_a_second_process_takes_it_from_the_disk(forget: Callable[[], None]) -> None:
    build = Builder(adds(6))
    compiler.load("kernel", "disk", HERE, build)
    forget()
    assert call(compiler.load("kernel", "disk", HERE, build), 1) == 7
    assert build.calls == 1
    assert cache._Record.hits == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.setattr(compiler, "_FORMAT", -1),
        lambda patch: patch.setattr(compiler, "_SOURCES", "other"),
        lambda patch: patch.setattr("llvmlite.__version__", "0.0"),
        lambda patch: patch.setattr("llvmlite.binding.llvm_version_info", (0, 0)),
    ],
)
def test_code_of_another_generator_or_compiler_is_not_used(
    monkeypatch: pytest.MonkeyPatch, forget: Callable[[], None], change: Callable[[pytest.MonkeyPatch], None]
) -> None:
    build = Builder(adds(6))
    compiler.load("kernel", "tools", HERE, build)
    forget()
    change(monkeypatch)
    compiler.load("kernel", "tools", HERE, build)
    assert build.calls == 2


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(HERE, triple="other"),
        dataclasses.replace(HERE, cpu="other"),
        dataclasses.replace(HERE, features="other"),
    ],
)
def test_code_for_another_processor_is_not_used(other: isa.Isa) -> None:
    assert compiler._disk_key("kernel", "key", other) != compiler._disk_key("kernel", "key", HERE)


def test_the_digest_of_the_sources_follows_their_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = tmp_path / "cpu"
    cpu.mkdir()
    monkeypatch.setattr(compiler, "__file__", str(cpu / "compile.py"))
    digests = [compiler._sources()]
    assert digests == [""]
    for file in (
        cpu / "emit.py",
        tmp_path / "kernel_key.py",
    ):  # the key deals out registers and sizes buffers
        for text in ("a = 1", "a = 2"):
            file.write_text(text)
            digests.append(compiler._sources())
    assert len(set(digests)) == len(digests)


def test_without_sources_the_disk_is_not_used(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(compiler, "_SOURCES", "")
    assert call(compiler.load("kernel", "no sources", HERE, lambda: adds(1)), 1) == 2
    assert list(folder.iterdir()) == []


def test_a_damaged_file_costs_a_compilation(folder: Path, forget: Callable[[], None]) -> None:
    build = Builder(adds(6))
    compiler.load("kernel", "damage", HERE, build)
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    forget()
    assert call(compiler.load("kernel", "damage", HERE, build), 1) == 7
    assert build.calls == 2


BROKEN = {
    "syntax": "define i64 @kernel( {",
    "types": """define i64 @kernel(i32 %x) {
      %y = add i64 %x, 1
      ret i64 %y
    }""",
    "verifier": """define i64 @kernel() {
      br label %loop
    loop:
      %z = add i64 %y, 1
      %y = add i64 1, %z
      ret i64 %y
    }""",
    "no such function": "define i64 @colonel() { ret i64 1 }",
    "only declared": "declare i64 @kernel()",
    "unresolved": """declare i64 @nowhere_at_all()
    define i64 @kernel() {
      %x = call i64 @nowhere_at_all()
      ret i64 %x
    }""",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_llvm_refuses_is_a_python_error(name: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"invalid LLVM IR|'kernel' cannot be linked"):
        compiler.load("kernel", name, HERE, lambda: BROKEN[name])
    assert list(folder.iterdir()) == []
    assert call(compiler.load("kernel", name, HERE, lambda: adds(2)), 1) == 3  # nothing was remembered


@pytest.mark.parametrize("looks", [True, False])
def test_garbage_is_looked_for_as_before(looks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not while a kernel is written; and then as the program has it, even after an error."""
    meanwhile = []

    def generate(*_: object) -> str:
        meanwhile.append(gc.isenabled())
        raise ValueError("the generator failed")

    monkeypatch.setattr("sightline.cpu.forward.generate", generate)
    try:
        (gc.enable if looks else gc.disable)()
        with pytest.raises(ValueError, match="the generator failed"):
            compiler.program("forward", "garbage", HERE)
        assert (meanwhile, gc.isenabled()) == ([False], looks)
    finally:
        gc.enable()


def test_an_error_in_build_is_the_callers() -> None:
    def fail() -> str:
        raise KeyError("no such plan")

    with pytest.raises(KeyError, match="no such plan"):
        compiler.load("kernel", "failing", HERE, fail)


@X86
def test_inline_assembly() -> None:
    text = 'define i64 @kernel(ptr %p) { %x = call i64 asm "movq $$42, $0", "=r"()\n ret i64 %x }'
    assert call(compiler.load("kernel", "asm", HERE, lambda: text), 0) == 42


def test_constants_and_library_calls_are_linked() -> None:
    text = """
        @table = private constant [4 x i64] [i64 3, i64 1, i64 4, i64 1]
        declare i32 @getpid()
        define i64 @kernel(ptr %arguments) {
          %i = load i64, ptr %arguments
          %p = getelementptr i64, ptr @table, i64 %i
          %x = load i64, ptr %p
          %process = call i32 @getpid()
          %y = sext i32 %process to i64
          %z = add i64 %x, %y
          ret i64 %z
        }
    """
    address = compiler.load("kernel", "constants", HERE, lambda: text)
    assert [call(address, i) - os.getpid() for i in range(4)] == [3, 1, 4, 1]


@pytest.mark.parametrize(("name", "machine"), [("neon", 183), ("avx2", 62), ("avx512", 62)])
def test_object_code_for_any_target(name: str, machine: int) -> None:
    code = compiler.object_code(adds(1), isa.target(name))
    assert code[:5] == b"\x7fELF\x02"
    assert struct.unpack_from("<H", code, 18) == (machine,)


def test_threads_that_want_the_same_kernel_share_one() -> None:
    build = Builder(adds(9))
    found: list[int] = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        found.append(compiler.load("kernel", "shared", HERE, build))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert build.calls == 1
    assert len(found) == 4
    assert len(set(found)) == 1


def in_new_process(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


COMMON = f"""
import atexit, ctypes, os, sys, threading
from sightline.cpu import compile as compiler, isa
TEXT = '''{adds(1)}'''
def call(address):
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(address)((ctypes.c_int64 * 1)(41))
"""


def test_processes_that_want_the_same_kernel(folder: Path) -> None:
    program = COMMON + "print(call(compiler.load('kernel', 'race', isa.detect(), lambda: TEXT)))"
    racers = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert [racer.communicate(timeout=60)[0] for racer in racers] == ["42\n"] * 3
    assert len(list(folder.iterdir())) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_while_another_thread_compiles() -> None:
    program = (
        COMMON
        + """
building, forked = threading.Event(), threading.Event()
def build():
    building.set()
    forked.wait(0.2)  # the fork waits for this compilation, so this runs out
    return TEXT
threading.Thread(target=compiler.load, args=("kernel", "slow", isa.detect(), build)).start()
building.wait()
child = os.fork()
forked.set()
if child == 0:
    fine = call(compiler.load("kernel", "child", isa.detect(), lambda: TEXT)) == 42
    fine &= call(compiler.load("kernel", "slow", isa.detect(), lambda: "")) == 42
    os._exit(0 if fine else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(call(compiler.load("kernel", "parent", isa.detect(), lambda: TEXT)))
"""
    )
    assert in_new_process(program) == "42\n"


def test_code_lives_to_the_very_end() -> None:
    program = (
        COMMON
        + """
address = compiler.load("kernel", "end", isa.detect(), lambda: TEXT)
class Last:
    function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(address)
    memory = (ctypes.c_int64 * 1)(41)
    def __del__(self, print=print):
        print(self.function(self.memory))
sys.modules["last"] = Last()  # dies after every module
compiler._linker.cache_clear()
compiler._addresses.clear()
atexit.register(lambda: print(call(address)))
def forever():
    while True:
        call(address)
threading.Thread(target=forever, daemon=True).start()
"""
    )
    assert in_new_process(program) == "42\n42\n"
