"""What a look found, in the terminal: a line for each head, and the tokens shaded by what they receive.

Works on any width, and without colour or Unicode.
"""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sightline.look import shaded
from sightline.look.columns import GAP, columns
from sightline.look.strips import letters
from sightline.look.summary import heads, mean_received

if TYPE_CHECKING:
    from typing import TextIO

    from rich.console import RenderableType

    from sightline.look.picture import Picture
    from sightline.look.strips import Letters

PAGE = 100  # columns where there is no terminal
ROWS = 16  # … and lines of text
MARGIN = 2
COLUMN = 110  # columns that lines of text have at most: wider ones are hard to follow
OUTSIDE = 6  # lines of a screen that are neither heads nor text
NOTES = {
    "entropy": "entropy in nats, mean over the queries",
    "of max": "of max: as a share of the log of how many keys a query may see",
    "distance": "distance in positions",
    "sharpest": "sharpest: the largest weight, query → key",
    "receives most": "receives most: share of all queries' attention",
}


def show(picture: Picture, file: TextIO | None = None) -> None:
    """Prints the picture to the terminal, or to `file`, as plain text if that is none."""
    stream = file or sys.stdout
    if stream.isatty():
        draw(picture, Console(file=stream, highlight=False))
        return
    page = Page(stream.encoding)
    draw(picture, Console(file=page, highlight=False, width=PAGE, color_system=None))
    stream.writelines(line.rstrip() + "\n" for line in page.getvalue().splitlines())


class Page(io.StringIO):
    """Text on its way to a file of some encoding."""

    def __init__(self, encoding: str | None) -> None:
        super().__init__()
        self._encoding = encoding or "utf-8"

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """What the text will be written as."""
        return self._encoding


def draw(picture: Picture, console: Console) -> None:
    """Prints the picture to a console of any kind."""
    known = letters(console.encoding)
    console.print()
    for block in _table(picture, console.width - MARGIN, known):
        console.print(Padding(block, (0, 0, 0, MARGIN)))
    received = mean_received(picture)
    if received is not None and received.size:
        console.print()
        for line in _received(picture, received, console, known):
            console.print(Padding(line, (0, 0, 0, MARGIN)), no_wrap=True, crop=True)


def _table(picture: Picture, width: int, known: Letters) -> list[RenderableType]:
    """A line for each head, and a note on what the columns mean."""
    chosen = columns(picture, heads(picture), width, known)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="cyan")
    for column in chosen:
        table.add_column(column.name, justify="right" if column.right else "left", no_wrap=True)
    for row in zip(*(column.cells for column in chosen), strict=True):
        table.add_row(*row)
    notes = [NOTES[column.name] for column in chosen if column.name in NOTES]
    note = " · ".join(notes) if known.arrow == "→" else "; ".join(notes).replace("→", known.arrow)
    return [table, Text(note, "dim")]


def _received(picture: Picture, received: Any, console: Console, known: Letters) -> list[Text]:
    """The attention that each key receives, mean over the heads: on its token, or along a strip."""
    colour = console.color_system in {"256", "truecolor"} and not console.no_color
    width = console.width - MARGIN
    count = len(picture.heads)
    whose = f"mean of {count} heads" if count > 1 else f"head {picture.heads[0]}"
    title = Text.assemble(("attention received", "cyan"), f"  {whose}")
    tail: list[Text] = []
    if picture.key_tokens is None:
        body = [shaded.strip(received, width, known, colour=colour)]
        tail = [_ruler(picture.keys, min(width, picture.keys))]
    else:
        width = min(width, COLUMN)
        rows = max(ROWS, console.height - count - OUTSIDE) if console.is_terminal else ROWS
        body, shown = shaded.text(picture.key_tokens, received, width, rows, known, colour=colour)
        if shown < picture.keys:
            tail = [Text(f"{known.ellipsis} and {picture.keys - shown:,} more tokens", "dim")]
    return [title, *body, *tail, shaded.legend(known, colour=colour)]


def _ruler(keys: int, width: int) -> Text:
    """The first and the last position below the ends of a strip."""
    last = str(keys - 1)
    return Text("0" + last.rjust(width - 1) if width > len(last) + 1 else last, "dim")
