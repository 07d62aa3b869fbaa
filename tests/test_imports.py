"""The walls of the house: rooms import only the rooms before them, and sightline no framework."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import sightline

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(sightline.__file__).parent

# In data-flow order; rooms side by side do not know each other either.
STAGES: tuple[tuple[str, ...], ...] = (
    ("arrays",),
    ("masks",),
    ("problem",),
    ("see", "cpu.isa"),  # the instruction sets are rows of data that a plan reads
    ("reference", "plan"),
    ("cpu",),
    ("calls", "merge"),
    ("attention", "look_only", "vjp"),
    ("torch",),
    ("transformers", "fronts", "parallel", "look", "bench"),
    ("watching",),
    ("watch",),
    ("__init__",),
    ("cli",),
)
STAGE = {room: stage for stage, rooms in enumerate(STAGES) for room in rooms}

# Files that are part of the room next door.
ANNEXES = {
    "operands": "problem",
    "options": "problem",
    "reference_call": "reference",
    "reference_dropout": "reference",
    "reference_gradients": "reference",
    "reference_statistics": "reference",
    "explain": "reference",
    "merge_seen": "merge",
    "parts": "reference",
    "kernel_choice": "plan",
    "kernel_key": "plan",
    "passes": "plan",
    "gradient_call": "vjp",
    "growing": "calls",
    "tables": "reference",
    "__main__": "cli",
}

# What may be imported from outside the standard library: everywhere, and by the files made for it alone.
DEPENDENCIES = {"numpy", "llvmlite", "ml_dtypes"}
OWN_DEPENDENCIES = {
    "arrays.torch_tensors": {"torch"},
    "bench.others": {"torch", "onnx", "onnxruntime", "openvino"},
    "bench.roofline": {"matplotlib"},
    "cli": {"rich", "safetensors"},
    "look": {"jinja2", "matplotlib", "rich"},
    "torch": {"torch"},
    "transformers": {"torch", "transformers"},
    "watching": {"torch", "transformers"},
}
FRAMEWORKS = (
    *(
        "torch",
        "jax",
        "jaxlib",
        "tensorflow",
        "mlx",
        "cupy",
        "onnx",
        "onnxruntime",
        "openvino",
        "transformers",
    ),
    *("triton", "safetensors", "rich", "matplotlib", "jinja2", "hypothesis", "pytest"),
)


def module_of(path: Path) -> str:
    """The name of a file below sightline: "cpu.emit", "cpu" for cpu/__init__.py, "__init__" for the front."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def room_of(module: str) -> str | None:
    """The room that a module of sightline lies in, None for one that nobody has given a place."""
    if module in STAGE:
        return module
    head = module.partition(".")[0]
    return ANNEXES.get(head, head if head in STAGE else None)


SOURCES = {module_of(path): path.read_text("utf-8") for path in sorted(PACKAGE.rglob("*.py"))}


def imports(module: str, source: str, modules: set[str]) -> Iterator[str]:
    """Every module that the source names in an import, at any depth, for the type checker or not."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield f"a relative import, line {node.lineno} of {module}"
                continue
            base = node.module or ""
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full.removeprefix("sightline.") in modules else base


def complaints(sources: dict[str, str]) -> list[str]:
    """Every import that the rules forbid, as a sentence."""
    found = []
    for module, source in sources.items():
        here = room_of(module)
        if here is None:
            found.append(f"{module} lies in no room: give it a place in STAGES or ANNEXES")
            continue
        for name in imports(module, source, set(sources)):
            if name.partition(".")[0] == "sightline":
                target = room_of(name.partition(".")[2] or "__init__")
                if target is None or (target != here and STAGE[target] >= STAGE[here]):
                    found.append(f"{module} (room {here}) imports {name} (room {target})")
            elif name.partition(".")[0] not in allowed_outside(module):
                found.append(f"{module} imports {name}, which is not its dependency")
    return found


def allowed_outside(module: str) -> set[str]:
    own = OWN_DEPENDENCIES.get(module, set()) | OWN_DEPENDENCIES.get(module.partition(".")[0], set())
    return DEPENDENCIES | own | sys.stdlib_module_names


def test_every_import_goes_forward() -> None:
    assert len(SOURCES) > 5
    assert complaints(SOURCES) == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        (
            "masks",
            "from sightline.problem import Problem",
            "masks (room masks) imports sightline.problem (room problem)",
        ),
        (
            "masks",
            "from sightline import problem",
            "masks (room masks) imports sightline.problem (room problem)",
        ),
        (
            "arrays.spec",
            "import sightline.masks",
            "arrays.spec (room arrays) imports sightline.masks (room masks)",
        ),
        (
            "plan",
            "def f():\n    import sightline.cpu.emit",
            "plan (room plan) imports sightline.cpu.emit (room cpu)",
        ),
        (
            "plan",
            "from sightline.reference import x",
            "plan (room plan) imports sightline.reference (room reference)",
        ),
        (
            "cpu.emit",
            "if TYPE_CHECKING:\n    import sightline.attention",
            "imports sightline.attention (room attention)",
        ),
        (
            "cpu.emit",
            "from sightline import __version__",
            "cpu.emit (room cpu) imports sightline (room __init__)",
        ),
        ("problem", "from . import masks", "a relative import, line 1 of problem"),
        ("problem", "import torch", "problem imports torch, which is not its dependency"),
        (
            "problem",
            "def f():\n    from torch import nn",
            "problem imports torch, which is not its dependency",
        ),
        ("cpu.emit", "import rich.console", "cpu.emit imports rich.console, which is not its dependency"),
        ("cellar", "", "cellar lies in no room"),
    ],
)
def test_the_rule_catches(module: str, source: str, complaint: str) -> None:
    sources = {"problem": "", "masks": "", "reference": "", "cpu.emit": "", "attention": "", module: source}
    found = complaints(sources)
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("problem", "from sightline.masks import band\nfrom sightline import operands\nimport math, numpy"),
        ("operands", "from sightline.arrays import Spec"),
        (
            "cpu.emit",
            "from sightline.cpu.isa import Isa\nfrom sightline.cpu import vmath\nimport llvmlite.ir",
        ),
        ("plan", "from sightline.cpu.isa import Isa"),
        ("arrays.torch_tensors", "import torch"),
        ("cli.show", "from rich.console import Console\nfrom sightline import __version__, attention"),
    ],
)
def test_the_rule_lets_pass(module: str, source: str) -> None:
    assert complaints({"problem": "", "operands": "", "cpu.vmath": "", "attention": "", module: source}) == []


WATCH = """
import sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        asked.add(name.partition(".")[0])

asked = set()
sys.meta_path.insert(0, Watch())
{code}
asked.update(name.partition(".")[0] for name in sys.modules)
print(*sorted(asked))
"""


def asked_for(code: str) -> set[str]:
    """The packages that the code imports or tries to: a missing one shows all the same."""
    command = [sys.executable, "-c", WATCH.format(code=code)]
    return set(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split())


def test_importing_sightline_imports_no_framework() -> None:
    asked = asked_for("import sightline")
    assert "sightline" in asked
    assert asked.isdisjoint(FRAMEWORKS)


def test_the_generator_is_imported_when_a_kernel_is_made_and_not_before() -> None:
    """It is what would make importing slow; `python -m benchmarks.overhead` measures that."""
    code = "import sys, sightline; print(*(name for name in sys.modules if name.startswith('sightline.')))"
    command = [sys.executable, "-c", code]
    imported = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert "sightline.cpu.run" in imported
    generator = {"emit", "values", "vmath", "tiles", "softmax", "forward", "second_pass", "consumers"}
    generator |= {"kinds", "terms", "strips", "amx", "packs", "halves", "patient", "runs"}
    generator |= {"entry", "operand", "weighing", "backward", "backward_runs"}
    assert imported.isdisjoint({f"sightline.cpu.{room}" for room in generator})


def test_seeing_arrays_and_buffers_imports_no_framework() -> None:
    see = "x = numpy.zeros(3); arrays.view(x, 'x'); arrays.view(x.data, 'x')"
    code = f"import numpy; from sightline import arrays; {see}"
    assert asked_for(code).isdisjoint(FRAMEWORKS)


@pytest.mark.parametrize("framework", ["torch", "jax", "rich"])
def test_the_watch_sees_frameworks_even_where_they_are_missing(framework: str) -> None:
    code = f"try: import {framework}.nowhere\nexcept ImportError: pass"
    assert framework in asked_for(code)
