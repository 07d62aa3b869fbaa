"""From a file and the words of the command line to the arguments of one attention call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.cli.arguments import DTYPES
from sightline.cli.errors import CommandError, listed, reason
from sightline.cli.files import BFLOAT16, Archive, Array, read_lines, read_named
from sightline.reference_call import Call
from sightline.reference_call import read as read_call

if TYPE_CHECKING:
    import argparse

SHORT = {"query": "q", "key": "k", "value": "v"}
ARRAYS = ("mask", "bias", "sinks", "alibi_slopes")
INTS = ("query_offset", "key_lengths")
PLAIN = ("causal", "window", "scale", "softcap", "layout", "precision")


@dataclass(frozen=True, slots=True)
class Inputs:
    """One call: its arrays and options as the door takes them, and what they were called."""

    query: Array
    key: Array
    value: Array
    """The keys themselves for a command that takes no values."""
    options: dict[str, Any]
    """Only what was asked for: the rest is the door's own default."""
    names: dict[str, str]
    """Argument → array in the file."""
    tokens: list[str] | None
    """What the file says the positions are, if it says."""


def read_inputs(archive: Archive, words: argparse.Namespace) -> Inputs:
    """Reads what `words` name, and converts it where they say so."""
    wanted = [argument for argument in SHORT if hasattr(words, argument)]
    names = {argument: _name(archive, argument, getattr(words, argument)) for argument in wanted}
    arrays = {argument: _numbers(archive, argument, name, words.dtype) for argument, name in names.items()}
    options: dict[str, Any] = {}
    for argument in (*ARRAYS, *INTS):
        word = getattr(words, argument)
        if word is None:
            continue
        literal = _ints(word) if argument in INTS else None
        if literal is None:
            names[argument] = word
            literal = read_named(archive, word, _option(argument))
        options[argument] = literal
    defaults = {"causal": False, "layout": "BHLD", "precision": "highest"}
    for argument in PLAIN:
        word = getattr(words, argument, None)
        if word is not None and word != defaults.get(argument):
            options[argument] = word
    arrays.setdefault("value", arrays["key"])
    return Inputs(**arrays, options=options, names=names, tokens=_tokens(archive, words))


def call_of(inputs: Inputs) -> Call:
    """The call checked and in canonical form (…, heads, tokens, size); what is wrong with it in one line."""
    try:
        return read_call(inputs.query, inputs.key, inputs.value, **inputs.options)
    except (TypeError, ValueError) as error:
        raise CommandError(reason(error)) from None


def converted(array: Array, dtype: str) -> Array:
    """The array in another type; the array itself when it has that type already."""
    return array.astype(BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype), copy=False)


def _name(archive: Archive, argument: str, word: str | None) -> str:
    """The array for `argument`: the one that was named, or the one called `query` or `q`."""
    if word is not None:
        return word
    for name in (argument, SHORT[argument]):
        if name in archive.names:
            return name
    raise CommandError(
        f"{archive.path} has no array {argument!r} or {SHORT[argument]!r} (it has {listed(archive.names)}): "
        f"say which one with --{argument} NAME"
    )


def _numbers(archive: Archive, argument: str, name: str, dtype: str | None) -> Array:
    array = read_named(archive, name, _option(argument))
    if array.dtype.kind not in "iufb" and array.dtype != BFLOAT16:
        raise CommandError(
            f"{argument} ({name!r} in {archive.path}) is of type {array.dtype}: expected {', '.join(DTYPES)}"
        )
    if dtype is not None:
        return converted(array, dtype)
    if array.dtype.name not in DTYPES:
        raise CommandError(
            f"{argument} ({name!r} in {archive.path}) is of type {array.dtype}: "
            f"expected {', '.join(DTYPES)}; --dtype float32 converts it"
        )
    return array


def _ints(word: str) -> object | None:
    """The literal numbers in `word`: one int, or an array of several; None when it is a name."""
    try:
        values = [int(part) for part in word.split(",")]
    except ValueError:
        return None
    return values[0] if len(values) == 1 else np.array(values, np.int64)


def _option(argument: str) -> str:
    return "--" + argument.replace("_", "-")


def _tokens(archive: Archive, words: argparse.Namespace) -> list[str] | None:
    """The array that is called `tokens`, if it is text, or what the words name instead."""
    word = getattr(words, "tokens", None)
    if word is not None and word.endswith(".txt"):
        return read_lines(Path(word))
    if word is None and "tokens" not in archive.names:
        return None
    tokens = read_named(archive, word or "tokens", "--tokens")
    if tokens.ndim == 1 and tokens.dtype.kind == "U":
        return [str(token) for token in tokens]
    if word is not None:
        raise CommandError(
            f"tokens ({word!r} in {archive.path}) is of type {tokens.dtype} and shape {tokens.shape}: "
            "expected a list of text"
        )
    return None
