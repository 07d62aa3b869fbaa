"""`info`, `cache`, life without rich, and the example files."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from command import (
    EXAMPLE,
    SMALL,
    sightline,
    without,
)
from sightline.cli import info
from sightline.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path


def test_info_tells_what_decides(capsys: pytest.CaptureFixture[str]) -> None:
    import sightline as package
    from sightline.cpu import isa

    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for fact in (
        package.__version__,
        np.__version__,
        sys.version.split()[0],
        isa.why(),
        "processor features",
    ):
        assert fact in " ".join(out.split())
    assert "unknown" not in out


@pytest.mark.parametrize("name", list(info.SECTIONS))
def test_info_survives_any_section(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> info.Rows:
        raise RuntimeError("the reason\nin two lines")

    monkeypatch.setitem(info.SECTIONS, name, broken)
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert "RuntimeError: the reason in two lines" in out
    assert [line for line in out.splitlines() if not line.startswith(" ")] == list(info.SECTIONS)


def test_a_label_too_long_for_its_column_keeps_its_distance(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SIGHTLINE_NUM_THREADS", "3")
    assert main(["info"]) == 0
    assert "\n  SIGHTLINE_NUM_THREADS 3\n" in capsys.readouterr().out


def test_info_without_llvm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    assert main(["info"]) == 0
    assert "ModuleNotFoundError" in capsys.readouterr().out


def test_cache_fills_and_empties(tmp_path: Path) -> None:
    env = {"SIGHTLINE_CACHE": str(tmp_path / "kernels")}
    assert "holds       nothing (at most" in sightline("cache", "info", env=env).stdout
    assert sightline("attend", SMALL, env=env).returncode == 0
    files = len(list((tmp_path / "kernels").iterdir()))
    assert files > 0
    shown = sightline("cache", "info", env=env).stdout
    assert f"directory   {tmp_path / 'kernels'}" in shown
    assert f"holds       {files} kernel" in shown
    assert sightline("cache", "clear", env=env).stdout.startswith(f"removed {files} kernel")
    assert not list((tmp_path / "kernels").iterdir())
    off = sightline("cache", "info", env={"SIGHTLINE_CACHE": "off"}).stdout
    assert "trouble     switched off by SIGHTLINE_CACHE=off" in off


def test_plain_text_is_the_same_without_rich(tmp_path: Path) -> None:
    done = without("rich", "explain")
    assert (done.returncode, done.stdout) == (0, sightline("explain").stdout)


def test_the_example_is_what_it_says() -> None:
    assert EXAMPLE.stat().st_size < 2 * 2**20
    arrays = np.load(EXAMPLE)
    assert 400 <= len(arrays["tokens"]) <= 500
    for name in ("query", "key", "value"):
        assert arrays[name].shape == (12, len(arrays["tokens"]), 32)
        assert arrays[name].dtype == np.float16
        assert np.isfinite(arrays[name]).all()
    text = (EXAMPLE.parent / "alice.txt").read_text(encoding="utf-8").lower()
    pieces = [str(token).removeprefix("##") for token in arrays["tokens"][1:-1]]
    assert "".join(pieces) == "".join(text.split())
    small = np.load(SMALL)
    for name in ("query", "key", "value"):
        np.testing.assert_array_equal(small[name], arrays[name][8:9, :8])
    np.testing.assert_array_equal(small["tokens"], arrays["tokens"][:8])
