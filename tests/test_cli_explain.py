"""`explain` shows the five steps of the reference on what was cut out, under the right names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from command import EXAMPLE, assert_one_line, normal, sightline, write_npz
from sightline import reference
from sightline.cli import explain
from sightline.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

STEPS = ["1 scores", "2 scaled", "3 masked", "4 weights", "5 output"]


def blocks(out: str) -> dict[str, list[str]]:
    """The lines under each step's heading."""
    parts = [part.splitlines() for part in out.split("\n\n")[1:]]
    assert [lines[0][:9].strip() for lines in parts] == STEPS
    return {step[2:]: lines[1:] for step, lines in zip(STEPS, parts, strict=True)}


def values(lines: list[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The numbers of a table, with −∞ for a dot."""
    rows = [line.split("│")[0].split()[1:] for line in lines[1:]]
    return np.array([[-np.inf if word == "·" else float(word) for word in row] for row in rows])


def test_without_a_file_it_shows_what_the_package_carries() -> None:
    done = sightline("explain")
    assert (done.returncode, done.stderr) == (0, "")
    found = blocks(done.stdout)
    words = ["[CLS]", "alice", "was", "beginning", "to", "get", "very", "tired"]
    assert [line.split()[0] for line in found["weights"][1:]] == words
    weights = values(found["weights"])
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=0.04)
    ahead = np.diagonal(weights, 1)[2:]  # from "was" on, the next word has most of the weight
    assert (ahead > 0.7).all()
    assert max(len(line) for line in done.stdout.splitlines()) <= 80


def test_the_numbers_are_those_of_the_cut_call(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--head", "9", "--queries", "100:104", "--keys", "98:106", "--causal"]
    assert main(["explain", str(EXAMPLE), *words]) == 0
    out = capsys.readouterr().out
    found = blocks(out)
    arrays = np.load(EXAMPLE)
    q, k, v = arrays["query"][9, 100:104], arrays["key"][9, 98:106], arrays["value"][9, 98:106]
    steps = reference.attention(q, k, v, causal=True, query_offset=2)
    np.testing.assert_allclose(values(found["scores"]), steps.scores, atol=0.006)
    np.testing.assert_allclose(values(found["scaled"]), steps.scaled, atol=0.006)
    np.testing.assert_allclose(values(found["masked"]), steps.masked, atol=0.006)
    weights = np.where(steps.seen, steps.weights, -np.inf)
    np.testing.assert_allclose(values(found["weights"]), weights, atol=0.006)
    np.testing.assert_allclose(values(found["output"]), steps.output[:, :8], atol=0.006)
    assert [line.split()[0] for line in found["scores"][1:]] == [str(t) for t in arrays["tokens"][100:104]]
    assert "98 to 105 of 470" in out
    assert "· is not seen (causal)" in out
    assert "(the first 8 of 32 numbers)" in out


def test_every_option_takes_part_in_the_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask, bias, sinks, slopes = normal(4, 5, 7) > -1, normal(5, 7), normal(4), normal(4)
    lengths, offsets = np.array([7, 5]), np.array([0, 2])
    path = write_npz(tmp_path, m=mask, b=bias, s=sinks, a=slopes, n=lengths, o=offsets)
    named = ["--mask", "m", "--bias", "b", "--sinks", "s", "--alibi-slopes", "a"]
    named += [
        "--key-lengths",
        "n",
        "--query-offset",
        "o",
        "--softcap",
        "3",
        "--scale",
        "0.4",
        "--window",
        "3,3",
    ]
    named += ["--scale", "0.4", "--window", "3,3"]
    where = ["--sequence", "1", "--head", "3", "--queries", "1:4", "--keys", "2:7"]
    assert main(["explain", str(path), *named, *where]) == 0
    out = capsys.readouterr().out
    arrays = np.load(path)
    q, k, v = arrays["query"][1, 3:, 1:4], arrays["key"][1, 1:, 2:7], arrays["value"][1, 1:, 2:7]
    steps = reference.attention(
        *(q, k, v),
        mask=mask[3:, 1:4, 2:7],
        bias=bias[1:4, 2:7],
        sinks=sinks[3:],
        alibi_slopes=slopes[3:],
        key_lengths=3,
        query_offset=1,
        softcap=3.0,
        scale=0.4,
        window=(3, 3),
    )
    found = blocks(out)
    np.testing.assert_allclose(values(found["scaled"]), steps.capped[0], atol=0.006)
    np.testing.assert_allclose(values(found["masked"]), steps.masked[0], atol=0.006)
    np.testing.assert_allclose(values(found["output"]), steps.output[0], atol=0.006)
    assert "sequence    1 of 2" in out
    assert "with bias and ALiBi slopes added, · is not seen (mask, window, key lengths)" in out
    assert "scores × 0.4, then 3 · tanh(score / 3)" in out
    assert "less what the sink takes" in out


def test_a_mask_that_hides_nothing_is_not_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    assert blocks(capsys.readouterr().out)["masked"] == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--head", "12"], "--head 12: the file has 12 heads, counted from 0"),
        (["--sequence", "1"], "--sequence 1: the file has 1 sequences"),
        (["--queries", "470"], "--queries: nothing to show; the file has 470, counted from 0"),
        (["--keys", "5:5"], "--keys: nothing to show"),
        (["--keys", "0:13"], "--keys 0:13: at most 12 fit on a page"),
        (["--keys", "a:b"], "'a' is not a whole number"),
    ],
)
def test_what_is_not_there(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert_one_line(main(["explain", str(EXAMPLE), *words]), *capsys.readouterr(), expected)


def test_a_single_row_and_an_open_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(EXAMPLE), "--queries", "3", "--keys", "465:"]) == 0
    found = blocks(capsys.readouterr().out)
    assert values(found["weights"]).shape == (1, 5)
    assert found["weights"][0].split()[-1] == "[SEP]"


def test_numbers_keep_their_columns() -> None:
    row = np.array([[0.0, -99.994, -1234.5, np.nan, np.inf, -np.inf]])
    header, line = explain._table(row, ["a rather long name"], list("abcdef"), ~np.isneginf(row))
    assert line == "  a rather…      0   -100  -1234    nan    inf      ·"
    assert len(header) == len(line)


def test_numbers_too_small_for_decimals_are_powers_of_ten(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--scale", "1e-6", "--queries", "0"]) == 0
    (line,) = blocks(capsys.readouterr().out)["scaled"][1:]
    assert line.split()[1:4] == ["2.04e-05", "-1.94e-06", "-1.17e-05"]


def test_shades_grow_with_the_weight() -> None:
    row = [0.0, 0.12, 0.13, 0.37, 0.38, 0.62, 0.63, 0.87, 0.88, 1.0, np.nan]
    assert "".join(map(explain._shade, row)) == "  ░░▒▒▓▓██?"
