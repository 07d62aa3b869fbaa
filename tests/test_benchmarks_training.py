"""benchmarks.training: whose gradients are right, and what is made of the figures. No timing in tests."""

from __future__ import annotations

import csv
import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("the benchmarks are in the repository only", allow_module_level=True)
sys.path.insert(0, str(ROOT))
torch: Any = pytest.importorskip("torch")

from benchmarks import check, check_gradients, field, machine, peers, results, training, worker  # noqa: E402
from benchmarks.shapes import SHAPES  # noqa: E402

SHAPE = dataclasses.replace(SHAPES["quick-causal"], batch=2)


def in_full(dtype: str = "float32", logits: float = 1.0) -> list[np.ndarray]:
    """By PyTorch's autograd in float64, written apart from the definition."""
    query, key, value = (
        torch.from_numpy(x.astype(np.float64)).requires_grad_() for x in SHAPE.inputs(dtype, logits)
    )
    keys, values = (x.repeat_interleave(SHAPE.group, 1) for x in (key, value))
    scores = (query @ keys.transpose(-1, -2) * SHAPE.scale).masked_fill(
        ~torch.from_numpy(SHAPE.allowed()), -torch.inf
    )
    output = scores.softmax(-1) @ values
    d_output = torch.from_numpy(check_gradients.d_output(SHAPE, dtype).astype(np.float64))
    return [x.numpy() for x in torch.autograd.grad(output, (query, key, value), d_output)]


def errors(gradients: list[np.ndarray], dtype: str = "float32", logits: float = 1.0) -> dict[str, float]:
    sample = {name: x.tolist() for name, x in check_gradients.sampled(SHAPE, gradients).items()}
    return check_gradients.errors(SHAPE, dtype, logits, sample)


@pytest.mark.parametrize(("dtype", "logits"), [("float32", 1.0), ("float32", 40.0), ("bfloat16", 1.0)])
def test_the_right_gradients_have_no_error(dtype: str, logits: float) -> None:
    assert max(errors(in_full(dtype, logits), dtype, logits).values()) < 1e-11


def test_heads_swapped_a_row_missing_and_nan_are_wrong() -> None:
    query, key, value = in_full()
    swapped = errors([query, key[:, ::-1], value])
    assert not check.wrong(swapped["query"], "float32")
    assert check.wrong(swapped["key"], "float32")
    last = value.copy()
    last[-1, -1, -1] = 0.0
    assert check.wrong(errors([query, key, last])["value"], "float32")
    query[0, 0, 0, 0] = np.nan
    assert check.wrong(errors([query, key, value])["query"], "float32")


def test_gradients_of_another_shape_are_named() -> None:
    query, key, value = in_full()
    with pytest.raises(
        ValueError, match=r"gradient of the key has shape \(2, 4, 300, 64\), expected \(2, 2,"
    ):
        check_gradients.sampled(SHAPE, [query, key.repeat(2, 1), value])


@pytest.mark.parametrize("peer", peers.STEPS.values(), ids=peers.STEPS.keys())
def test_every_peer_gives_what_its_name_says(peer: peers.Peer) -> None:
    assert worker.named(peer.name) is peer
    prepared = peer.prepare()(peers.Case(SHAPE, "float32", *SHAPE.inputs("float32")), 1)
    prepared.call()
    output = check.sampled(SHAPE, prepared.output())
    assert check.relative_error(output, check.expected(SHAPE, "float32")) < 1e-6
    assert (prepared.gradients is not None) == peer.name.endswith("step")
    if prepared.gradients is not None:
        assert max(errors(prepared.gradients()).values()) < 1e-6


def test_a_worker_sends_the_rows_that_are_checked() -> None:
    holder = worker.Holder(peers.STEPS["torch step"], 1)
    reply = holder.prepare("quick-causal", "float32", 1.0, 4)
    shapes = {name: np.array(x).shape for name, x in reply["gradients"].items()}
    rows = len(check_gradients.rows(300))
    assert shapes == {"query": (4, rows, 64), "key": (2, rows, 64), "value": (2, rows, 64)}


class Answering:
    """A worker whose gradients are off by a factor."""

    def __init__(self, factor: float) -> None:
        self.peer, self.factor = peers.STEPS["torch step"], factor

    def ask(self, do: str, **_: object) -> dict[str, Any]:
        output = check.expected(SHAPE, "float32", 1.0, 4)
        gradients = check_gradients.expected(SHAPE, "float32")
        sample = {name: (x * self.factor).tolist() for name, x in gradients.items()}
        return {"first": 1.0, "second": 1.0, "sample": output.tolist(), "gradients": sample} if do else {}

    def settle(self) -> None:
        pass


def test_a_peer_with_wrong_gradients_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    made: Any = object.__new__(field.Field)
    made.workers = {"right": Answering(1 + 1e-6), "wrong": Answering(1.001), "undefined": Answering(np.nan)}
    (kept,) = made.checked(SHAPE, "float32", rows=4)
    assert kept[0] == "right"
    assert kept[1].gradients == pytest.approx(dict.fromkeys(check_gradients.NAMES, 1e-6), rel=1e-3)
    assert capsys.readouterr().out.count("WRONG") == 2


_FIELDS: dict[str, Any] = {
    **dict.fromkeys(("sizes", "options", "isa", "library", "version"), ""),
    **dict.fromkeys(("p20_ms", "p50_ms", "p80_ms", "gflops", "error", "first_ms"), 2.0),
    **dict.fromkeys(("rounds", "calls", "threads"), 1),
}
ROW = results.Row(
    shape="gqa",
    dtype="float32",
    peer="torch step",
    ours_faster=1.5,
    probe_low=79.0,
    probe_best=100.0,
    **_FIELDS,
)


def test_lines_and_verdicts() -> None:
    assert " ".join(training.line(ROW).split()) == "gqa float32 1 torch step 2 2 2 2.0 1.50 79%~"
    theirs = {"query": 2e-7, "key": 2e-7, "value": 1e-7}
    met = training.error_line("gqa", "float32", 8.0, {"query": 2e-7, "key": 1e-7, "value": 1.2e-7}, theirs)
    assert "d_key 1.00e-07, 0.50×" in met
    assert met.endswith("met")
    missed = training.error_line("gqa", "float32", 8.0, {"query": 2e-7, "key": 1e-7, "value": 1.3e-7}, theirs)
    assert missed.endswith("MISSED")
    assert not training.error_line("gqa", "float32", 8.0, {}, theirs)


def test_every_product_is_counted() -> None:
    class Timed:
        def cell(self, *_: object) -> list[results.Row]:
            return [ROW]

    timed: Any = Timed()
    effort = field.Effort(1, 1.0)
    assert [training.timed(timed, part, "gqa", "float32", effort)[0].gflops for part in training.PARTS] == [
        2,
        7,
    ]


def test_rows_are_written_with_the_errors_of_their_gradients(tmp_path: Path) -> None:
    found = {("gqa", "float32", "torch step"): {"query": 1e-7, "key": 2e-7, "value": 3e-7}}
    forward = dataclasses.replace(ROW, peer="torch forward")
    training.write(tmp_path / "training.csv", [forward, ROW], found, machine.describe())
    with (tmp_path / "training.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["d_key_error"], second["d_key_error"]) == ("", "2e-07")
    assert tuple(second) == training.COLUMNS
