"""Where the pictures of `look` go: the words that say it, whether that can be, and the drawing."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from sightline.cli import show
from sightline.cli.errors import CommandError, reason
from sightline.cli.files import check_place

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from sightline.look.picture import Picture


def add_to(parser: argparse.ArgumentParser) -> None:
    """The words."""
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument(
        "--html", type=Path, metavar="FILE", help="the page (default: here, named as the input)"
    )
    pictures.add_argument("--no-html", action="store_true", help="no page")
    pictures.add_argument("--open", action="store_true", help="show the page in the browser")
    pictures.add_argument("--png", type=Path, metavar="FILE", help="also write a PNG")


def places(words: argparse.Namespace, name: str) -> list[Path]:
    """Where to write: checked now, as it would only fail after the work is done."""
    if words.no_html and (words.html is not None or words.open):
        raise CommandError("--no-html writes no page: leave it out, or leave out --html and --open")
    page = words.html or Path(name + ".html")
    files = [path for path in (None if words.no_html else page, words.png) if path is not None]
    for path, option, ending in ((words.html, "--html", ".html"), (words.png, "--png", ".png")):
        if path is not None and path.suffix.lower() != ending:
            raise CommandError(f"{option} {path} should end in {ending}")
    for place in (None, *files):
        _require(place)
        if place is not None:
            check_place(place)
    return files


def draw(pictures: Sequence[Picture], chosen: int, words: argparse.Namespace, files: list[Path]) -> None:
    """The chosen picture here and as PNG, all of them on the page."""
    from sightline.look.draw import draw

    draw([pictures[chosen]])
    show.plain()
    for path in files:
        page = path.suffix.lower() == ".html"
        try:
            draw(pictures if page else [pictures[chosen]], path)
        except OSError as error:
            raise CommandError(f"cannot write {path}: {reason(error)}") from None
        remark = "  (a page for any browser; it needs no network)" if page else ""
        show.fields([("written", f"{path}{remark}")])
    if words.open:
        webbrowser.open(files[0].resolve().as_uri())


def _require(path: Path | None) -> None:
    from sightline.look.draw import require

    try:
        require(path)
    except ImportError as error:
        raise CommandError(reason(error)) from None
