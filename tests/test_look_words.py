"""Tokens as people read them."""

from __future__ import annotations

import pytest

from sightline.look.words import clipped, label, labels, words


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["[CLS]", "pee", "##ped", "in", "##to", "##"], " [CLS] peeped into ##"),
        (["The", "Ġrab", "bit", "-", "hole", "Ċ"], "The rabbit-hole↵"),
        (["▁The", "▁rab", "bit", "▁"], " The rabbit ␣"),
        (["The", " rab", "bit", "\n", "\t"], "The rabbit↵⇥"),
        (["one", "two"], " one two"),
        (["", "a\x1b[31m", "\u200b"], " ␣ a�[31m �"),
        ([], ""),
    ],
)
def test_words_have_spaces_where_the_tokenizer_saw_any(tokens: list[str], text: str) -> None:
    found = words(tokens)
    assert len(found) == len(tokens)
    assert "".join(" " * word.begins + word.text for word in found) == text


@pytest.mark.parametrize(
    ("token", "name"),
    [
        ("##ped", "ped"),
        ("Ġthe", "the"),
        ("▁the", "the"),
        (" the", "the"),
        ("##", "##"),
        ("Ċ", "↵"),
        (" ", "␣"),
    ],
)
def test_labels_are_one_token(token: str, name: str) -> None:
    assert label(["x", token], 1) == name


def test_positions_without_tokens_are_numbers() -> None:
    assert label(None, 12) == "#12"


def test_clipped() -> None:
    assert clipped("conversations", 9) == "conversa…"
    assert clipped("conversa", 8) == "conversa"
    assert clipped("conversations", 9, "...") == "conver..."


def test_queries_are_named_where_they_are_known() -> None:
    tokens = list("abcde")
    same = labels(tokens, 5, 5, 0)
    assert same["query_tokens"] is same["key_tokens"]
    assert same["key_tokens"] == tuple(tokens)
    assert labels(tokens, 2, 5, 3)["query_tokens"] == ("d", "e")
    assert labels(tokens, 2, 5, 1)["query_tokens"] == ("b", "c")
    assert "query_tokens" not in labels(tokens, 2, 5, 0)  # perhaps another sequence's
    assert "query_tokens" not in labels(tokens, 2, 5, 4)
    assert labels(None, 5, 5, 0) == {}


def test_too_few_tokens() -> None:
    with pytest.raises(ValueError, match="tokens has 2 labels; expected 5, one for each key"):
        labels(["a", "b"], 5, 5, 0)
