"""Looks at the attention on the arrays in a file: a summary here, and a page to look around in.

The weights are never stored: a picture of a long text takes memory that grows with its length.
"""

from __future__ import annotations

import math
import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from sightline.cli import arguments, show
from sightline.cli.described import asked, options
from sightline.cli.errors import CommandError, reason
from sightline.cli.files import check_place, open_archive
from sightline.cli.inputs import call_of, read_inputs
from sightline.cli.machine import plan_of, threads
from sightline.cli.progress import Bar

if TYPE_CHECKING:
    import argparse

    from sightline.cli.inputs import Inputs
    from sightline.look.gather import Look
    from sightline.look.picture import Picture


def add_to(parser: argparse.ArgumentParser) -> None:
    """The words of this command."""
    arguments.add_file(parser, optional=False)
    looking = parser.add_argument_group("what to look at")
    looking.add_argument("--heads", type=arguments.numbers, metavar="N[,N…]", help="default: all")
    looking.add_argument("--sequence", type=arguments.count, default=0, metavar="N", help="default: 0")
    looking.add_argument(
        "--tokens",
        metavar="NAME|FILE.txt",
        help="labels of the keys: an array, or lines of a file (default: tokens, if the file has it)",
    )
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument(
        "--html", type=Path, metavar="FILE", help="the page (default: here, named as the input)"
    )
    pictures.add_argument("--no-html", action="store_true", help="no page")
    pictures.add_argument("--open", action="store_true", help="show the page in the browser")
    pictures.add_argument("--png", type=Path, metavar="FILE", help="also write a PNG")
    arguments.add_arrays(parser, values=False)
    arguments.add_options(parser)
    running = parser.add_argument_group("how to compute")
    running.add_argument("--threads", type=arguments.threads, metavar="N", help="default: one per core")


def run(words: argparse.Namespace) -> int:
    """Reads, looks, tells and writes."""
    files = _files(words)
    inputs = read_inputs(open_archive(words.file), words)
    look = _look(inputs, words)
    show.title(f"looking at {words.file}")
    show.fields([*asked(inputs), *_chosen(look, words)])
    with threads(words.threads):
        plan_of(look.call)  # an instruction set that this machine lacks is one line, not a traceback
        start = time.perf_counter()
        picture = _taken(look, inputs, words)
        show.fields([("time", show.seconds(time.perf_counter() - start))])
    _show(picture, files)
    if words.open:
        webbrowser.open(files[0].resolve().as_uri())
    return 0


def _files(words: argparse.Namespace) -> list[Path]:
    """Where to write: checked now, as it would only fail after the work is done."""
    if words.no_html and (words.html is not None or words.open):
        raise CommandError("--no-html writes no page: leave it out, or leave out --html and --open")
    page = words.html or Path(words.file.stem + ".html")
    files = [path for path in (None if words.no_html else page, words.png) if path is not None]
    for path, option, ending in ((words.html, "--html", ".html"), (words.png, "--png", ".png")):
        if path is not None and path.suffix.lower() != ending:
            raise CommandError(f"{option} {path} should end in {ending}")
    for place in (None, *files):
        _require(place)
        if place is not None:
            check_place(place)
    return files


def _require(path: Path | None) -> None:
    from sightline.look.draw import require

    try:
        require(path)
    except ImportError as error:
        raise CommandError(reason(error)) from None


def _look(inputs: Inputs, words: argparse.Namespace) -> Look:
    from sightline.look.gather import Look

    try:
        return Look.at(call_of(inputs), heads=words.heads, sequence=words.sequence)
    except ValueError as error:
        raise CommandError(reason(error)) from None


def _chosen(look: Look, words: argparse.Namespace) -> list[tuple[str, str]]:
    problem = look.call.problem
    rows = []
    if problem.batch:
        rows.append(("sequence", f"{words.sequence} of {math.prod(problem.batch)}"))
    if words.heads is not None:
        rows.append(("heads", f"{', '.join(map(str, look.heads))} of {problem.heads}"))
    return rows


def _taken(look: Look, inputs: Inputs, words: argparse.Namespace) -> Picture:
    """The picture, with a bar above it while it is taken."""
    from sightline.look.gather import take
    from sightline.look.words import labels

    problem = look.call.problem
    tokens = inputs.tokens
    if words.tokens is None and tokens is not None and len(tokens) != problem.keys:
        tokens = None  # the file has some, but not of these keys
    try:
        names = labels(tokens, problem.queries, problem.keys, int(look.call.offsets[look.batch]))
    except ValueError as error:
        raise CommandError(reason(error)) from None
    with Bar(len(look.parts()), what="looking") as bar:
        return take(look, advance=bar.advance, title=words.file.name, options=tuple(options(inputs)), **names)


def _show(picture: Picture, files: list[Path]) -> None:
    from sightline.look.draw import draw

    draw(picture)
    show.plain()
    for path in files:
        try:
            draw(picture, path)
        except OSError as error:
            raise CommandError(f"cannot write {path}: {reason(error)}") from None
        remark = "  (a page for any browser; it needs no network)" if path.suffix.lower() == ".html" else ""
        show.fields([("written", f"{path}{remark}")])
