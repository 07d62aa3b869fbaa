"""`sightline look --model`: a real model reads a text, and each of its layers is looked at."""

from __future__ import annotations

import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.cli import pictures, show
from sightline.cli.errors import CommandError, reason
from sightline.cli.machine import threads

if TYPE_CHECKING:
    import argparse

    from sightline.look.picture import Picture
    from sightline.see import See
    from sightline.watching.minilm import Reader

MODELS = ("minilm",)
ABOUT_FILES = {
    **dict.fromkeys(("query", "key", "mask", "bias", "sinks", "alibi_slopes", "key_lengths", "query_offset")),
    **dict.fromkeys(("window", "scale", "softcap", "dtype", "tokens")),
    "causal": False,
    "layout": "BHLD",
    "sequence": 0,
}
"""Words that have a meaning for a file of arrays only, and their defaults."""


def add_to(parser: argparse.ArgumentParser) -> None:
    """The words."""
    model = parser.add_argument_group("a model instead of a file")
    model.add_argument("--model", choices=MODELS, help="reads the text given in place of FILE, or @FILE.txt")
    model.add_argument(
        "--layer", type=int, metavar="N", help="the layer to show here (default: 0); the page has all"
    )


def run(words: argparse.Namespace) -> int:
    """Reads, looks, tells and writes."""
    for word, default in ABOUT_FILES.items():
        if getattr(words, word) != default:
            raise CommandError(
                f"--{word.replace('_', '-')} is about the arrays of a file: leave it or --model out"
            )
    name, text = _text(words.file)
    files = pictures.places(words, words.model)
    reader = _reader()
    layers, heads = reader.model.config.num_hidden_layers, reader.model.config.num_attention_heads
    layer = 0 if words.layer is None else words.layer
    if not 0 <= layer < layers:
        raise CommandError(f"--layer {layer}: {words.model} has {layers} layers, counted from 0")
    for head in words.heads or ():
        if head >= heads:
            raise CommandError(f"--heads has {head}: {words.model} has {heads}, counted from 0")
    show.title(f"looking at {words.model} reading {name}")
    with threads(words.threads):
        start = time.perf_counter()
        found = _pictures(reader, text, words)
        took = time.perf_counter() - start
    every, length = reader.count(text), found[0].keys
    rest = "" if every == length else f"  (the first of {every:,}: the model has no more positions)"
    model = f"{layers} layers of {heads} heads"
    if words.heads is not None:
        model += f", of which {', '.join(map(str, words.heads))}"
    show.fields(
        [
            ("model", model),
            ("tokens", f"{length:,}{rest}"),
            ("time", show.seconds(took)),
            ("layer", f"{layer} here{'' if words.no_html else '; all on the page'}"),
        ]
    )
    pictures.draw(found, layer, words, files)
    return 0


def _text(word: str) -> tuple[str, str]:
    """What to call the text, and the text."""
    if not word.startswith("@"):
        shown = "".join(letter if letter.isprintable() else " " for letter in word)
        return f'"{textwrap.shorten(shown, 60, placeholder=" …")}"', word
    path = Path(word[1:])
    try:
        return str(path), path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"cannot read {path}: {reason(error)}") from None


def _reader() -> Reader:
    from sightline.watching import minilm

    try:
        return minilm.load()
    except ImportError as error:
        raise CommandError(reason(error)) from None


def _pictures(reader: Reader, text: str, words: argparse.Namespace) -> list[Picture]:
    """Each layer's picture, with maps to zoom into."""
    from sightline.watch import for_pictures

    def ask(heads: int, queries: int, keys: int) -> See:
        chosen = words.heads
        see = for_pictures(heads if chosen is None else len(chosen), queries, keys, finer=True)
        return replace(see, heads=chosen)

    found = reader.watched(text, ask).pictures(tokens=reader.tokenizer, title=words.model)
    return [replace(each, visible=_every_key(each)) for each in found]  # an encoder: each sees all


def _every_key(picture: Picture) -> Any:
    return np.full((len(picture.heads), picture.queries), picture.keys)
