"""What an installation gets: a wheel without machine code, with its types, and three dependencies."""

from __future__ import annotations

import email
import importlib
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hatchling.builders.wheel import WheelBuilder

import sightline

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "sightline"
SUFFIXES = {".py", ".npz", ".typed", ".jinja", ".css", ".js"}  # the last three are the HTML page


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel that pip would build here."""
    folder = tmp_path_factory.mktemp("wheel")
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    return email.message_from_bytes(wheel.read(f"sightline-{sightline.__version__}.dist-info/METADATA"))


def test_any_machine_may_install_it(wheel: zipfile.ZipFile) -> None:
    assert Path(str(wheel.filename)).name == f"sightline-{sightline.__version__}-py3-none-any.whl"
    tags = wheel.read(f"sightline-{sightline.__version__}.dist-info/WHEEL").decode()
    assert "Root-Is-Purelib: true" in tags
    assert {Path(name).suffix for name in wheel.namelist() if name.startswith("sightline/")} <= SUFFIXES


def test_it_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    source = {
        f"sightline/{file.relative_to(SOURCE).as_posix()}"
        for file in SOURCE.rglob("*")
        if file.suffix in SUFFIXES
    }
    information = f"sightline-{sightline.__version__}.dist-info/"
    assert {name for name in wheel.namelist() if not name.startswith(information)} == source
    assert "sightline/py.typed" in source
    assert f"{information}licenses/LICENSE" in wheel.namelist()


def test_it_is_small(wheel: zipfile.ZipFile) -> None:
    assert sum(entry.compress_size for entry in wheel.infolist()) < 512 << 10


def test_three_dependencies(metadata: Message) -> None:
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(re.split(r"[^\w-]", line)[0] for line in required) == ["llvmlite", "ml-dtypes", "numpy"]


def test_extras_bring_no_framework_but_their_own(metadata: Message) -> None:
    frameworks = {"torch", "transformers"}
    assert set(metadata.get_all("Provides-Extra", [])) == {"bench", "cli", "look", "test", *frameworks}
    lines = metadata.get_all("Requires-Dist", [])
    others = [line for line in lines if not re.search(rf"extra == '({'|'.join(frameworks)})'", line)]
    assert len(others) < len(lines)
    names = {re.split(r"[^\w-]", line)[0] for line in others}
    assert names.isdisjoint({"torch", "jax", "tensorflow", "transformers"})


def test_metadata(metadata: Message) -> None:
    assert metadata["Version"] == sightline.__version__
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_payload(decode=True) == (ROOT / "README.md").read_bytes()


def test_the_command_is_there(wheel: zipfile.ZipFile) -> None:
    points = wheel.read(f"sightline-{sightline.__version__}.dist-info/entry_points.txt").decode()
    (module, function) = re.findall(r"^sightline = ([\w.]+):(\w+)$", points, re.MULTILINE)[0]
    assert callable(getattr(importlib.import_module(module), function))


def test_public_names_exist() -> None:
    assert sightline.__all__ == sorted(sightline.__all__)
    for name in sightline.__all__:
        assert hasattr(sightline, name)
