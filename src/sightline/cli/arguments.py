"""The words of the command line: every option of attention, read strictly, each mistake one line."""

from __future__ import annotations

import argparse
import difflib
from pathlib import Path
from typing import NoReturn

from sightline.cli.errors import CommandError

DTYPES = ("float64", "float32", "float16", "bfloat16")


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors that name the likely meaning, and no guessing at shortened options."""

    def __init__(self, **settings: object) -> None:
        wide = lambda prog: argparse.HelpFormatter(prog, max_help_position=28, width=100)  # noqa: E731
        super().__init__(**{"allow_abbrev": False, "formatter_class": wide, **settings})  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """One line instead of argparse's usage and line."""
        raise CommandError(f"{message} (see {self.prog} --help)")

    def parse_all(self, argv: list[str]) -> argparse.Namespace:
        """Parses everything, or says which option is unknown and which one it resembles."""
        options, unknown = self.parse_known_args(argv)
        if unknown:
            command = self._commands().get(getattr(options, "command", ""), self)
            command.error(_unknown(unknown[0], list(command._option_string_actions)))
        return options

    def _commands(self) -> dict[str, argparse.ArgumentParser]:
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                return dict(action.choices)
        return {}


def _unknown(word: str, known: list[str]) -> str:
    if not word.startswith("-"):
        return f"unexpected argument {word!r}"
    near = difflib.get_close_matches(word.partition("=")[0], known, n=1)
    return f"unknown option {word}" + (f"; did you mean {near[0]}?" if near else "")


def window(text: str) -> tuple[int | None, int | None]:
    """`L,R`: keys seen to the left and to the right of a query's own position; `none` for no limit."""
    sides = text.split(",")
    if len(sides) != 2:
        raise argparse.ArgumentTypeError(f"{text!r} should be L,R, such as 256,0 or none,128")
    left, right = (None if side.strip().lower() in {"none", ""} else count(side) for side in sides)
    return left, right


def span(text: str) -> slice:
    """`START:END` or one position."""
    start, colon, end = text.partition(":")
    if not colon:
        return slice(count(start), count(start) + 1)
    return slice(count(start) if start else 0, count(end) if end else None)


def threads(text: str) -> int:
    """A number of threads."""
    number = count(text)
    if number == 0:
        raise argparse.ArgumentTypeError("0 threads cannot work: say 1 or more")
    return number


def count(text: str) -> int:
    """A whole number, 0 or more."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is negative: expected 0 or more")
    return value


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them."""
    return tuple(count(part) for part in text.split(","))


def add_arrays(parser: argparse.ArgumentParser, *, values: bool = True) -> None:
    """Which arrays of the file are which."""
    names = parser.add_argument_group("arrays in the file (names)")
    names.add_argument("--query", metavar="NAME", help="default: query, or else q")
    names.add_argument("--key", metavar="NAME", help="default: key, or else k")
    if values:
        names.add_argument("--value", metavar="NAME", help="default: value, or else v")
    names.add_argument("--mask", metavar="NAME", help="booleans, True = may attend")
    names.add_argument("--bias", metavar="NAME", help="numbers added to the scores")
    names.add_argument("--sinks", metavar="NAME", help="one logit per query head, in the denominator only")
    names.add_argument("--alibi-slopes", metavar="NAME", help="one slope per query head")
    names.add_argument("--key-lengths", metavar="NAME|N[,N…]", help="how many keys each sequence has")
    names.add_argument(
        "--query-offset", metavar="NAME|N[,N…]", help="position of each sequence's first query"
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """How to attend: the options of `sightline.attention`."""
    options = parser.add_argument_group("how to attend")
    options.add_argument("--causal", action="store_true", help="a query sees no later position")
    options.add_argument(
        "--window",
        type=window,
        metavar="L,R",
        help="a query sees L positions back and R ahead; none: no limit",
    )
    options.add_argument("--scale", type=float, metavar="X", help="default: 1/√D")
    options.add_argument("--softcap", type=float, metavar="X", help="scores become X·tanh(score/X)")
    options.add_argument(
        "--layout", choices=("BHLD", "BLHD"), default="BHLD", help="order of heads and tokens"
    )
    options.add_argument("--dtype", choices=DTYPES, help="convert query, key and value first")


def add_file(parser: argparse.ArgumentParser, *, optional: bool) -> None:
    """The file of arrays."""
    parser.add_argument(
        "file", type=Path, metavar="FILE", nargs="?" if optional else None, help=".npz or .safetensors"
    )
