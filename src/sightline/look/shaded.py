"""The tokens as text, each shaded by the attention it receives: by colour, or by marks below it.

Shades are logarithmic and mean the same in every picture: how many times the average token's attention.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from rich.cells import cell_len
from rich.color import Color, blend_rgb
from rich.style import Style
from rich.text import Text

from sightline.look.strips import step, stretches
from sightline.look.words import words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from sightline.look.strips import Letters
    from sightline.look.words import Word

LEAST, MOST = 1 / 4, 4  # × the average: at the ends of the scale and beyond
# The page's colours from dark to bright, evenly in lightness, over the scale from 0 to 1.
PAGE = ("#15171e", "#21234a", "#3f2a72", "#6b2f82", "#9c3a7c", "#cf5063", "#f3843d", "#fcd447")
BRIGHT = 0.72  # from here on, letters are dark


def shade(times: float) -> float:
    """Where something that receives `times` as much as the average is on the scale from 0 to 1; NaN stays."""
    if not times > 0:
        return times  # 0, or NaN
    return float(np.clip(np.log(times / LEAST) / np.log(MOST / LEAST), 0.0, 1.0))


def text(
    tokens: Sequence[str], received: NDArray[Any], width: int, rows: int, known: Letters, *, colour: bool
) -> tuple[list[Text], int]:
    """Lines of at most `width` cells, as many as `rows` has room for; and how many tokens are in them."""
    times = times_average(received)
    rows_each = 1 if colour else 2  # without colour a line of marks goes below each
    lines: list[Text] = []
    shown = 0
    for line in _lines(words(tokens), width):
        if len(lines) + rows_each > rows and lines:
            break
        places = times[shown : shown + len(line)]
        lines += [_coloured(line, places, width)] if colour else _marked(line, places, known)
        shown += len(line)
    return lines, shown


def strip(received: NDArray[Any], width: int, known: Letters, *, colour: bool) -> Text:
    """Positions that have no tokens: one line of shades, each for a stretch of neighbours."""
    shades = [shade(x) for x in stretches(times_average(received), width)]
    if colour:
        return Text.assemble(*((" ", _style(level)) for level in shades))
    return Text("".join(step(level, known) for level in shades))


def legend(known: Letters, *, colour: bool) -> Text:
    """What the shades mean."""
    parts = []
    for times in (1 / 4, 1 / 2, 1, 2, 4):
        name = f"{times:g}" if times >= 1 else f"1/{1 / times:g}"
        ends = {LEAST: f"{name} or less", MOST: f"{name} or more"}.get(times, name)
        mark = step(shade(times), known)
        parts.append((f" {ends} ", _style(shade(times))) if colour else (f"{mark} {ends}  ", ""))
    return Text.assemble(*parts, (f" {known.times} average" if colour else f"{known.times} average", "dim"))


def times_average(received: NDArray[Any]) -> NDArray[np.float64]:
    """What each key receives, divided by what a key receives on average."""
    values = received.astype(np.float64)
    defined = values[np.isfinite(values)]
    average = defined.mean() if defined.size else 0.0
    return values / (average or 1.0)


def _lines(tokens: list[Word], width: int) -> Iterator[list[Word]]:
    """The words in lines, broken at spaces where there are any."""
    line: list[Word] = []
    used = 0
    for i, word in enumerate(tokens):
        gap = 1 if word.begins and line else 0
        size = gap + cell_len(word.text)
        if line and (used + size > width or (word.begins and used + _reach(tokens, i) > width)):
            yield line
            line, used, size = [], 0, size - gap
        line.append(word)
        used += size
    if line:
        yield line


def _reach(tokens: list[Word], i: int) -> int:
    """The cells that the word beginning at token i needs with its space, the tokens it goes on with included."""
    size = 1 + cell_len(tokens[i].text)
    for word in tokens[i + 1 : i + 9]:
        if word.begins:
            break
        size += cell_len(word.text)
    return size


def _coloured(line: list[Word], times: NDArray[np.float64], width: int) -> Text:
    """The words on their shades, and a space on the darker one of its neighbours'."""
    result = Text(no_wrap=True)
    before = 0.0
    for k, (word, received) in enumerate(zip(line, times, strict=True)):
        level = shade(received)
        if word.begins and k:
            result.append(" ", _style(np.fmin(before, level)))
        result.append(word.text, _style(level))
        before = level
    result.append(" " * max(width - cell_len(result.plain), 0), _style(0.0))
    return result


def _marked(line: list[Word], times: NDArray[np.float64], known: Letters) -> list[Text]:
    """The words, and below each of them its shade as a bar."""
    above, below = "", ""
    for k, (word, received) in enumerate(zip(line, times, strict=True)):
        gap = " " if word.begins and k else ""
        above += gap + word.text
        below += gap + step(shade(received), known) * cell_len(word.text)
    return [Text(above, no_wrap=True), Text(below.rstrip() or " ", no_wrap=True)]


def _style(level: float) -> Style:
    """The colour of the page at this place of the scale, and letters that can be read on it."""
    if np.isnan(level):
        return Style(color="#ffffff", bgcolor="#5f5f5f", strike=True)
    low = min(int(level * (len(PAGE) - 1)), len(PAGE) - 2)
    below, above = (Color.parse(end).get_truecolor() for end in PAGE[low : low + 2])
    colour = blend_rgb(below, above, level * (len(PAGE) - 1) - low)
    ink = "#101014" if level >= BRIGHT else "#f0f0f4"
    return Style(color=ink, bgcolor=Color.from_triplet(colour))
