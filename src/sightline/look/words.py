"""Tokens as people read them: without the marks that tokenizers put at the beginning of words."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

BEGINS = ("Ġ", "▁", " ")  # GPT-2's, SentencePiece's and plain text's mark of a new word
CONTINUES = "##"  # WordPiece's mark of a word that goes on
LINE_ENDS = {"Ċ": "↵", "\n": "↵", "\r": "↵", "\t": "⇥", "ĉ": "⇥"}


class Word(NamedTuple):
    """One token to be shown."""

    text: str
    begins: bool
    """Whether a space belongs before it."""


def words(tokens: Sequence[str]) -> list[Word]:
    """The tokens with spaces where their tokenizer saw any: by the mark that most of them use, if they do."""
    counts = {mark: sum(token.startswith(mark) for token in tokens) for mark in (*BEGINS, CONTINUES)}
    mark = max(counts, key=lambda known: counts[known])
    if not counts[mark]:
        mark = CONTINUES
    return [_word(token, mark) for token in tokens]


def label(tokens: Sequence[str] | None, index: int) -> str:
    """What to call the position `index`: its token, else its number."""
    if tokens is None:
        return f"#{index}"
    token = tokens[index]
    for mark in (*BEGINS, CONTINUES):
        if len(token) > len(mark) and token.startswith(mark):
            token = token[len(mark) :]
            break
    return _visible(token)


def labels(tokens: Sequence[str] | None, queries: int, keys: int, offset: int) -> dict[str, Any]:
    """`tokens` as the labels of the keys, and of the queries if they are the same sequence.

    Raises:
        ValueError: there is not one for each key.
    """
    if tokens is None:
        return {}
    if len(tokens) != keys:
        raise ValueError(f"tokens has {len(tokens)} labels; expected {keys}, one for each key.")
    names = tuple(map(str, tokens))
    if queries == keys and offset == 0:
        return {"key_tokens": names, "query_tokens": names}
    if 0 < offset <= keys - queries:  # the sequence's last part, or another, asks about all of it
        return {"key_tokens": names, "query_tokens": names[offset : offset + queries]}
    return {"key_tokens": names}


def clipped(text: str, width: int, ellipsis: str = "…") -> str:
    """The text, or as much of its beginning as fits in `width` characters, with an ellipsis."""
    return text if len(text) <= width else text[: max(width - len(ellipsis), 0)] + ellipsis


def _word(token: str, mark: str) -> Word:
    if mark == CONTINUES:
        goes_on = len(token) > len(mark) and token.startswith(mark)
        return Word(_visible(token[len(mark) :] if goes_on else token), not goes_on)
    begins = token.startswith(mark)
    return Word(_visible(token[len(mark) :] if begins else token), begins)


def _visible(text: str) -> str:
    """The text with something to see for each thing that would show nothing, or move the cursor."""
    shown = "".join(
        LINE_ENDS.get(letter, letter if unicodedata.category(letter)[0] != "C" else "�") for letter in text
    )
    return shown if shown.strip() else "␣" * max(len(shown), 1)
