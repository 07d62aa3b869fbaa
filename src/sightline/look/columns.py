"""The columns of the terminal's table of heads: as many as the picture can fill and the width has room for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len
from rich.text import Text

from sightline.look.strips import bar, sparkline
from sightline.look.words import clipped, label

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sightline.look.picture import Picture
    from sightline.look.strips import Letters
    from sightline.look.summary import Glance, Head

GAP = 2  # cells between columns
TOKEN = 9  # cells for a token's name
BAR = 8
SHORT_LINE, LONG_LINE = 12, 48  # cells for the attention received along the keys
SHORT_LIST = 16  # cells for the keys that receive most


class Column(NamedTuple):
    """A heading and a cell for each head."""

    name: str
    cells: list[Text]
    right: bool = False

    @property
    def width(self) -> int:
        """Cells that it needs."""
        return max(cell_len(self.name), *(cell.cell_len for cell in self.cells))


def columns(picture: Picture, heads: Sequence[Head], width: int, known: Letters) -> list[Column]:
    """The columns that fit in `width` cells, most telling first."""
    chosen = _numbers(heads, width, known)
    if any(head.sharpest for head in heads):
        cells = [_glance(picture, head.sharpest, known) for head in heads]
        _add(chosen, Column("sharpest", cells), width)
    if any(head.received is not None for head in heads):
        left = width - taken(chosen)
        line = min(LONG_LINE, left - SHORT_LIST - 2 * GAP)
        line = min(line, max(SHORT_LINE, left // 2)) if line >= SHORT_LINE else 0
        room = left - GAP - (line + GAP if line else 0)
        if room >= SHORT_LIST:
            cells = [_most(picture, head, room, known) for head in heads]
            _add(chosen, Column("receives most", cells), width)
        line = min(LONG_LINE, max(line, width - taken(chosen) - GAP))
        if line >= SHORT_LINE:
            _add(chosen, Column(_fitting(line), [_line(head, line, known) for head in heads]), width)
    return chosen


def taken(chosen: Sequence[Column]) -> int:
    """Cells that these columns need."""
    return sum(column.width for column in chosen) + GAP * max(len(chosen) - 1, 0)


def _add(chosen: list[Column], column: Column, width: int) -> None:
    if taken(chosen) + GAP + column.width <= width:
        chosen.append(column)


def _numbers(heads: Sequence[Head], width: int, known: Letters) -> list[Column]:
    """The head's name, and what is one number."""
    chosen = [Column("head", [Text(clipped(head.name, TOKEN + 3), "bold") for head in heads], right=True)]

    def number(name: str, values: list[float | None], form: Callable[[float], str]) -> None:
        if any(value is not None for value in values):
            cells = [Text(known.dash if value is None else form(value)) for value in values]
            chosen.append(Column(name, cells, right=True))

    number("entropy", [head.entropy for head in heads], lambda x: f"{x:.2f}")
    shares = [head.share for head in heads]
    number("of max", shares, lambda x: f"{x:.0%}")
    if any(share is not None for share in shares) and width > 110:
        chosen.append(Column("", [Text(bar(share or 0.0, BAR, known), "magenta") for share in shares]))
    number("distance", [head.distance for head in heads], _short_number)
    return chosen


def _glance(picture: Picture, glance: Glance | None, known: Letters) -> Text:
    if glance is None:
        return Text(known.dash)
    looks = clipped(label(picture.query_tokens, glance.query), TOKEN, known.ellipsis)
    seen = clipped(label(picture.key_tokens, glance.key), TOKEN, known.ellipsis)
    return Text.assemble(f"{looks} {known.arrow} {seen} ", (f"{glance.weight:.2f}", "green"))


def _most(picture: Picture, head: Head, width: int, known: Letters) -> Text:
    """As many keys as fit, with their share of all attention."""
    cell = Text()
    for key, share in head.most:
        name = clipped(label(picture.key_tokens, key), TOKEN, known.ellipsis)
        piece = Text.assemble("  " if cell.plain else "", f"{name} ", (_percent(share), "green"))
        if cell.cell_len + piece.cell_len > width:
            break
        cell.append_text(piece)
    return cell if cell.plain else Text(known.dash)


def _line(head: Head, width: int, known: Letters) -> Text:
    return Text("" if head.received is None else sparkline(head.received, width, known), "yellow")


def _fitting(width: int) -> str:
    long = "received along the keys"
    return long if len(long) <= width else "received"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.0995 else f"{share:.1%}" if share >= 0.0005 else "<0.1%"


def _short_number(value: float) -> str:
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}"
