"""Gradients by kernels: the cases of the conformance table against the closed form."""

from __future__ import annotations

from itertools import product

import pytest

import sightline
from cases import DTYPES, Case, build
from conformance import CASES
from judge_gradients import NAMES, check, expected
from sightline import Gradients, calls, kernel_choice
from sightline.cpu import isa
from sightline.see import PER_QUERY

WAYS = list(product(DTYPES, [choice.name for choice in isa.runnable()]))
EVERY_WAY = {"length-197-causal", "heads-6-of-2", "nan-behind-random-mask", "everything"}
# A backward kernel takes half a second to compile: most cases run in one way each, one after the other.
RUNS = [
    (case, *way)
    for number, case in enumerate(CASES)
    for way in (WAYS if case.name in EVERY_WAY else [WAYS[number % len(WAYS)]])
]


def differentiate(case: Case, dtype: str) -> Gradients:
    """The gradients of a case's inputs, from our own output and lse."""
    inputs, want = build(case, dtype), expected(case, dtype)
    given = (inputs.query, inputs.key, inputs.value)
    output, seen = sightline.attention(*given, **inputs.options, see=PER_QUERY)
    wanted = [name for name in NAMES if name in NAMES[:3] or name in inputs.options]
    return sightline.attention_vjp(
        *given, output, seen.lse, want.d_output, grad_lse=want.d_lse, wanted=wanted, **inputs.options
    )


@pytest.mark.parametrize(("case", "dtype", "instructions"), RUNS, ids=lambda x: getattr(x, "name", x))
def test_gradients(case: Case, dtype: str, instructions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_ISA", instructions)
    monkeypatch.setattr(calls, "_ready", {})  # what is planned so is not for other tests
    monkeypatch.setitem(
        kernel_choice.MATRIX_WORTH, 3, (1, 1)
    )  # float32 in three terms, though it would not pay
    check(case, dtype, differentiate(case, dtype))
