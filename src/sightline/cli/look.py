"""Looks at the attention on the arrays in a file: a summary here, and a page to look around in.

The weights are never stored: a picture of a long text takes memory that grows with its length.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sightline.cli import arguments, look_model, pictures, show
from sightline.cli.described import asked, options
from sightline.cli.errors import CommandError, reason
from sightline.cli.files import open_archive
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
    parser.add_argument(
        "file", metavar="FILE", help=".npz or .safetensors; with --model, a text or @FILE.txt"
    )
    looking = parser.add_argument_group("what to look at")
    looking.add_argument("--heads", type=arguments.numbers, metavar="N[,N…]", help="default: all")
    looking.add_argument("--sequence", type=arguments.count, default=0, metavar="N", help="default: 0")
    looking.add_argument(
        "--tokens",
        metavar="NAME|FILE.txt",
        help="labels of the keys: an array, or lines of a file (default: tokens, if the file has it)",
    )
    pictures.add_to(parser)
    look_model.add_to(parser)
    arguments.add_arrays(parser, values=False)
    arguments.add_options(parser)
    running = parser.add_argument_group("how to compute")
    running.add_argument("--threads", type=arguments.threads, metavar="N", help="default: one per core")


def run(words: argparse.Namespace) -> int:
    """Reads, looks, tells and writes."""
    if words.model is not None:
        return look_model.run(words)
    if words.layer is not None:
        raise CommandError("--layer is for --model: a file has one layer")
    words.file = Path(words.file)
    files = pictures.places(words, words.file.stem)
    inputs = read_inputs(open_archive(words.file), words)
    look = _look(inputs, words)
    show.title(f"looking at {words.file}")
    show.fields([*asked(inputs), *_chosen(look, words)])
    with threads(words.threads):
        plan_of(look.call)  # an instruction set that this machine lacks is one line, not a traceback
        start = time.perf_counter()
        picture = _taken(look, inputs, words)
        show.fields([("time", show.seconds(time.perf_counter() - start))])
    pictures.draw([picture], 0, words, files)
    return 0


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
