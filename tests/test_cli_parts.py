"""The pieces of `attend`: cutting, the bar, the check against the reference, the visible tiles."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from command import (
    normal,
)
from sightline import parts, reference
from sightline.cli import check, progress, running, visible
from sightline.cli.inputs import Inputs, call_of

if TYPE_CHECKING:
    from collections.abc import Callable


CUT: dict[str, dict[str, Any]] = {
    "nothing": {},
    "causal": {"causal": True, "query_offset": np.array([0, -50])},
    "window": {"window": (20, 5), "query_offset": -30},
    "lengths": {"key_lengths": np.array([70, 0])},
    "mask": {"mask": normal(150, 100) > 0},
    "bias": {"bias": normal(2, 1, 150, 100), "softcap": 3.0},
    "heads": {"sinks": normal(4), "alibi_slopes": normal(4), "query_offset": 7},
}


@pytest.mark.parametrize("case", CUT)
@pytest.mark.parametrize("count", [2, 3, 7, 1000])
def test_parts_change_no_bit(case: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "ROWS", 64)
    q, k, v = normal(2, 4, 150, 8), normal(2, 2, 100, 8, seed=1), normal(2, 2, 100, 6, seed=2)
    inputs = Inputs(q, k, v, CUT[case], {}, None)
    call = call_of(inputs)
    pieces = parts.parts(call, count)
    assert len(pieces) == {2: 2, 3: 4, 7: 8, 1000: 12}[count]
    cover = np.zeros((2, 4, 150, 1), int)
    for piece in pieces:
        cover[piece.index] += 1
    np.testing.assert_array_equal(cover, 1)
    np.testing.assert_array_equal(running._in_parts(call, count), running._whole(inputs))


def test_long_rows_in_parts_change_no_bit() -> None:
    q, k, v = (normal(3000, 16, seed=i) for i in range(3))
    inputs = Inputs(q, k, v, {"causal": True}, {}, None)
    call = call_of(inputs)
    assert [part.rows for part in parts.parts(call, 3)] == [
        slice(0, 1024),
        slice(1024, 2048),
        slice(2048, 3000),
    ]
    np.testing.assert_array_equal(running._in_parts(call, 3), running._whole(inputs))


def test_long_work_goes_in_parts_under_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    advanced: list[progress.Bar] = []

    def advance(bar: progress.Bar) -> None:
        advanced.append(bar)

    monkeypatch.setattr(progress.Bar, "advance", advance)
    monkeypatch.setattr(running, "PATIENCE", 0.0)  # no repetition
    three = normal(2, 4, 5, 8), normal(2, 2, 7, 8, seed=1), normal(2, 2, 7, 6, seed=2)
    inputs = Inputs(*three, {}, {}, None)
    call = call_of(inputs)
    assert running.attend(inputs, call, 1.9 * running.PART).repeats == 0
    assert len(advanced) == 0
    ran = running.attend(inputs, call, 4 * running.PART)
    assert len(advanced) == 4
    np.testing.assert_array_equal(ran.output, running._whole(inputs))


def test_short_work_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "PATIENCE", 1000.0)
    inputs = Inputs(normal(5, 8), normal(7, 8), normal(7, 6), {}, {}, None)
    ran = running.attend(inputs, call_of(inputs), 1.0)
    assert ran.repeats == 5
    assert 0 < ran.seconds < ran.first * 10


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Replaces the bar's clock: the fixture's value moves it on."""
    now = [0.0]
    monkeypatch.setattr("sightline.cli.progress.perf_counter", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


@pytest.mark.parametrize("rich", [True, False])
@pytest.mark.parametrize(
    ("first", "others", "shows"), [(0.5, 0.01, False), (0.1, 0.1, True), (0.5, 0.2, True)]
)
def test_a_bar_for_what_takes_more_than_a_second(
    *,
    rich: bool,
    first: float,
    others: float,
    shows: bool,
    clock: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not rich:
        monkeypatch.setitem(sys.modules, "rich", None)
    screen = Terminal()
    with progress.Bar(20, screen) as bar:
        for part in range(20):
            clock(others if part else first)
            bar.advance()
    assert ("attending" in screen.getvalue()) == shows
    if shows and not rich:
        assert "] 20/20, 0 s left" in screen.getvalue()
        assert screen.getvalue().endswith("\r\x1b[2K")


def test_no_bar_without_a_terminal(clock: Callable[[float], None]) -> None:
    screen = io.StringIO()
    with progress.Bar(2, screen) as bar:
        for _ in range(2):
            clock(5.0)
            bar.advance()
    assert screen.getvalue() == ""


def test_the_check_finds_a_wrong_row() -> None:
    three = normal(3, 40, 8), normal(3, 40, 8, seed=1), normal(3, 40, 8, seed=2)
    call = call_of(Inputs(*three, {"causal": True}, {}, None))
    output = reference.output_and_lse(*three, causal=True)[0].astype(np.float32)
    found = check.check(call, output)
    assert (found.rows, found.heads) == (48, 3)
    assert 0 < found.error < 1e-6
    for row in (0, 12, 25, 39):
        wrong = output.copy()
        wrong[2, row] *= 1.01
        assert check.check(call, wrong).error == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    ("found", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.0], [1.0, 2.5], 0.2),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.0, 1.0], [0.0, 0.0], np.inf),
        ([np.nan, np.inf], [np.nan, np.inf], 0.0),
        ([np.nan, 1.0], [1.0, 1.0], np.inf),
        ([1.0, 1.0], [1.0, np.nan], np.inf),
        ([1.0, -np.inf], [1.0, np.inf], np.inf),
    ],
)
def test_relative_error(found: list[float], expected: list[float], error: float) -> None:
    assert check.relative_error(np.array([found]), np.array([expected])) == pytest.approx(error)


def test_long_inputs_are_checked_on_fewer_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    three = normal(8, 40, 4), normal(8, 40, 4, seed=1), normal(8, 40, 4, seed=2)
    call = call_of(Inputs(*three, {}, {}, None))
    output, _ = reference.output_and_lse(*three)
    assert check.check(call, output).heads == 6
    monkeypatch.setattr(check, "WORK", 2 * 4 * (4 + 32) * 40 * (4 + 4))
    assert check.check(call, output).heads == 2


@pytest.mark.parametrize(
    ("options", "fraction"),
    [
        ({}, 1.0),
        ({"causal": True}, 10 / 16),
        ({"window": (0, 0)}, 4 / 16),
        ({"key_lengths": 5}, 8 / 16),
        ({"key_lengths": np.array([4, 16])}, (4 + 16) / 32),
        ({"mask": np.arange(16) < 4}, 4 / 16),
        ({"mask": (np.arange(2) == 0)[:, None, None, None]}, 1 / 2),
        ({"mask": (np.arange(3) == 0)[:, None, None]}, 1 / 3),
    ],
)
def test_visible_fraction(options: dict[str, Any], fraction: float) -> None:
    same = normal(2, 3, 16, 8)
    call = call_of(Inputs(same, same, same, options, {}, None))
    assert visible.visible_fraction(call, 4, 4) == pytest.approx(fraction)
