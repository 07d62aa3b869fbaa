"""The benchmarks' own arithmetic: what they count, what they reject, what they write. No timing in tests."""

from __future__ import annotations

import ast
import csv
import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("the benchmarks are in the repository only", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from benchmarks import accuracy, check, machine, peers, results, shapes, turns, worker  # noqa: E402
from benchmarks.shapes import SHAPES, TARGETS  # noqa: E402


def attention(shape: shapes.Shape, dtype: str, allowed: np.ndarray) -> np.ndarray:
    """All heads at once, written apart from the reference."""
    query, key, value = (array.astype(np.float64) for array in shape.inputs(dtype))
    key, value = (np.repeat(array, shape.group, axis=1) for array in (key, value))
    scores = np.where(allowed, query @ key.swapaxes(-1, -2) * shape.scale, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True) @ value)


def error(shape: shapes.Shape, dtype: str, output: np.ndarray) -> float:
    return check.relative_error(check.sampled(shape, output), check.expected(shape, dtype))


ROW = results.Row(
    shape="window",
    sizes="1 8 8 4096 4096 64",
    options="window 256,0",
    dtype="float32",
    threads=2,
    isa="native",
    peer="torch",
    library="torch",
    version="2.13.0",
    rounds=7,
    calls=21,
    p20_ms=9.0,
    p50_ms=10.0,
    p80_ms=11.0,
    gflops=123.456789,
    ours_faster=9.0,
    error=4e-7,
    first_ms=12.0,
    probe_low=90.0,
    probe_best=100.0,
)


def test_every_target_names_a_shape_and_a_library_that_has_a_peer() -> None:
    libraries = {peer.library for peer in peers.PEERS.values()}
    assert TARGETS
    assert all(target.shape in SHAPES and target.library in libraries for target in TARGETS)


@pytest.mark.parametrize(
    ("name", "visible"),
    [
        ("prefill64", 4096 * 4096),
        ("prefill64-causal", 4096 * 4097 // 2),
        ("window", 257 * 4096 - 256 * 257 // 2),  # the first 256 queries see fewer
        ("documents", 8 * 512 * 512),
        ("decode", 8192),
    ],
)
def test_flops_count_visible_pairs_only(name: str, visible: int) -> None:
    shape = SHAPES[name]
    assert shape.visible() == visible
    assert shape.flops() == 2 * 2 * shape.batch * shape.heads * visible * shape.dim


def test_random_mask_leaves_no_query_without_a_key() -> None:
    allowed = SHAPES["random"].allowed()
    assert allowed.any(-1).all()
    assert 0.49 < allowed.mean() < 0.51


def test_inputs_are_the_same_each_time_and_logits_scale_the_query_exactly() -> None:
    shape = SHAPES["quick"]
    for dtype, kind in shapes.DTYPES.items():
        first, again, larger = shape.inputs(dtype), shape.inputs(dtype), shape.inputs(dtype, logits=8.0)
        assert all(array.dtype == kind for array in first)
        assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
        assert np.array_equal(larger[0].astype(np.float64), 8 * first[0].astype(np.float64))
        assert np.array_equal(larger[1], first[1])


def test_an_unknown_mask_is_named() -> None:
    shape = dataclasses.replace(SHAPES["quick"], mask="checkered")
    with pytest.raises(ValueError, match="checkered"):
        shape.allowed()


@pytest.mark.parametrize("name", ["quick", "quick-causal", "quick-window", "quick-documents"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_check_accepts_the_right_output(name: str, dtype: str) -> None:
    shape = SHAPES[name]
    found = error(shape, dtype, attention(shape, dtype, shape.allowed()))
    assert found < 1e-12
    assert not check.wrong(found, dtype)


@pytest.mark.parametrize("name", ["quick-causal", "quick-window", "quick-documents"])
def test_check_rejects_an_output_that_saw_too_much(name: str) -> None:
    shape = SHAPES[name]
    output = attention(shape, "float32", np.ones((shape.queries, shape.keys), bool))
    assert check.wrong(error(shape, "float32", output), "float32")


def test_check_rejects_swapped_heads_nan_and_lost_precision() -> None:
    shape = SHAPES["quick-causal"]
    right = attention(shape, "float32", shape.allowed())
    swapped = right[:, [0, 2, 1, 3]]  # head h reads key head h mod 2
    assert check.wrong(error(shape, "float32", swapped), "float32")
    missing = right.copy()
    missing[0, 0, 0, 0] = np.nan
    assert check.wrong(error(shape, "float32", missing), "float32")
    rounded = right.astype(np.float16).astype(np.float64)
    assert check.wrong(error(shape, "float32", rounded), "float32")
    assert not check.wrong(error(shape, "float32", rounded), "float16")


def test_check_rejects_another_shape() -> None:
    shape = SHAPES["quick"]
    with pytest.raises(ValueError, match=r"\(1, 256, 4, 64\), expected \(1, 4, 256, 64\)"):
        check.sampled(shape, np.zeros((1, 256, 4, 64)))


def test_csv_has_a_header_once_and_every_column(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.csv"
    here = machine.describe()
    results.write_csv(path, [ROW], here)
    results.write_csv(path, [dataclasses.replace(ROW, peer="openvino", ours_faster=None)], here)
    with path.open(newline="") as file:
        header, *lines = csv.reader(file)
    first, second = (dict(zip(header, line, strict=True)) for line in lines)
    assert tuple(header) == results.COLUMNS
    assert set(results.MACHINE) == set(here)
    assert {"p20_ms", "p50_ms", "p80_ms", "cpu", "date", "version", "threads"} <= set(header)
    assert (first["peer"], first["gflops"], first["ours_faster"]) == ("torch", "123.46", "9")
    assert (second["peer"], second["ours_faster"]) == ("openvino", "")


def test_the_ratio_is_taken_inside_each_round() -> None:
    # Ratios 3, 2 and 4; the medians of all rounds together, 8 and 2, would give 4.
    assert results.paired_ratio([([9.0, 9.0], [3.0]), ([2.0], [1.0]), ([8.0], [2.0])]) == 3.0
    assert results.paired_ratio([]) is None


def test_verdicts_name_the_best_peer_and_judge_by_the_librarys_fastest() -> None:
    slower = dataclasses.replace(ROW, ours_faster=9.0)
    faster = dataclasses.replace(ROW, peer="torch-additive", ours_faster=7.5)
    other = dataclasses.replace(ROW, peer="openvino", library="openvino", ours_faster=3.0)
    best, target = results.verdicts([slower, faster, other], TARGETS, peers.OURS)
    assert best.endswith("3.00× the best peer, openvino")
    assert target.endswith("7.50× torch, target 8.0×: MISSED")
    assert results.verdicts([slower], TARGETS, peers.OURS)[1].endswith("9.00× torch, target 8.0×: met")


def test_a_forced_isa_has_targets_of_its_own() -> None:
    row = dataclasses.replace(ROW, shape="bert", isa="avx2")
    assert len(results.verdicts([row], TARGETS, peers.OURS)) == 1  # the best peer, and no target
    row = dataclasses.replace(ROW, shape="prefill64", isa="avx2")
    assert len(results.verdicts([row], TARGETS, peers.OURS)) == 2


def test_a_disturbed_machine_is_marked() -> None:
    assert not results.line(ROW).endswith("~")
    assert results.line(dataclasses.replace(ROW, probe_low=79.0)).endswith("79%~")


def test_workers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    native = turns.environment(peers.PEERS["torch"], 2, None)
    forced = turns.environment(peers.PEERS["torch"], 1, "avx2")
    assert "OPENBLAS_CORETYPE" not in native
    assert "ATEN_CPU_CAPABILITY" not in native
    assert (native["OMP_NUM_THREADS"], forced["OMP_NUM_THREADS"]) == ("2", "1")
    assert forced["ATEN_CPU_CAPABILITY"] == "avx2"
    assert turns.environment(peers.PEERS[peers.OURS], 1, "avx2")["SIGHTLINE_ISA"] == "avx2"


@pytest.mark.parametrize("peer", [*peers.PEERS.values(), *peers.PROBES.values()], ids=lambda peer: peer.name)
def test_every_peer_is_where_its_row_says(peer: peers.Peer) -> None:
    module, function = peer.where.split(":")
    tree = ast.parse((ROOT / "benchmarks" / "peers" / f"{module}.py").read_text())  # without importing it
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


class Doubling(peers.Peer):
    """A peer that counts its calls."""

    def prepare(self) -> peers.Prepare:
        def prepare(case: peers.Case, threads: int) -> peers.Prepared:
            if case.shape.causal:
                raise peers.Unsupported("no causal")
            calls: list[int] = []
            expected = (case.shape.batch, case.shape.heads, case.shape.queries, case.shape.dim)
            return peers.Prepared(lambda: calls.append(1), lambda: np.full(expected, float(len(calls))))

        return prepare

    def version(self) -> str:
        return "1.2"


def test_worker_answers() -> None:
    holder = worker.Holder(Doubling("fake", "", ""), 1)
    tiny = {"dtype": "float32", "logits": 1.0, "rows": 4}
    assert worker.answer(holder, {"do": "hello"}) == {"version": "1.2"}
    assert "before prepare" in worker.answer(holder, {"do": "turn", "calls": 1, "warm": 0})["error"]
    ready = worker.answer(holder, {"do": "prepare", "shape": "tiny", **tiny})
    assert np.array(ready["sample"]).shape[-1] == 64
    assert np.all(np.array(ready["sample"]) == 2.0)  # called twice before it is looked at
    assert len(worker.answer(holder, {"do": "turn", "calls": 3, "warm": 1})["seconds"]) == 3
    refused = worker.answer(holder, {"do": "prepare", "shape": "quick-causal", **tiny})
    assert refused == {"unsupported": "no causal"}
    assert "before prepare" in worker.answer(holder, {"do": "turn", "calls": 1, "warm": 0})["error"]


def test_accuracy_verdict() -> None:
    assert accuracy.verdict({peers.OURS: 2.3e-3, "torch": 2.0e-3}).endswith("met")
    assert accuracy.verdict({peers.OURS: 2.5e-3, "torch": 2.0e-3}).endswith("MISSED")
    assert not accuracy.verdict({"torch": 2.0e-3})
