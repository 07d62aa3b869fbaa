"""`sightline bench` and its room: what it counts, whom it refuses, what it writes. Nothing here is timed."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import matrix_unit
from sightline.bench import measure, others, peaks, roofline
from sightline.bench.shapes import SHAPES, Shape
from sightline.cli.main import main
from sightline.cpu import compile as compiler
from sightline.cpu import isa, strips

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SMALL = Shape("small", 1, 4, 4, 20, 20, 16, causal=True)
GROUPED = Shape("grouped", 2, 4, 2, 1, 33, 16)
SOME = peaks.Peaks(2, 100.0, 200.0, 50.0)


# ── Peaks ──


@pytest.mark.parametrize("name", ["fma", "read"])
@pytest.mark.parametrize("instructions", isa.NAMES)
def test_loops_are_machine_code_that_does_nothing_else(name: str, instructions: str) -> None:
    target = isa.target(instructions)
    text = compiler.assembly(peaks._LOOPS[name](target), target)
    if name == "fma":
        assert len(re.findall(r"\b(?:vfmadd\w+ps|fmla)\s", text)) == peaks._sums(target)
    else:
        assert re.search(r"\bprefetch|\bprfm", text)
    assert not re.findall(r"\(%rsp.*%[xyz]mm|%[xyz]mm\d+, .*\(%rsp|(?:ldr|str|ldp|stp)\s+q\d+.*\[sp", text)


def test_pairs_are_the_processors_own() -> None:
    if "avx512bf16" not in isa.chosen().extras:
        pytest.skip("this processor has none")
    text = compiler.assembly(peaks._LOOPS["pairs"](isa.chosen()), isa.chosen())
    assert text.count("vdpbf16ps") == peaks._sums(isa.chosen())


def test_tiles_are_the_processors_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "_instruct", matrix_unit.OWN)
    target = replace(isa.target("amx"), cpu="sapphirerapids", features="")
    text = compiler.assembly(peaks._LOOPS["tiles"](target), target)
    assert text.count("tdpbf16ps") == peaks.TILES_A_TURN
    assert text.count("tilerelease") == 1


def test_reading_reads_every_byte() -> None:
    loop = peaks._loop("read", isa.chosen())
    memory = np.zeros(8 * isa.chosen().vector_bytes * 3, np.uint8)
    assert loop(memory.ctypes.data, memory.nbytes) == 0
    for place in (0, 700, memory.nbytes - 1):
        memory[:] = 0
        memory[place] = 1
        assert loop(memory.ctypes.data, memory.nbytes) == 1, place


def test_peaks_count_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "READ_BYTES", 1 << 12)
    monkeypatch.setattr(peaks, "_best", lambda _, arguments: 0.5 * len(arguments))
    found = peaks.measure(2)
    target = isa.chosen()
    flops = 2 * peaks.TURNS * peaks._sums(target) * target.vector_bytes / 4
    assert found.fma == pytest.approx(2 * flops / 1e9)
    assert found.read == pytest.approx(2 * (1 << 12) / 1e9)
    if target.multiplies_tiles:
        assert found.pairs == pytest.approx(2 * peaks.TURNS * 4 * 2 * 16 * 16 * 32 / 1e9)
    elif found.pairs is not None:
        assert found.pairs == pytest.approx(2 * found.fma)


def test_the_better_of_two_measurements() -> None:
    other = peaks.Peaks(2, 90.0, None, 60.0)
    assert SOME.or_better(other) == peaks.Peaks(2, 100.0, None, 60.0)
    assert (SOME.of("float32"), SOME.of("bfloat16"), other.of("bfloat16")) == (100.0, 200.0, 90.0)


# ── Calls and libraries ──


def test_flops_and_bytes() -> None:
    assert SMALL.flops == 4 * 16 * 4 * (20 * 21 / 2)
    assert GROUPED.flops == 4 * 16 * 2 * 4 * 33
    assert GROUPED.bytes("bfloat16") == 2 * 2 * 16 * (2 * 4 + 2 * 2 * 33)
    assert str(GROUPED) == "2 × 4/2 heads, 1 × 33, 16"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("shape", [SMALL, GROUPED], ids=lambda shape: shape.name)
@pytest.mark.parametrize("name", list(others.LIBRARIES))
def test_every_library_gives_the_right_answer(name: str, shape: Shape) -> None:
    library = others.LIBRARIES[name]
    if not library.installed:
        pytest.skip(f"{name} is not installed")
    for dtype in library.dtypes:
        inputs = shape.inputs(dtype)
        ready = library.prepare(shape, inputs, 1)
        if ready is None:
            continue
        ready.call()
        error = measure._error(shape, ready.result(), *measure._expected(shape, inputs))
        assert error < measure.TOLERANCE[dtype]


# ── Measuring ──


def fake(factor: float) -> others.Library:
    """A library whose output is that many times what it should be."""

    def prepare(shape: Shape, inputs: Any, threads: int) -> others.Ready | None:
        ours = others.LIBRARIES[others.OURS].prepare(shape, inputs, threads)
        assert ours is not None
        return others.Ready(ours.call, lambda: factor * ours.result())

    return others.Library((), ("float32",), prepare)


def failing(shape: Shape, inputs: Any, threads: int) -> others.Ready:
    raise RuntimeError("no such thing")


def clocked(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
    """Turns that take what they are told to."""
    told = iter(seconds)
    monkeypatch.setattr(measure, "PAUSE", 0.0)
    monkeypatch.setattr(measure, "_turn", lambda _made, _seconds: next(told))


def test_the_wrong_are_refused_and_the_right_compared_round_by_round(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = {
        others.OURS: others.LIBRARIES[others.OURS],
        "wrong": fake(1.01),
        "failing": others.Library((), ("float32",), failing),
        "half": others.Library((), ("float16",), failing),
        "right": fake(1.0),
    }
    clocked(monkeypatch, 1.0, 3.0, 3.0, 6.0, 2.0, 8.0)  # ours, right, in each of three rounds
    found = list(measure.measure(SMALL, "float32", 1, libraries, 3, 0.0))
    wrong, failed, ours, right = found
    assert isinstance(wrong, measure.Refused)
    assert isinstance(failed, measure.Refused)
    assert (wrong.library, failed.library) == ("wrong", "failing")
    assert wrong.why.startswith("wrong: relative error 0.01")
    assert failed.why == "RuntimeError: no such thing"
    assert isinstance(ours, measure.Row)
    assert isinstance(right, measure.Row)
    assert (ours.library, ours.milliseconds, ours.times) == (others.OURS, 2000.0, 1.0)
    assert (right.library, right.milliseconds, right.times) == ("right", 6000.0, 3.0)
    assert ours.gflops == SMALL.flops / 2 / 1e9


# ── The command ──


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`sightline bench` on two calls, without waiting."""
    monkeypatch.setattr(peaks, "measure", lambda threads: peaks.Peaks(threads, 100.0, 200.0, 50.0))
    monkeypatch.setattr(measure, "PAUSE", 0.0)
    monkeypatch.setattr(measure, "_turn", lambda _made, _seconds: 1e-3)
    monkeypatch.setattr(others, "LIBRARIES", {others.OURS: others.LIBRARIES[others.OURS], "other": fake(1.0)})
    return lambda *words: main(["bench", "--shapes", "tiny,bert", "--rounds", "1", "--threads", "1", *words])


def test_bench_tells_what_it_found(
    quick: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    saved = tmp_path / "rows.csv"
    assert quick("--dtypes", "float32", "--save", str(saved)) == 0
    out = capsys.readouterr().out
    assert "multiply-adds 100 GFLOP/s, bfloat16 pairs 200, reading 50.0 GB/s" in out
    assert "bert: 16 × 12 heads, 128 × 128, 64" in out
    assert out.count("1.00× as fast") == 2
    assert "Something else" not in out
    with saved.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["shape"], row["library"]) for row in rows] == [
        ("tiny", "sightline"), ("tiny", "other"), ("bert", "sightline"), ("bert", "other"),
    ]  # fmt: skip
    share = SHAPES["bert"].flops / 1e-3 / 1e9 / 100.0
    assert float(rows[2]["share"]) == pytest.approx(share, rel=1e-4)


def test_bench_without_rich_has_columns_all_the_same(
    quick: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sightline.cli import bench, show

    monkeypatch.setattr(bench, "find_spec", lambda _: None)
    monkeypatch.setattr(show, "find_spec", lambda _: None)
    assert quick("--dtypes", "float32") == 0
    lines = capsys.readouterr().out.splitlines()
    head, first = (
        next(line for line in lines if word in line) for word in ("GFLOP/s  GB/s", "sightline  1 ms")
    )
    assert head.index("time") == first.index("1 ms")


def test_a_machine_that_changed_is_said(
    quick: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([SOME, peaks.Peaks(2, 70.0, 140.0, 50.0)])
    monkeypatch.setattr(peaks, "measure", lambda _: next(found))
    assert quick("--dtypes", "float32") == 0
    assert "Something else had this machine for a while" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--shapes", "huge"), "there is no 'huge': the names are prompt, bert, vit, decode, tiny"),
        (("--dtypes", "int8"), "there is no 'int8'"),
        (("--save", "nowhere/x.csv"), "there is no folder nowhere"),
    ],
)
def test_mistakes_are_one_line(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_plot_without_matplotlib_is_refused_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from sightline.cli import bench

    monkeypatch.setattr(bench, "find_spec", lambda _: None)
    assert main(["bench", "--plot", str(tmp_path / "x.png")]) == 2
    assert "pip install 'sightline[look]'" in capsys.readouterr().err


def test_the_roofline_is_a_picture(quick: Callable[..., int], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "roofline.png"
    assert quick("--dtypes", "float32,bfloat16", "--plot", str(path)) == 0
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    empty = tmp_path / "empty.png"
    roofline.draw([], peaks.Peaks(1, 100.0, None, 10.0), "nothing", empty)
    assert empty.stat().st_size > 1000


def test_a_turn_makes_calls_until_its_time_is_over() -> None:
    calls: list[int] = []
    measure._turn(others.Ready(lambda: calls.append(1), lambda: np.zeros(1)), 0.0)
    assert len(calls) == 2, "one that does not count, and one that does"
