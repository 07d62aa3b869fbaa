"""The kernels keep the definition: every case of the conformance table, in every type, on every ISA here."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import matrix_unit
import sightline
from cases import DTYPES, Case, build
from conformance import CASES
from judge import arithmetic, check, expected
from sightline import reference
from sightline.cpu import isa
from sightline.see import PER_QUERY

if TYPE_CHECKING:
    from collections.abc import Iterator

SAME_BITS = 8  # every so many cases the kernel without see is compiled too, and compared


def ways() -> Iterator[Any]:
    """Every case in every type on every ISA; where there is AMX, on AMX and on one of the others in turn.

    AMX has no float64: those kernels are avx512's. Where tests stand in for it, half types take one of the two.
    """
    runnable = [choice.name for choice in isa.runnable()]
    for i, case in enumerate(CASES):
        for j, dtype in enumerate(DTYPES):
            names = runnable
            if "amx" in runnable:
                names = [
                    *(["amx"] if dtype != "float64" else []),
                    runnable[1 + (i + j) % (len(runnable) - 1)],
                ]
            if matrix_unit.installed() and dtype in {"float16", "bfloat16"}:
                names = [names[i // 2 % 2]]
            for name in names:
                yield pytest.param(case, dtype, name, id=f"{case.name}-{dtype}-{name}")


@pytest.mark.parametrize(("case", "dtype", "instructions"), list(ways()))
def test_the_kernels_keep_the_definition(
    case: Case, dtype: str, instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_ISA", instructions)
    inputs = build(case, dtype)
    given = (inputs.query, inputs.key, inputs.value)
    output, seen = sightline.attention(*given, **inputs.options, see=PER_QUERY)
    check(case, dtype, output, **{name: getattr(seen, name) for name in PER_QUERY})
    assert (np.isnan(seen.entropy) | (seen.entropy >= 0)).all(), "entropy: less than nothing"
    if CASES.index(case) % SAME_BITS == 0:
        unseen = sightline.attention(*given, **inputs.options)
        assert unseen.tobytes() == output.tobytes(), "output: other bits than without see"


def test_case_names_are_unique() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


def test_a_case_has_the_same_numbers_every_time() -> None:
    for case in CASES:
        first, second = build(case, "float32"), build(case, "float32")
        for field in ("query", "key", "value"):
            np.testing.assert_array_equal(getattr(first, field), getattr(second, field))


# ── The judge itself: it accepts the rounded truth, and nothing that is wrong anywhere ──


def case_named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def truth(case: Case, dtype: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The definition's output and statistics, rounded."""
    want, kind = expected(case, dtype), DTYPES[arithmetic(dtype)]
    return want.output.astype(DTYPES[dtype]), {name: x.astype(kind) for name, x in want.statistics.items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "name", ["everything", "nan-key-seen", "inf-value-seen", "mask-empty-rows", "no-keys"]
)
def test_the_judge_accepts_the_rounded_definition(name: str, dtype: str) -> None:
    output, statistics = truth(case_named(name), dtype)
    assert set(statistics) == set(PER_QUERY)
    check(case_named(name), dtype, output, **statistics)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_judge_refuses_an_answer_that_ignores_one_key(dtype: str) -> None:
    case = case_named("length-300")
    output, statistics = reference_without_last_key(case, dtype)
    with pytest.raises(AssertionError, match="rounding is off"):
        check(case, dtype, output)
    right, _ = truth(case, dtype)
    for name, wrong in statistics.items():
        with pytest.raises(AssertionError, match=f"{name}: rounding is off"):
            check(case, dtype, right, **{name: wrong})


def reference_without_last_key(case: Case, dtype: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    options = case.options | {"key_lengths": case.lengths[1] - 1}
    return truth(dataclasses.replace(case, options=options), dtype)


def test_the_judge_refuses_half_precision_products() -> None:
    case = case_named("length-64")
    inputs = build(case, "float32")
    rounded = [x.astype(np.float16).astype(np.float32) for x in (inputs.query, inputs.key, inputs.value)]
    output = reference.attention(*rounded).output.astype(np.float32)
    with pytest.raises(AssertionError, match="rounding is off"):
        check(case, "float32", output)


@pytest.mark.parametrize(
    ("name", "value", "where"),
    [
        ("mask-empty-rows", 1e-30, (0, 0, 17, 3)),  # not the exact 0 of a query that sees nothing
        ("nan-key-seen", 0.0, (0, 1, 20, 0)),  # a number where NaN is due
        ("nan-key-seen", np.nan, (0, 1, 19, 0)),  # NaN in a row that does not see it
        ("inf-value-seen", -np.inf, (0, 1, 20, 3)),  # the wrong Inf
        ("length-7", np.inf, (0, 0, 0, 0)),
    ],
)
def test_the_judge_refuses_a_wrong_corner(name: str, value: float, where: tuple[int, ...]) -> None:
    output, _ = truth(case_named(name), "float32")
    output[where] = value
    with pytest.raises(AssertionError, match="is off"):
        check(case_named(name), "float32", output)


@pytest.mark.parametrize(
    ("name", "statistic", "value", "where"),
    [
        ("mask-empty-rows", "entropy", 1e-30, (0, 0, 17)),  # not the exact 0 of a query that sees nothing
        ("mask-empty-rows", "distance", -1e-30, (0, 0, 17)),
        ("mask-empty-rows", "lse", -3e38, (0, 0, 17)),  # not −∞
        ("mask-empty-rows", "max_score", -3e38, (0, 0, 17)),
        ("nan-key-seen", "max_score", 0.0, (0, 1, 20)),  # a number where NaN is due
        ("nan-key-seen", "entropy", np.nan, (0, 1, 19)),  # NaN in a row that does not see it
        ("nan-value-seen", "distance", np.nan, (0, 0, 20)),  # a value has no part in a statistic
    ],
)
def test_the_judge_refuses_a_wrong_corner_of_a_statistic(
    name: str, statistic: str, value: float, where: tuple[int, ...]
) -> None:
    output, statistics = truth(case_named(name), "float32")
    statistics[statistic][where] = value
    with pytest.raises(AssertionError, match=f"{statistic}: .* is off"):
        check(case_named(name), "float32", output, **statistics)


def test_the_judge_refuses_twice_the_error_of_torch() -> None:
    pytest.importorskip("torch")
    case = case_named("length-197")
    output, _ = truth(case, "float32")
    bound = expected(case, "float32").error_bound
    assert bound is not None
    noise = np.random.default_rng(0).choice([-1.0, 1.0], output.shape) * bound * 2 / 1.2
    with pytest.raises(AssertionError, match="root mean square"):
        check(case, "float32", (output + noise).astype(np.float32))


def test_the_judge_refuses_another_shape_or_type() -> None:
    case = case_named("length-7")
    output, _ = truth(case, "float32")
    with pytest.raises(AssertionError, match="shape"):
        check(case, "float32", output[0])
    with pytest.raises(AssertionError, match="float64"):
        check(case, "float32", output.astype(np.float64))
    with pytest.raises(AssertionError, match="entropy is float64"):
        check(case, "float32", output, entropy=expected(case, "float32").statistics["entropy"])
