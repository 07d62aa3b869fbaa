"""The second pass keeps the definition: every case of the conformance table, asked in several ways."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import sightline
from cases import DTYPES, Case, Inputs, build
from conformance import CASES
from corners import put
from judge_seen import check
from sightline import Received, See, Seen, calls, plan
from sightline.cpu import isa, threads

EVERYTHING = See(received=True, top_keys=3, pooled=(5, 7), diagonals=True, rows=(0, -1))
WAYS = (
    See(received=Received(slice(1, None, 2), normalize=True, per_group=True), top_keys=9, diagonals=True),
    See(received=Received(reduce="max"), pooled=(1, 300), lse=True),
    See(received=Received(slice(-5, None)), heads=(-1, 0), rows=(-1, 0, 0)),
    See(received=Received(slice(None, 3), reduce="max"), pooled=(300, 2), entropy=True),
)
every_isa = pytest.mark.parametrize("instructions", [choice.name for choice in isa.runnable()])


def possible(request: See, inputs: Inputs, case: Case) -> See:
    """The request, without rows of no query and heads of a call that has no axis of them."""
    queries = inputs.query.shape[-3 if inputs.options.get("layout") == "BLHD" and not case.plain else -2]
    changed: dict[str, Any] = {}
    if queries < 1:
        changed["rows"] = None
    if case.plain:
        changed["heads"] = None
    fields = {name: getattr(request, name) for name in See.__slots__}
    return See(**(fields | changed))


def from_zero(request: See, case: Case) -> See:
    """Heads counted from 0, as the judge's weights have them."""
    if request.heads is None:
        return request
    fields = {name: getattr(request, name) for name in See.__slots__}
    return See(**(fields | {"heads": tuple(h % case.heads[0] for h in request.heads)}))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_everything_at_once(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instruction sets take turns."""
    choices = isa.runnable()
    monkeypatch.setenv("SIGHTLINE_ISA", choices[CASES.index(case) % len(choices)].name)
    inputs = build(case, "float32")
    request = possible(EVERYTHING, inputs, case)
    _, seen = sightline.attention(inputs.query, inputs.key, inputs.value, **inputs.options, see=request)
    check(case, "float32", seen, request)


EVERY_SECOND = CASES[::2]  # a kernel for each: all of them would be a tenth of the suite's time


@pytest.mark.parametrize("case", EVERY_SECOND, ids=lambda case: case.name)
def test_one_way_after_another_without_values(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of asking, the type and the instruction set go round, so that each meets many cases."""
    number, choices = EVERY_SECOND.index(case), isa.runnable()
    monkeypatch.setenv("SIGHTLINE_ISA", choices[number // 4 % len(choices)].name)
    dtype = ("bfloat16", "float64", "float16", "float32", "float64", "bfloat16", "float16")[number % 7]
    assert dtype in DTYPES
    inputs = build(case, dtype)
    request = possible(WAYS[number % len(WAYS)], inputs, case)
    options = {
        name: x for name, x in inputs.options.items() if name not in {"precision", "dropout_p", "seed"}
    }
    seen = sightline.look_only(inputs.query, inputs.key, **options, see=request)
    check(case, dtype, seen, from_zero(request, case))


MANY = [
    Case("in-runs", lengths=(700, 650), dims=(8, 8), options={"causal": True, "query_offset": -30}),
    Case("in-runs-window", lengths=(600, 600), dims=(8, 8), options={"window": (9, 2)}),
    Case("in-runs-nan", lengths=(530, 70), dims=(8, 8), poison=put("query", np.nan, 0, 529)),
]


@every_isa
@pytest.mark.parametrize("case", MANY, ids=lambda case: case.name)
@pytest.mark.parametrize(
    "request_",
    [
        See(received=True, top_keys=2, pooled=(9, 11), diagonals=True, rows=(0, 511, 512)),
        See(received=Received(normalize=True), pooled=(700, 30)),
        See(received=Received(slice(500, 520, 3), normalize=True), top_keys=1),
        See(received=Received(slice(None, None, -1), reduce="max")),
    ],
)
def test_queries_of_several_work_items(
    request_: See, case: Case, instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_ISA", instructions)
    inputs = build(case, "float32")
    seen = sightline.look_only(inputs.query, inputs.key, **inputs.options, see=request_)
    check(case, "float32", seen, request_)


# ── Bit for bit the same, however it is asked and however the work is cut ──

WHOLE = See(
    lse=True, received=True, top_keys=3, pooled=(5, 7), diagonals=True, rows=(0, -1), entropy=True
)  # fmt: skip
Array = np.ndarray[Any, Any]


def numbers(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Array:
    made: Array = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    return made


def parts(seen: Seen) -> dict[str, Array]:
    """Every array that was seen, by name."""
    made = {name: getattr(seen, name) for name in Seen.__slots__ if name != "top_keys"}
    if seen.top_keys is not None:
        made |= {"indices": seen.top_keys.indices, "weights": seen.top_keys.weights}
    return {name: np.ascontiguousarray(x) for name, x in made.items() if x is not None}


def same_bits(got: dict[str, Array], want: dict[str, Array]) -> None:
    assert set(got) == set(want)
    for name, x in got.items():
        assert (x.shape, x.dtype) == (want[name].shape, want[name].dtype), name
        assert x.tobytes() == want[name].tobytes(), name


@every_isa
def test_heads_that_nobody_asked_about_say_nothing(
    instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first pass leaves out for them is whatever was in memory: here NaN."""
    monkeypatch.setenv("SIGHTLINE_ISA", instructions)
    q, k = numbers(2, 4, 3, 8), numbers(2, 2, 5, 8, seed=1)
    monkeypatch.setattr("sightline.arrays.empty_like", not_a_number)
    seen = sightline.look_only(q, k, see=See(received=True, pooled=(1, 2), heads=(3, 1)))
    want = sightline.look_only(q, k, see=See(received=True, pooled=(1, 2)))
    assert want.received is not None
    assert want.pooled is not None
    np.testing.assert_array_equal(seen.received, want.received[:, [3, 1]])
    np.testing.assert_array_equal(seen.pooled, want.pooled[:, [3, 1]])


def not_a_number(like: object, shape: tuple[int, ...], dtype: str) -> Array:
    """An array as memory may have it."""
    return np.full(shape, np.nan if dtype.startswith("float") else -1, dtype)


@every_isa
def test_any_number_of_threads_sees_the_same_bits(instructions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """700 queries are two work items to a head."""
    monkeypatch.setenv("SIGHTLINE_ISA", instructions)
    monkeypatch.setattr(plan, "THREAD_FLOPS", 1.0)  # threads for the smallest call
    monkeypatch.setattr(calls, "_ready", {})
    q, k = numbers(2, 4, 700, 24), numbers(2, 2, 700, 24, seed=1)
    results = []
    for count in (1, 2, 3, 7):
        sightline.set_num_threads(count)
        results.append(parts(sightline.look_only(q, k, causal=True, see=WHOLE)))
    threads._Setting.threads = None
    for other in results[1:]:
        same_bits(other, results[0])


@every_isa
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_what_is_seen_of_a_sequence_does_not_depend_on_its_company(
    dtype: Any, instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_ISA", instructions)
    q, k = numbers(3, 4, 77, 24, dtype=dtype), numbers(3, 2, 77, 24, dtype=dtype, seed=1)
    together = parts(sightline.look_only(q, k, window=(30, 5), see=WHOLE))
    for index in range(3):
        alone = parts(sightline.look_only(q[index], k[index], window=(30, 5), see=WHOLE))
        same_bits(alone, {name: x[index] for name, x in together.items()})


@every_isa
def test_some_heads_are_what_all_heads_have_there(instructions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_ISA", instructions)
    q, k = numbers(2, 6, 90, 16), numbers(2, 3, 90, 16, seed=1)
    every = parts(sightline.look_only(q, k, causal=True, see=WHOLE))
    some = dataclasses.replace(WHOLE, heads=(5, 0, -2))
    want = {name: x[:, [5, 0, 4]] for name, x in every.items()}
    same_bits(parts(sightline.look_only(q, k, causal=True, see=some)), want)
    same_bits(parts(sightline.attention(q, k, k, causal=True, see=some)[1]), want)


@pytest.mark.parametrize("name", ["received", "top_keys", "pooled", "diagonals", "rows"])
def test_a_statistic_has_the_same_bits_whatever_else_is_seen(name: str) -> None:
    q, k = numbers(2, 150, 24), numbers(2, 150, 24, seed=1)
    alone = See(**{name: getattr(WHOLE, name)})
    together = parts(sightline.look_only(q, k, causal=True, see=WHOLE))
    for seen in (
        sightline.look_only(q, k, causal=True, see=alone),
        sightline.attention(q, k, k, causal=True, see=alone)[1],
    ):
        same_bits(parts(seen), {key: together[key] for key in parts(seen)})


def test_the_output_has_the_bits_it_has_without_looking() -> None:
    q, k, v = (numbers(2, 150, 24, seed=seed) for seed in range(3))
    out = np.empty_like(q)
    output, _ = sightline.attention(q, k, v, causal=True, see=WHOLE, out=out)
    assert output is out
    assert out.tobytes() == sightline.attention(q, k, v, causal=True).tobytes()


def test_tensors_give_tensors() -> None:
    torch = pytest.importorskip("torch")
    q, k = (torch.from_numpy(numbers(2, 70, 24, seed=seed)) for seed in range(2))
    seen = sightline.look_only(q, k, see=WHOLE)
    arrays = [getattr(seen, name) for name in ("lse", "received", "pooled", "diagonals", "rows")]
    assert seen.top_keys is not None
    assert all(isinstance(x, torch.Tensor) for x in (*arrays, *seen.top_keys))
    assert seen.top_keys.indices.dtype == torch.int64
    same_bits(parts(seen), parts(sightline.look_only(q.numpy(), k.numpy(), see=WHOLE)))


def test_memory_grows_with_the_length_and_not_with_its_square() -> None:
    program = """
import resource, numpy as np, sightline
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
see = sightline.See(received=True, top_keys=4, pooled=(64, 64), diagonals=True)
def growth(length):
    q, k = np.ones((2, 1, length, 16), np.float32)
    before = peak()
    sightline.look_only(q, k, window=(64, 0), see=see)
    return peak() - before
growth(100)
print(growth(100_000))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 48 << 20  # 16 sums of 100,000 keys and diagonals, and lists of 4: not 40 GB


# ── The judge itself ──


@pytest.mark.parametrize("field", ["received", "pooled", "diagonals", "rows", "top_keys"])
def test_the_judge_refuses_an_answer_that_is_a_thousandth_off(field: str) -> None:
    case = next(case for case in CASES if case.name == "length-65-causal")
    inputs = build(case, "float32")
    _, seen = sightline.attention(inputs.query, inputs.key, inputs.value, **inputs.options, see=EVERYTHING)
    made = {name: getattr(seen, name) for name in seen.__slots__}
    right = made[field]
    wrong = (
        right._replace(weights=right.weights * np.float32(1.001)) if field == "top_keys" else right * 1.001
    )
    check(case, "float32", sightline.Seen(**made), EVERYTHING)
    with pytest.raises(AssertionError, match=f"{field}: rounding is off"):
        check(case, "float32", sightline.Seen(**(made | {field: wrong})), EVERYTHING)


def test_the_judge_refuses_the_wrong_keys() -> None:
    case = next(case for case in CASES if case.name == "length-65-causal")
    inputs = build(case, "float32")
    request = See(top_keys=3)
    _, seen = sightline.attention(inputs.query, inputs.key, inputs.value, **inputs.options, see=request)
    indices, found = seen.top_keys
    for wrong, text in (
        (sightline.TopKeys(np.roll(indices, 1, axis=-1), found), "top_keys"),
        (sightline.TopKeys(indices, found[..., ::-1]), "top_keys"),
        (sightline.TopKeys(np.where(indices == 0, -1, indices), found), "missing"),
    ):
        with pytest.raises(AssertionError, match=text):
            check(case, "float32", sightline.Seen(top_keys=wrong), request)
    deeper = sightline.attention(
        inputs.query, inputs.key, inputs.value, **inputs.options, see=See(top_keys=4)
    )[1].top_keys
    below = sightline.TopKeys(deeper.indices[..., 1:], deeper.weights[..., 1:])
    with pytest.raises(AssertionError, match=r"missing|larger"):
        check(case, "float32", sightline.Seen(top_keys=below), request)
