"""`sightline look`: a summary that is true, files where it says, and errors of one line."""

from __future__ import annotations

import struct
import webbrowser
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from command import EXAMPLE, OPTIONS, assert_one_line, normal, sightline, without, write_npz
from looks import assert_close
from sightline import See, reference, reference_statistics
from sightline.cli import look, progress
from sightline.cli.main import main
from sightline.look import draw

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sightline.look.picture import Picture


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Picture, Any]]:
    """The pictures that are drawn, and where to, in a folder where the command may write."""
    found: list[tuple[Picture, Any]] = []

    def note(pictures: Sequence[Picture], path: Path | None = None) -> None:
        found.extend((picture, path) for picture in pictures)

    monkeypatch.setattr(draw, "draw", note)
    monkeypatch.chdir(tmp_path)
    return found


def test_the_first_command_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = sightline("look", EXAMPLE, "--png", "map.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0] == f"looking at {EXAMPLE}"
    arrays = np.load(EXAMPLE)
    steps = reference.attention(arrays["query"], arrays["key"], arrays["key"])
    seen = reference_statistics.see(steps, See(entropy=True, distance=True))
    first = next(i for i, line in enumerate(lines) if line.split()[:2] == ["head", "entropy"]) + 1
    for h, line in enumerate(lines[first : first + 12]):
        number, entropy, share, distance = line.split()[:4]
        assert number == str(h)
        assert float(entropy) == pytest.approx(seen.entropy[h].mean(), abs=0.006)
        assert float(share[:-1]) == pytest.approx(100 * seen.entropy[h].mean() / np.log(470), abs=0.6)
        assert float(distance) == pytest.approx(seen.distance[h].mean(), abs=0.6)
    assert "[CLS] alice was beginning to get very tired of sitting" in done.stdout
    assert lines[-2].split()[:2] == ["written", "minilm_qkv.html"]
    assert lines[-1].split() == ["written", "map.png"]
    page = (tmp_path / "minilm_qkv.html").read_text("utf-8")
    assert "<title>minilm_qkv.npz" in page
    assert len(page) > 100_000
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("case", [case for case in OPTIONS if case != "precision"])
def test_options_reach_the_picture(case: str, tmp_path: Path, drawn: list[tuple[Picture, Any]]) -> None:
    words, options, arrays = OPTIONS[case]
    path = write_npz(tmp_path, **arrays)
    assert main(["look", str(path), *words, "--sequence", "1", "--heads", "2,1"]) == 0
    given = np.load(path)
    steps = reference.attention(given["query"], given["key"], given["value"], **options)
    for picture, _ in drawn:
        assert picture.heads == ("2", "1")
        assert_close(picture.pooled, steps.weights[1, [2, 1]], rtol=1e-4)
        assert_close(picture.max_score, steps.max_score[1, [2, 1]], rtol=1e-4)
        assert len(picture.options) == len(options)
    assert [where and where.name for _, where in drawn] == [None, "in.html"]


def test_values_are_not_needed(tmp_path: Path, drawn: list[tuple[Picture, Any]]) -> None:
    np.savez(tmp_path / "in.npz", q=normal(2, 5, 8), k=normal(2, 5, 8, seed=1))
    assert main(["look", str(tmp_path / "in.npz"), "--no-html"]) == 0
    ((picture, where),) = drawn
    assert where is None
    assert picture.key_tokens is None


def test_tokens_from_the_file_or_from_a_text(tmp_path: Path, drawn: list[tuple[Picture, Any]]) -> None:
    path = write_npz(tmp_path, tokens=np.array(list("abcdefg")), names=np.array(list("hijklmn")))
    (tmp_path / "lines.txt").write_text("".join(f"{letter}\n" for letter in "opqrstü"), "utf-8")
    for words in ([], ["--tokens", "names"], ["--tokens", str(tmp_path / "lines.txt")]):
        assert main(["look", str(path), "--no-html", *words]) == 0
    assert ["".join(picture.key_tokens or ()) for picture, _ in drawn] == ["abcdefg", "hijklmn", "opqrstü"]


def test_tokens_of_other_positions_are_no_labels(tmp_path: Path, drawn: list[tuple[Picture, Any]]) -> None:
    assert main(["look", str(write_npz(tmp_path, tokens=np.array(list("abc")))), "--no-html"]) == 0
    assert drawn[0][0].key_tokens is None


def test_the_page_and_the_png_go_where_they_are_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, page, png = write_npz(tmp_path), tmp_path / "page.html", tmp_path / "map.png"
    assert main(["look", str(path), "--html", str(page), "--png", str(png)]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert str(page) in told.out
    assert "<html" in page.read_text("utf-8")
    assert struct.unpack(">II", png.read_bytes()[16:24])[0] > 800


def test_open_shows_the_page(
    tmp_path: Path, drawn: list[tuple[Picture, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert main(["look", str(write_npz(tmp_path)), "--open"]) == 0
    assert opened == [(tmp_path / "in.html").as_uri()]
    assert len(drawn) == 2


def test_long_work_moves_a_bar(
    tmp_path: Path, drawn: list[tuple[Picture, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[int] = []

    class Counted(progress.Bar):
        def advance(self) -> None:
            moved.append(self.total)

    monkeypatch.setattr(look, "Bar", Counted)
    assert main(["look", str(write_npz(tmp_path)), "--no-html"]) == 0
    assert moved == [4, 4, 4, 4]  # heads
    assert drawn


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--heads", "4"], "heads has 4; there are 4, counted from 0"),
        (["--heads", "a"], "'a' is not a whole number"),
        (["--sequence", "2"], "sequence is 2; there are 2, counted from 0"),
        (["--causal"], "query_offset"),
        (["--png", "x.jpg"], "--png x.jpg should end in .png"),
        (["--html", "x.png"], "--html x.png should end in .html"),
        (["--html", "nowhere/x.html"], "cannot write nowhere/x.html: there is no folder nowhere"),
        (["--no-html", "--html", "x.html"], "--no-html writes no page"),
        (["--no-html", "--open"], "--no-html writes no page"),
        (["--tokens", "nothing"], "has no array 'nothing'"),
        (["--tokens", "query"], "tokens ('query' in"),
        (["--tokens", "few"], "tokens has 2 labels; expected 7, one for each key"),
        (["--tokens", "gone.txt"], "cannot read gone.txt: No such file or directory"),
        (["--value", "value"], "unknown option --value"),
        (["--layers", "3"], "unknown option --layers"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    code = main(["look", str(write_npz(tmp_path, few=np.array(["a", "b"]))), *words])
    told = capsys.readouterr()
    out = "" if told.out.startswith("looking at") else told.out  # some are found after the file was read
    assert_one_line(code, out, told.err, message)
    assert not list(tmp_path.glob("*.html"))


@pytest.mark.parametrize("package", ["rich", "matplotlib", "jinja2"])
def test_a_missing_package_is_named_before_any_work(package: str, tmp_path: Path) -> None:
    out = tmp_path / "x"
    done = without(
        package, "look", EXAMPLE, "--html", out.with_suffix(".html"), "--png", out.with_suffix(".png")
    )
    assert_one_line(done.returncode, done.stdout, done.stderr, f"pictures need {package}")
    assert "pip install 'sightline[look]'" in done.stderr


def test_nan_is_not_passed_over(tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    query = normal(2, 4, 5, 8)
    query[0, 2] = np.nan
    png = tmp_path / "nan.png"
    assert main(["look", str(write_npz(tmp_path, query=query)), "--png", str(png)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["2", "–", "–", "–", "–", "–"] in [line[:6] for line in lines]
    assert png.exists()
