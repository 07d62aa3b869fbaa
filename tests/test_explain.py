"""`explain`: the arrays of the five steps, and tables that a person can read."""

from __future__ import annotations

import doctest
import math
from importlib import import_module

import numpy as np
import pytest

from sightline import reference
from sightline.explain import explain, plural
from sightline.tables import number_style

RNG = np.random.default_rng(2)
QUERY, KEY = RNG.standard_normal((2, 4, 3, 5)), RNG.standard_normal((2, 2, 6, 5))
VALUE = RNG.standard_normal((2, 2, 6, 7))


def test_the_example_in_the_docstring() -> None:
    results = doctest.testmod(import_module("sightline.explain"))
    assert results.attempted >= 5
    assert results.failed == 0


def test_the_arrays_are_the_reference_s() -> None:
    options = {"causal": True, "query_offset": 3, "softcap": 2.0, "mask": RNG.random((4, 3, 6)) < 0.7}
    steps = explain(QUERY, KEY, VALUE, **options)  # type: ignore[arg-type]  # of mixed types
    want = reference.attention(QUERY, KEY, VALUE, **options)
    for name in (
        "scores",
        "scaled",
        "capped",
        "masked",
        "weights",
        "output",
        "lse",
        "max_score",
        "positions",
    ):
        np.testing.assert_array_equal(getattr(steps, name), getattr(want, name), err_msg=name)


def section(text: str, title: str, which: int = 0) -> list[list[str]]:
    """The words of a table's lines under its title, in the head that comes `which`-th."""
    start = [i for i, line in enumerate(text.splitlines()) if line.startswith(title)][which]
    lines = text.splitlines()[start + 1 :]
    end = next((i for i, line in enumerate(lines) if not line), len(lines))
    return [line.split() for line in lines[:end]]


def test_the_tables_hold_the_numbers() -> None:
    steps = explain(QUERY, KEY, VALUE, causal=True, query_offset=1)
    text = str(steps)
    last = 4 + 3  # sequence 1, head 3
    for title, matrix in (("scores", steps.scores), ("scaled", steps.scaled), ("output", steps.output)):
        table = section(text, title, last)[1:]
        numbers = [[float(word) for word in line[2:]] for line in table]
        np.testing.assert_allclose(numbers, matrix[1, 3], atol=0.0005)
    weights = section(text, "weights", last)[1:]
    assert weights[0][2:] == [f"{w:.3f}" for w in steps.weights[1, 3, 0, :2]] + ["·"] * 4 + [
        "lse",
        f"{steps.lse[1, 3, 0]:.3f}",
    ]


def test_a_dot_where_a_query_does_not_see_a_key() -> None:
    seen = np.array([[True, False, True], [False, False, False]])
    text = str(explain(np.ones((2, 1)), np.ones((3, 1)), np.ones((3, 1)), mask=seen))
    assert section(text, "masked")[1:] == [
        ["query", "0", "1.000", "·", "1.000"],
        ["query", "1", "·", "·", "·", "sees", "no", "key"],
    ]


def test_columns_are_aligned() -> None:
    steps = explain(
        QUERY * [[[[1e3]], [[1]], [[1]], [[-1e2]]]] * 1.0,
        KEY,
        VALUE,
        bias=np.array([0, 0, -math.inf, 0, 0, 0]),
    )
    lines = str(steps).splitlines()
    for first, line in enumerate(lines):
        if line.endswith("key 5"):
            ends = [i + 5 for i in range(len(line)) if line.startswith("key ", i)]
            for row in lines[first + 1 : first + 4]:
                assert all(row[end - 1] != " " and row[end : end + 1] in {"", " "} for end in ends), row


def test_which_head_and_what_it_reads() -> None:
    text = str(explain(QUERY, KEY, VALUE))
    assert text.startswith(
        "attention of 3 queries to 6 keys: 4 heads on 2 key heads, D = 5, Dv = 7; scale 0.4472"
    )
    titles = [line for line in text.splitlines() if line.startswith("──")]
    assert titles[0] == "── sequence 0, head 0, which reads key head 0 ──"
    assert titles[7] == "── sequence 1, head 3, which reads key head 1 ──"


def test_options_are_named() -> None:
    text = str(
        explain(
            QUERY[0],
            KEY[0],
            VALUE[0],
            causal=True,
            window=(2, 0),
            query_offset=3,
            key_lengths=5,
            softcap=4.0,
            bias=np.zeros(6),
            alibi_slopes=np.ones(4),
            sinks=np.zeros(4),
        )
    )
    assert "softcap 4, causal, window (2, 0), key_lengths, bias, sinks, alibi_slopes" in text
    assert "masked: scaled + bias − slope · |p − j|" in text
    assert "scaled: scores × 0.4472, then softcap 4" in text


def test_heads_come_first_in_either_layout() -> None:
    plain = str(explain(QUERY, KEY, VALUE))
    assert str(explain(*(x.swapaxes(1, 2) for x in (QUERY, KEY, VALUE)), layout="BLHD")) == plain


def test_a_large_call_shows_its_beginning_and_says_so() -> None:
    steps = explain(np.ones((20, 40, 64)), np.ones((20, 50, 64)), np.ones((20, 50, 64)))
    text = str(steps)
    assert "… and 12 more heads" in text
    assert text.count("… and 28 more queries") == 8 * 5
    assert all(len(line) < 120 for line in text.splitlines())


@pytest.mark.parametrize(("queries", "keys"), [(0, 3), (3, 0), (0, 0)])
def test_empty_lengths_print(queries: int, keys: int) -> None:
    text = str(explain(np.ones((queries, 2)), np.ones((keys, 2)), np.ones((keys, 2))))
    assert f"{plural(queries, 'query')} to {plural(keys, 'key')}" in text
    assert text.count("sees no key") == (queries if keys == 0 else 0)


def test_undefined_numbers_print() -> None:
    text = str(explain(np.ones((1, 1)), np.array([[math.nan], [math.inf]]), np.ones((2, 1))))
    assert section(text, "scores")[1][2:] == ["nan", "inf"]
    assert section(text, "weights")[1][2:] == ["nan", "nan", "lse", "nan"]


@pytest.mark.parametrize(
    ("numbers", "style"),
    [
        ([0.0], ".3f"),
        ([1.5, -3], ".3f"),
        ([25.0], ".2f"),
        ([100.0], ".1f"),
        ([-4e3], ".0f"),
        ([1e5], ".0f"),
        ([1e7], ".2e"),
        ([2e-5], ".2e"),
    ],
)
def test_decimals_follow_the_largest_number(numbers: list[float], style: str) -> None:
    assert number_style(np.array(numbers)) == style
