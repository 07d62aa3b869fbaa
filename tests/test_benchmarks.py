"""The benchmarks' own arithmetic: what they count, what they reject, what they write. No timing in tests."""

from __future__ import annotations

import ast
import csv
import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

import sightline

ROOT = Path(__file__).parent.parent
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("the benchmarks are in the repository only", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from benchmarks import (  # noqa: E402
    accuracy,
    check,
    check_seen,
    machine,
    memory,
    peers,
    questions,
    results,
    seeing,
    shapes,
    turns,
    watching,
    worker,
)
from benchmarks.shapes import SHAPES  # noqa: E402
from benchmarks.targets import HIGH, TARGETS, own_verdicts, verdicts  # noqa: E402


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
    assert all(target.shape in SHAPES and target.library in libraries | {""} for target in TARGETS)
    assert {target.ours for target in TARGETS} <= set(peers.PEERS)


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
    best, target = verdicts([slower, faster, other], matrix_unit=False)
    assert best.endswith("3.00× the best peer, openvino")
    assert target.endswith("7.50× torch, target 8.0×: MISSED")
    assert verdicts([slower], matrix_unit=False)[1].endswith("9.00× torch, target 8.0×: met")


def test_matrix_units_have_targets_of_their_own() -> None:
    row = dataclasses.replace(ROW, shape="gqa", ours_faster=2.1)
    fast = dataclasses.replace(row, peer=HIGH, ours_faster=0.75)
    assert len(verdicts([row, fast], matrix_unit=False)) == 1  # the best peer, and no target
    best, highest, high = verdicts([row, fast], matrix_unit=True)
    assert best.endswith("2.10× the best peer, torch")
    assert highest.endswith("2.10× the best peer, target 2.0×: met")
    assert high.endswith(f"2.80× the best peer by {HIGH}, target 3.0×: MISSED")
    half = dataclasses.replace(row, dtype="bfloat16")
    assert verdicts([half], matrix_unit=True)[1].endswith("2.10× the best peer, target 2.5×: MISSED")


def test_a_forced_isa_has_targets_of_its_own() -> None:
    row = dataclasses.replace(ROW, shape="bert", isa="avx2")
    assert len(verdicts([row], matrix_unit=False)) == 1  # the best peer, and no target
    row = dataclasses.replace(ROW, shape="prefill64", isa="avx2")
    assert len(verdicts([row], matrix_unit=False)) == 2


def test_reading_multiplying_and_masks_are_judged_beside_ourselves() -> None:
    ours = dataclasses.replace(ROW, peer=peers.OURS, shape="decode", gigabytes=34.0, peak_read=40.0)
    (line,) = own_verdicts([ours, ROW], matrix_unit=False)
    assert line.endswith("85% of 40.0 GB/s read, target 85%: met")
    (line,) = own_verdicts([dataclasses.replace(ours, gigabytes=33.0)], matrix_unit=False)
    assert line.endswith("MISSED")
    busy = dataclasses.replace(ours, shape="prefill128", gflops=168.0, peak_gflops=200.0)
    (line,) = own_verdicts([busy], matrix_unit=False)
    assert line.endswith("84% of 200 GFLOP/s of multiply-adds, target 85%: MISSED")
    assert not own_verdicts([busy], matrix_unit=True)
    plain = dataclasses.replace(ours, shape="square2048", p50_ms=10.0)
    masked = dataclasses.replace(plain, shape="random", p50_ms=11.6)
    (line,) = own_verdicts([masked, plain, dataclasses.replace(plain, threads=1)], matrix_unit=False)
    assert line.endswith("1.16× our own without the mask, at most 1.15×: MISSED")


def test_bytes_count_each_array_once() -> None:
    assert SHAPES["decode"].bytes("bfloat16") == 2 * (2 * 32 * 128 + 2 * 8 * 8192 * 128)


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


@pytest.mark.parametrize(
    "peer",
    [*peers.PEERS.values(), *peers.PROBES.values(), *questions.QUESTIONS.values()],
    ids=lambda peer: peer.name,
)
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


def test_a_worker_has_the_clock_it_is_given() -> None:
    ticks = iter(range(100))
    holder = worker.Holder(Doubling("fake", "", ""), 1, clock=lambda: float(next(ticks)))
    holder.prepare("tiny", "float32", 1.0, 4)
    assert holder.turn(3, 1) == {"seconds": [1.0, 1.0, 1.0]}
    assert set(worker.CLOCKS) == {"wall", "thread"}


def test_peers_probes_and_questions_have_names_of_their_own() -> None:
    assert worker.named(peers.OURS) is peers.PEERS[peers.OURS]
    assert worker.named("+ received") is questions.QUESTIONS["+ received"]
    assert not set(questions.QUESTIONS) & {*peers.PEERS, *peers.PROBES}


# ── What seeing costs ──

SEEN_CASE = peers.Case(SHAPES["quick-causal"], "float32", *SHAPES["quick-causal"].inputs("float32"))
OURS = [name for name, question in questions.QUESTIONS.items() if question.library == "sightline"]


@pytest.mark.parametrize("name", OURS)
def test_every_question_is_answered_and_checked(name: str) -> None:
    prepared = questions.QUESTIONS[name].prepare()(SEEN_CASE, 1)
    prepared.call()
    assert prepared.output().shape == (1, 4, 300, 64)


@pytest.mark.parametrize("name", ["torch eager", "torch in chunks"])
def test_the_other_ways_give_the_same_answers(name: str) -> None:
    torch = pytest.importorskip("torch")
    shape = dataclasses.replace(SHAPES["quick-causal"], kv_heads=4)
    case = peers.Case(shape, "float32", *shape.inputs("float32"))
    with torch.enable_grad():  # a worker switches it off for good; other tests need it
        prepared = questions.QUESTIONS[name].prepare()(case, 1)
        prepared.call()
    assert error(shape, "float32", prepared.output()) < 1e-5


@pytest.mark.parametrize("longest", [8192, 100])
@pytest.mark.parametrize(
    "field", ["lse", "entropy", "distance", "received", "pooled", "diagonals", "rows", "top_keys"]
)
def test_a_wrong_statistic_is_named(field: str, longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Off by a thousandth; beyond LONGEST some queries and sums are looked at."""
    monkeypatch.setattr(check_seen, "LONGEST", longest)
    see = questions.QUESTIONS["everything"].see
    assert see is not None
    _, seen = sightline.attention(*SEEN_CASE[2:], causal=True, see=see)
    check_seen.check(SEEN_CASE, see, seen)
    if field == "rows" and longest == 100:
        return  # they are looked at in heads that are computed as a whole
    right = getattr(seen, field)
    wrong = right._replace(weights=right.weights * 1.001) if field == "top_keys" else right * 1.001
    with pytest.raises(ValueError, match=f"^{field} is off"):
        check_seen.check(SEEN_CASE, see, dataclasses.replace(seen, **{field: wrong}))


def test_a_definition_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(check_seen.KEPT, str(tmp_path))
    check_seen.definition.cache_clear()
    first = check_seen.definition(SHAPES["quick"], "float32")
    check_seen.definition.cache_clear()
    monkeypatch.setattr(check_seen, "_defined", None)
    again = check_seen.definition(SHAPES["quick"], "float32")
    assert first.keys() == again.keys()
    assert all(np.array_equal(first[name], again[name]) for name in first)
    check_seen.definition.cache_clear()


def test_memory_counts_returned_arrays_once() -> None:
    a, b = np.zeros(10), np.zeros((3, 4), np.float32)
    seen = sightline.Seen(lse=a, top_keys=sightline.TopKeys(b, b[:1]))
    assert memory._bytes((a, seen)) == 80 + 80 + 48 + 16
    assert memory._bytes(None) == 0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux keeps these figures in /proc")
def test_memory_of_one_call() -> None:
    found = memory.measure(questions.QUESTIONS["plain"], "quick-causal", "float32", 1, "thread")
    assert found.returned * memory.MIB == 4 * 300 * 64 * 4
    assert abs(found.growth) < 20
    assert found.seconds > 0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux keeps these figures in /proc")
def test_a_call_that_fails_says_why() -> None:
    pytest.importorskip("torch")
    with pytest.raises(RuntimeError, match="as many key heads"):
        memory.measure(questions.QUESTIONS["torch eager"], "quick-causal", "float32", 1, "thread")


def test_costs_are_judged_by_their_limits() -> None:
    row = dataclasses.replace(ROW, peer="+ received", ours_faster=1.69)
    assert "1.690×    1.70× met" in seeing.cost_line(row)
    assert "MISSED" in seeing.cost_line(dataclasses.replace(row, ours_faster=1.71))
    assert "met" not in seeing.cost_line(dataclasses.replace(row, peer="as eager"))


def test_eager_is_compared_in_time_and_memory() -> None:
    rows = [
        dataclasses.replace(ROW, peer=name, ours_faster=x)
        for name, x in (("as eager", 2.0), ("torch eager", 15.0))
    ]
    calls = [
        seeing.Call(name, "s", "float32", 2, memory.Measured(1.0, growth, 1.0))
        for name, growth in (("as eager", 2.0), ("torch eager", 101.0), ("torch in chunks", 3.0))
    ]
    time, space, chunks = seeing.against_eager(rows, calls)
    assert time.endswith("7.5× faster than torch eager, at least 8×: MISSED")
    assert space.endswith("50× less memory than torch eager, at least 50×: met")
    assert chunks.endswith("2× less memory than torch in chunks")


def test_tiles_are_counted_and_the_longest_call_judged() -> None:
    call = seeing.Call("everything", "long-131k", "float32", 1, memory.Measured(2.098176, 201.0, 1.0))
    each, most = seeing.linear([call])
    assert "1000 ns for each of the 2,098,176 visible tiles" in each
    assert most.endswith("201.0 MiB, less than 200: MISSED")


def test_memory_rows_have_every_column(tmp_path: Path) -> None:
    call = seeing.Call("everything", "long-32k", "float32", 1, memory.Measured(1.5, 4.25, 12.0))
    seeing.write([ROW], [call], machine.describe(), tmp_path / "seeing.csv")
    with (tmp_path / "seeing-memory.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["question"], row["seconds"], row["growth_mib"], row["threads"]) == (
        "everything",
        "1.5",
        "4.25",
        "1",
    )
    assert len((tmp_path / "seeing.csv").read_text().splitlines()) == 2


def test_accuracy_verdict() -> None:
    assert accuracy.verdict({peers.OURS: 2.3e-3, "torch": 2.0e-3}).endswith("met")
    assert accuracy.verdict({peers.OURS: 2.5e-3, "torch": 2.0e-3}).endswith("MISSED")
    assert not accuracy.verdict({"torch": 2.0e-3})


def test_verdicts_on_watching() -> None:
    ways = {"plain": (1.0, 10.0), "watch": (2.0, 12.0), "weights": (3.0, 121.0), "statistics": (4.0, 121.0)}
    found = {way: memory.Measured(*both, 1.0) for way, both in ways.items()}
    met = " ".join(watching.verdicts(found))
    assert "10× less" in met
    assert "2 MiB more" in met
    assert "1.50× as fast as output_attentions" in met
    assert "2.00× as fast as with the same" in met
    assert met.count(": met") == 2
    found["watch"] = memory.Measured(3.1, 12.5, 1.0)
    assert " ".join(watching.verdicts(found)).count("MISSED") == 2
