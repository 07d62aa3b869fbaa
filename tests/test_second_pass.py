"""The second pass keeps the definition: every case of the conformance table, asked in several ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sightline
from cases import DTYPES, Case, Inputs, build
from conformance import CASES
from judge_seen import check
from sightline import Received, See
from sightline.cpu import isa

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


@every_isa
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_everything_at_once(case: Case, instructions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_ISA", instructions)
    inputs = build(case, "float32")
    request = possible(EVERYTHING, inputs, case)
    _, seen = sightline.attention(inputs.query, inputs.key, inputs.value, **inputs.options, see=request)
    check(case, "float32", seen, request)


@every_isa
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_way_after_another_without_values(
    case: Case, instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of asking and the type go round, so that each meets many cases."""
    monkeypatch.setenv("SIGHTLINE_ISA", instructions)
    number = CASES.index(case)
    dtype = ("bfloat16", "float64", "float16", "float32", "float64", "bfloat16", "float16")[number % 7]
    assert dtype in DTYPES
    inputs = build(case, dtype)
    request = possible(WAYS[number % len(WAYS)], inputs, case)
    options = {name: x for name, x in inputs.options.items() if name != "precision"}
    seen = sightline.look_only(inputs.query, inputs.key, **options, see=request)
    check(case, dtype, seen, from_zero(request, case))


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
