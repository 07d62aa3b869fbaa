"""What the terminal shows is true, fits any width, and needs neither colour nor Unicode."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from looks import taken
from sightline.look import shaded, terminal
from sightline.look.strips import ASCII, UNICODE, bar, letters, sparkline, step, stretches
from sightline.look.summary import heads
from sightline.see import TopKeys

if TYPE_CHECKING:
    from sightline.look.picture import Picture

WORDS = ["[CLS]", "alice", "was", "pee", "##ped", "into", "the", "book"]
PLAIN = {"highlight": False, "color_system": None}


def drawn(picture: Picture, width: int, *, height: int = 50, colour: bool = False) -> list[str]:
    """The lines of a terminal of this size."""
    file = io.StringIO()
    system = {"color_system": "truecolor", "force_terminal": True} if colour else PLAIN
    terminal.draw(picture, Console(file=file, width=width, height=height, _environ={}, **system))
    return file.getvalue().splitlines()


def written(picture: Picture) -> str:
    file = io.StringIO()
    terminal.show(picture, file)
    return file.getvalue()


def test_summary_is_the_mean_of_the_definition() -> None:
    picture, steps = taken(3, 20, 20, causal=True)
    weights = steps.weights
    logs = np.log(np.where(weights > 0, weights, 1.0))
    entropy = -(weights * logs).sum(-1)
    share = (entropy[:, 1:] / np.log(np.arange(2, 21))).mean(-1)
    far = (weights * abs(np.arange(20)[:, None] - np.arange(20))).sum(-1)
    off_diagonal = np.where(np.eye(20, dtype=bool), 0.0, weights)
    for h, head in enumerate(heads(picture)):
        assert head.entropy == pytest.approx(entropy[h].mean(), rel=1e-6)
        assert head.share == pytest.approx(share[h], rel=1e-6)
        assert head.distance == pytest.approx(far[h].mean(), rel=1e-6)
        assert head.sharpest is not None
        assert head.sharpest.weight == pytest.approx(off_diagonal[h].max())
        assert off_diagonal[h, head.sharpest.query, head.sharpest.key] == off_diagonal[h].max()
        received = weights[h].sum(0) / 20
        assert [key for key, _ in head.most] == np.argsort(-received)[:4].tolist()
        assert [x for _, x in head.most] == pytest.approx(np.sort(received)[::-1][:4])


def test_received_is_a_share_of_the_queries() -> None:
    picture, steps = taken(1, 6, 15)
    (head,) = heads(picture)
    assert head.received is not None
    np.testing.assert_allclose(head.received, steps.weights[0].sum(0) / 6, rtol=1e-6)
    assert head.received.sum() == pytest.approx(1.0)


def test_queries_that_see_nothing_do_not_count() -> None:
    picture, steps = taken(2, 6, 6, key_lengths=np.array(3), window=(1, 1))
    seeing = np.asarray(steps.seen.any(-1))
    assert not seeing.all()
    expected = picture.entropy
    assert expected is not None
    for h, head in enumerate(heads(picture)):
        assert head.entropy == pytest.approx(expected[h][seeing[h]].mean())


def test_nan_is_not_hidden_and_spoils_nothing_else() -> None:
    picture, _ = taken(2, 8, 8, tokens=WORDS)
    assert picture.entropy is not None
    assert picture.received is not None
    entropy, received = picture.entropy.copy(), picture.received.copy()
    entropy[0] = np.nan
    received[0, 3] = np.nan
    first, second = heads(replace(picture, entropy=entropy, received=received))
    assert first.entropy is None
    assert second.entropy is not None
    lines = drawn(replace(picture, entropy=entropy, received=received), 100)
    assert lines[2].split()[:2] == ["0", "–"]
    assert "?" in lines[2]
    assert "???" not in "\n".join(lines)  # the other head has something to say of that token
    received[1, 3] = np.nan
    lines = drawn(replace(picture, received=received), 100)
    assert "???" in "\n".join(lines)


@pytest.mark.parametrize("width", [60, 79, 100, 140, 200])
@pytest.mark.parametrize("colour", [True, False])
def test_any_width_fits(width: int, colour: bool) -> None:
    picture, _ = taken(12, 8, 8, tokens=WORDS)
    for line in drawn(picture, width, colour=colour):
        assert cell_len(re.sub(r"\x1b\[[0-9;]*m", "", line)) <= width
    table = "\n".join(drawn(picture, width)[:14])
    assert all(name in table for name in ("head", "entropy", "distance", "sharpest"))
    assert ("receives most" in table) == (width > 60)
    assert ("received" in table) == (width > 79)


def test_a_tiny_screen_is_no_error() -> None:
    picture, _ = taken(2, 8, 8, tokens=WORDS)
    for width in (1, 10, 24):
        assert drawn(picture, width, height=1)


def test_the_numbers_are_in_the_table() -> None:
    picture, _ = taken(2, 8, 8, tokens=WORDS)
    lines = drawn(picture, 100)
    for line, head in zip(lines[2:4], heads(picture), strict=True):
        assert head.entropy is not None
        assert head.share is not None
        assert head.distance is not None
        assert head.sharpest is not None
        found = line.split()
        assert found[:4] == [head.name, f"{head.entropy:.2f}", f"{head.share:.0%}", f"{head.distance:.1f}"]
        look = f"{WORDS[head.sharpest.query]} → {WORDS[head.sharpest.key]} {head.sharpest.weight:.2f}"
        assert look.replace("##", "") in line
        (key, share) = head.most[0]
        assert f"{WORDS[key].replace('##', '')} {share * 100:.{0 if share > 0.0995 else 1}f}%" in line


def test_missing_fields_are_left_out() -> None:
    picture, _ = taken(2, 8, 8)
    lines = drawn(replace(picture, distance=None, top_keys=None, received=None, visible=None), 100)
    assert lines[1].split() == ["head", "entropy"]
    assert "of max" not in " ".join(lines)
    assert "received" not in " ".join(lines)
    assert "sharpest" not in " ".join(lines)


def test_no_key_to_name() -> None:
    picture, _ = taken(1, 4, 4)
    none = TopKeys(np.full((1, 4, 2), -1), np.zeros((1, 4, 2)))
    (head,) = heads(replace(picture, top_keys=none))
    assert head.sharpest is None
    assert heads(replace(picture, received=np.zeros((1, 4), np.float32)))[0].most == ()


def test_a_file_gets_plain_text() -> None:
    picture, _ = taken(2, 8, 8, tokens=WORDS)
    text = written(picture)
    assert "\x1b" not in text
    assert not re.search(r" $", text, re.MULTILINE)
    lines = text.splitlines()
    assert "[CLS] alice was peeped into the book" in " ".join(line.strip() for line in lines)


def test_a_file_of_another_encoding_gets_letters_it_can_hold() -> None:
    picture, _ = taken(2, 8, 8, tokens=WORDS)
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii") as file:
        terminal.show(picture, file)
        file.flush()
        text = raw.getvalue().decode("ascii")
    assert "->" in text
    assert "x average" in text


@pytest.mark.parametrize(
    ("environment", "colour"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_colour_only_where_it_is_wanted(environment: dict[str, str], colour: bool) -> None:
    picture, _ = taken(2, 8, 8, tokens=WORDS)
    file = io.StringIO()
    terminal.draw(
        picture,
        Console(file=file, width=80, force_terminal=True, _environ={"TERM": "xterm-256color", **environment}),
    )
    assert ("48;5;" in file.getvalue()) == colour  # a background
    assert ("▁" in file.getvalue() or "█" in file.getvalue().splitlines()[-3]) != colour


def test_tokens_are_shaded_by_what_they_receive() -> None:
    received = np.array([8.0, 1.0, 0.5, 0.0, 0.25, 2.0, 1.0, 1.0]) * 7
    average = received.mean()
    lines, shown = shaded.text(WORDS, received, 60, 10, UNICODE, colour=False)
    assert shown == 8
    words, marks = (line.plain for line in lines)
    assert words == "[CLS] alice was peeped into the book"
    for word, value in zip(
        ["[CLS]", "alice", "was", "pee", "ped", "into", "the", "book"], received, strict=True
    ):
        place = words.index(word)
        expected = step(shaded.shade(value / average), UNICODE) * len(word)
        assert marks[place : place + len(word)].ljust(len(word)) == expected
    (line,), _ = shaded.text(WORDS, received, 60, 10, UNICODE, colour=True)
    assert line.plain == words.ljust(60)
    styles = {line.plain[span.start : span.end]: str(span.style) for span in line.spans}
    assert "on #fcd447" in styles["[CLS]"]
    assert "on #15171e" in styles["pee"]
    assert styles["alice"] == styles["the"] != styles["into"]


def test_shades_have_a_meaning() -> None:
    assert [shaded.shade(x) for x in (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 100.0)] == pytest.approx(
        [0, 0, 0, 0.25, 0.5, 0.75, 1, 1]
    )
    assert np.isnan(shaded.shade(float("nan")))


def test_long_text_is_cut_to_the_screen() -> None:
    tokens = [f"word{i}" for i in range(5000)]
    lines, shown = shaded.text(tokens, np.ones(5000), 50, 7, UNICODE, colour=False)
    assert len(lines) == 6
    assert " ".join(line.plain for line in lines[::2]).split() == tokens[:shown]
    picture, _ = taken(1, 400, 400, tokens=[f"word{i}" for i in range(400)])
    assert re.search(r"… and \d+ more tokens", "\n".join(drawn(picture, 60)))


def test_words_are_not_broken_where_a_line_has_room() -> None:
    lines, _ = shaded.text(["peep", "pee", "##ped"], np.ones(3), 10, 9, UNICODE, colour=False)
    assert [line.plain for line in lines[::2]] == ["peep", "peeped"]
    lines, _ = shaded.text(["a", "##b" * 1, "##" + "c" * 30], np.ones(3), 10, 9, UNICODE, colour=False)
    assert lines[0].plain == "ab"


@pytest.mark.parametrize("colour", [True, False])
def test_lines_are_filled_and_not_over(colour: bool) -> None:
    lines, _ = shaded.text(["ab"] * 40, np.ones(40), 11, 99, UNICODE, colour=colour)
    assert {line.plain.rstrip() for line in lines[:: 1 if colour else 2]} == {"ab ab ab ab"}


def test_columns_are_whole_or_not_there() -> None:
    picture, _ = taken(12, 8, 8, tokens=[word * 3 for word in WORDS])
    for width in range(30, 130):
        heading, *rows = drawn(picture, width)[1:14]
        assert ("sharpest" in heading) == all("→" in row for row in rows)
        if "sharpest" in heading:
            assert all(re.search(r"→ .* [01]\.\d\d\b", row) for row in rows)
        if "receives most" in heading:
            assert all("%" in row[heading.index("receives most") :] for row in rows)


def test_wide_letters_keep_to_the_width() -> None:
    lines, shown = shaded.text(["注意力"] * 10, np.ones(10), 20, 99, UNICODE, colour=True)
    assert shown == 10
    assert {line.cell_len for line in lines} == {20}


def test_positions_without_tokens_are_a_strip() -> None:
    picture, _ = taken(2, 300, 300)
    lines = drawn(picture, 80)
    assert lines[-2].split() == ["0", "299"]
    assert len(lines[-3].strip("\n")) == 80


def test_bars_and_lines() -> None:
    assert bar(0.5, 4, UNICODE) == "██  "
    assert bar(0.53125, 4, UNICODE) == "██▏ "
    assert bar(2.0, 3, ASCII) == "###"
    assert sparkline(np.array([0.0, 0.001, 0.5, 1.0]), 9, UNICODE) == " ▁▄█"
    assert sparkline(np.array([np.nan, 1.0]), 9, UNICODE) == "?█"
    assert sparkline(np.zeros(3), 9, UNICODE) == "   "
    np.testing.assert_allclose(stretches(np.arange(10.0), 3), [1.0, 4.0, 7.5])
    np.testing.assert_allclose(stretches(np.arange(10.0), 3, "most"), [2, 5, 9])
    np.testing.assert_allclose(stretches(np.arange(10.0), 3, "least"), [0, 3, 6])
    assert stretches(np.zeros(0), 3).size == 0
    assert letters("utf-8") is UNICODE
    assert letters("latin-1") is ASCII
    assert letters("no such encoding") is ASCII
