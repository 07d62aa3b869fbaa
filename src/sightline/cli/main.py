"""The way in: parses the words, runs one command, and turns every ending into an exit code.

0 done · 2 something to mend in the call · 130 interrupted · 141 nobody reads the output
"""

from __future__ import annotations

import os
import sys

from sightline import __version__
from sightline.cli import attend, bench, cache, explain, info, look
from sightline.cli.arguments import Parser
from sightline.cli.errors import CommandError, reason

COMMANDS = {"look": look, "attend": attend, "explain": explain, "bench": bench, "info": info, "cache": cache}


def main(argv: list[str] | None = None) -> int:
    """Runs the command that `argv` (default: the process's own words) asks for, and returns its exit code."""
    _printable()
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()  # a closed pipe shows itself here, not in the interpreter's shutdown
    except CommandError as error:
        print(f"sightline: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _abandon_stdout()
        return 141
    except OSError as error:  # what has no line of its own, above all output that no disk has room for
        _abandon_stdout()
        print(f"sightline: {reason(error)}", file=sys.stderr)
        return 2


def _run(argv: list[str]) -> int:
    if not argv:
        parser().print_help(sys.stderr)
        return 2
    words = parser().parse_all(argv)
    return int(COMMANDS[words.command].run(words))


def parser() -> Parser:
    """All commands and their options."""
    top = Parser(prog="sightline", description="Scaled dot-product attention on the CPU, fast and exact.")
    top.add_argument("--version", action="version", version=f"sightline {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, command in COMMANDS.items():
        summary = (command.__doc__ or "").splitlines()[0]
        command.add_to(commands.add_parser(name, help=summary, description=summary))
    return top


def _printable() -> None:
    """Lets a terminal that has no × or µ show a question mark, and a closed stdout show nothing, not fail."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - until the process ends
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _abandon_stdout() -> None:
    """Sends what is still to be flushed nowhere, so that the interpreter's last flush is quiet too."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
