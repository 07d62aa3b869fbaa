"""The five steps of attention on a few words: scores, scaled, masked, weights, output.

Without a file it takes eight words that come with the package, of a MiniLM head that looks one word ahead.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.cli import arguments, show
from sightline.cli.errors import CommandError
from sightline.cli.files import open_archive
from sightline.cli.inputs import call_of, read_inputs
from sightline.parts import Part
from sightline.parts import arguments as arguments_of
from sightline.tables import table

if TYPE_CHECKING:
    import argparse

    from sightline.cli.inputs import Inputs
    from sightline.reference import Steps
    from sightline.reference_call import Array, Bool, Call

SMALL = Path(__file__).with_name("alice.npz")
FEW = 8  # queries and keys shown unless asked otherwise
MOST = 12  # more do not fit on a page
MARGIN, CELL = 11, 6  # characters for a row's name and for a number: eight words and their shades on 80
SHADES = " ░▒▓█"  # of a weight: below 1/8, from 1/8, 3/8, 5/8 and 7/8


def add_to(parser: argparse.ArgumentParser) -> None:
    """The words of this command."""
    arguments.add_file(parser, optional=True)
    chosen = parser.add_argument_group("what to show")
    chosen.add_argument("--sequence", type=arguments.count, default=0, metavar="N", help="default: 0")
    chosen.add_argument("--head", type=arguments.count, default=0, metavar="N", help="default: 0")
    chosen.add_argument("--queries", type=arguments.span, metavar="A:B", help=f"default: the first {FEW}")
    chosen.add_argument("--keys", type=arguments.span, metavar="A:B", help=f"default: the first {FEW}")
    arguments.add_arrays(parser)
    arguments.add_options(parser)


def run(words: argparse.Namespace) -> int:
    """Cuts a small call out of the file and shows its steps."""
    from sightline.reference import one_head
    from sightline.reference_call import read

    path = words.file or SMALL
    inputs = read_inputs(open_archive(path), words)
    call = call_of(inputs)
    sequence = _index(words.sequence, call.problem.batch, "--sequence", "sequences")
    (head,) = _index(words.head, (call.problem.heads,), "--head", "heads")
    rows = _few(words.queries, call.problem.queries, "--queries")
    keys = _few(words.keys, call.problem.keys, "--keys")
    arrays, options = _cut(call, sequence, head, rows, keys)
    small = read(*arrays, **options)
    steps = one_head(small, (0,) * (len(small.problem.batch) + 1))

    source = f"{path}" if words.file else "eight words of Alice, as one head of MiniLM reads them"
    show.title(f"five steps of attention: {source}")
    show.fields(_what(call, words, rows, keys))
    for line in _steps(steps, call, _names(inputs, call, rows, keys)):
        show.plain(line)
    return 0


def _index(number: int, shape: tuple[int, ...], option: str, things: str) -> tuple[int, ...]:
    """Which one, counted through all axes of `shape`."""
    count = int(np.prod(shape, dtype=np.int64))
    if number >= count:
        raise CommandError(f"{option} {number}: the file has {count} {things}, counted from 0")
    return tuple(int(i) for i in np.unravel_index(number, shape)) if shape else ()


def _few(span: slice | None, length: int, option: str) -> slice:
    """The rows or columns to show; at least one, at most `MOST`."""
    start, end = (0, FEW) if span is None else (span.start, span.stop)
    end = length if end is None else min(end, length)
    if end <= start:
        raise CommandError(f"{option}: nothing to show; the file has {length}, counted from 0")
    if end - start > MOST:
        raise CommandError(f"{option} {start}:{end}: at most {MOST} fit on a page")
    return slice(start, end)


def _cut(
    call: Call, sequence: tuple[int, ...], head: int, rows: slice, keys: slice
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A call of one head in which only these queries and keys take part, each at its own position."""
    part = Part(tuple(slice(i, i + 1) for i in sequence), slice(head, head + 1), rows)
    (query, key, value), options = arguments_of(call, part)
    for name in ("mask", "bias"):
        if name in options:
            options[name] = options[name][..., keys]
    options["query_offset"] = options["query_offset"] - keys.start
    if "key_lengths" in options:
        options["key_lengths"] = np.clip(options["key_lengths"] - keys.start, 0, keys.stop - keys.start)
    return (query, key[..., keys, :], value[..., keys, :]), options


def _what(call: Call, words: argparse.Namespace, rows: slice, keys: slice) -> list[tuple[str, str]]:
    problem = call.problem
    shown = [("head", f"{words.head} of {problem.heads}")]
    if problem.batch:
        shown.insert(0, ("sequence", f"{words.sequence} of {int(np.prod(problem.batch))}"))
    shown.append(("queries", f"{rows.start} to {rows.stop - 1} of {problem.queries}, one a row"))
    alone = "; the others are left out" if keys.stop - keys.start < problem.keys else ""
    shown.append(("keys", f"{keys.start} to {keys.stop - 1} of {problem.keys}, one a column{alone}"))
    return shown


def _names(inputs: Inputs, call: Call, rows: slice, keys: slice) -> tuple[list[str], list[str]]:
    """What to call the rows and the columns: the tokens where the file has them, else numbers."""

    def named(length: int, span: slice) -> list[str]:
        if inputs.tokens is not None and len(inputs.tokens) == length:
            return inputs.tokens[span]
        return [str(i) for i in range(span.start, span.stop)]

    return named(call.problem.queries, rows), named(call.problem.keys, keys)


def _steps(steps: Steps, call: Call, names: tuple[list[str], list[str]]) -> list[str]:
    rows, keys = names
    dim = steps.output.shape[-1]
    shown = min(dim, FEW)
    numbers = [f"v{i}" for i in range(shown)]
    more = f" (the first {shown} of {dim} numbers)" if shown < dim else ""
    unchanged = np.array_equal(steps.masked, steps.capped, equal_nan=True)
    shades = [f"   │{''.join(map(_shade, row))}│" for row in steps.weights]
    blocks = [
        ("1 scores", "query · key: how well they match", _table(steps.scores, rows, keys)),
        ("2 scaled", _scaling(call), _table(steps.capped, rows, keys)),
        ("3 masked", _masking(call), [] if unchanged else _table(steps.masked, rows, keys, steps.seen)),
        ("4 weights", _softmax(call), _table(steps.weights, rows, keys, steps.seen, shades)),
        ("5 output", f"Σ weight · value{more}", _table(steps.output[:, :shown], rows, numbers)),
    ]
    return [line for name, what, lines in blocks for line in ("", f"{name:<11} {what}", *lines)]


def _table(
    matrix: Array,
    rows: list[str],
    columns: list[str],
    seen: Bool | None = None,
    notes: list[str] | None = None,
) -> list[str]:
    names, heads = (
        [f"  {_short(name, MARGIN - 2)}" for name in rows],
        [_short(name, CELL) for name in columns],
    )
    return table(matrix, names, heads, seen, notes, margin=MARGIN, gap=1, width=CELL)


def _short(word: str, width: int) -> str:
    return word if len(word) <= width else word[: width - 1] + "…"


def _shade(weight: float) -> str:
    return "?" if np.isnan(weight) else SHADES[int(np.clip(weight * 4 + 0.5, 0, 4))]


def _scaling(call: Call) -> str:
    problem = call.problem
    usual = f", which is 1/√{problem.dim}" if np.isclose(problem.scale, problem.dim**-0.5) else ""
    cap = "" if problem.softcap is None else f", then {problem.softcap:g} · tanh(score / {problem.softcap:g})"
    return f"scores × {problem.scale:.4g}{usual}{cap}"


def _masking(call: Call) -> str:
    problem = call.problem
    added = [
        name for name, there in (("bias", problem.bias), ("ALiBi slopes", problem.alibi_slopes)) if there
    ]
    hidden = [name for name, there in (("mask", problem.mask), ("causal", problem.causal)) if there]
    hidden += [
        name for name, there in (("window", problem.window), ("key lengths", problem.key_lengths)) if there
    ]
    words = [f"with {' and '.join(added)} added"] if added else []
    if hidden:
        words.append(f"· is not seen ({', '.join(hidden)})")
    return ", ".join(words) or "every query sees every key: the scores stay as they are"


def _softmax(call: Call) -> str:
    sink = ", less what the sink takes" if call.problem.sinks is not None else ""
    return f"softmax: exp(score) / Σ exp(score), so that each row sums to 1{sink}"
