"""Gradients on the matrix unit: what its terms cannot hold, and that nobody notices who computes what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sightline
from sightline import Gradients, passes
from sightline.arrays import Spec
from sightline.cpu import isa
from sightline.problem import Problem
from sightline.reference_gradients import gradients

Array = np.ndarray[Any, Any]
HERE = "amx" in [choice.name for choice in isa.runnable()]
NAMES = ("query", "key", "value")


@pytest.fixture(autouse=True)
def instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    if not HERE:
        pytest.skip("this processor or system has no AMX")
    monkeypatch.setenv(isa.VARIABLE, "amx")


def inputs(queries: int, keys: int, dim: int) -> list[Array]:
    """Query, key, value and dO of one head."""
    rng = np.random.default_rng(dim)
    return [rng.standard_normal((1, 1, n, dim)).astype(np.float32) for n in (queries, keys, keys, queries)]


def differentiate(
    given: list[Array], d_lse: Array | None = None, *, wanted: tuple[str, ...] = NAMES, **options: Any
) -> Gradients:
    q, k, v, d_output = given
    out, seen = sightline.attention(q, k, v, see=("lse",), **options)
    return sightline.attention_vjp(q, k, v, out, seen.lse, d_output, grad_lse=d_lse, wanted=wanted, **options)


def error(got: Any, want: Any) -> float:
    """Relative, of the whole."""
    got, want = (np.asarray(x, np.float64) for x in (got, want))
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def kernel_terms(dtype: str, wanted: tuple[str, ...] = NAMES, **options: Any) -> list[int]:
    size = {"float64": 8, "float32": 4}.get(dtype, 2)
    rows = Spec((2, 300, 64), (300 * 64 * size, 64 * size, size), dtype)
    problem = Problem.of(rows, rows, rows, **options)
    return [made.plan.kernel.terms for made in passes.passes(problem, isa.target("amx"), wanted, (), 2)]


def test_gradients_take_the_terms_that_the_forward_pass_does() -> None:
    assert [kernel_terms(dtype) for dtype in ("float64", "float32", "float16", "bfloat16")] == [
        [0],
        [3],
        [2],
        [1],
    ]
    assert [kernel_terms("float32", precision=word) for word in ("high", "default")] == [[2], [1]]
    bias = Spec((300, 300), (1200, 4), "float32")
    assert kernel_terms("float32", ("query", "bias"), bias=bias) == [3, 3]


@pytest.mark.parametrize("form", [(4, 333, 1100), (333, 1100), (2, 1, 1, 1100), (4, 333, 1)], ids=str)
@pytest.mark.parametrize("tiny", [False, True])
def test_the_gradient_of_a_bias_is_no_worse_than_by_multiply_adds(
    form: tuple[int, ...], tiny: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Own rows and columns or shared ones; `tiny`: a key, a value and a query that are no sums of terms."""
    rng = np.random.default_rng(7)
    shapes = ((2, 4, 333, 24), (2, 2, 1100, 24), (2, 2, 1100, 40), (2, 4, 333, 40), form)
    *given, bias, d_lse = (
        rng.standard_normal(shape).astype(np.float32) for shape in (*shapes, (2, 4, 333))
    )  # without dlse, one number for all of a row's scores would have gradient 0
    if tiny:
        given[1][0, 1, 70], given[2][1, 0, 900], given[0][1, 3, 200] = 1e-33, 1e-34, 1e-35
    options: dict[str, Any] = {"bias": bias, "causal": True, "query_offset": 767}
    query, key, value, d_output = given
    exact = gradients(query, key, value, d_output, d_lse, **options).bias
    on_unit = differentiate(given, d_lse, **options, wanted=("bias",)).bias
    monkeypatch.setenv(isa.VARIABLE, "avx512")
    without = differentiate(given, d_lse, **options, wanted=("bias",)).bias
    assert error(on_unit, exact) <= min(1.2 * error(without, exact), 1e-5)


@pytest.mark.parametrize("dim", [40, 64, 257])
@pytest.mark.parametrize("causal", [False, True])
def test_float32_is_no_worse_than_multiply_adds(
    dim: int, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = inputs(333, 500, dim)
    want = gradients(*given, causal=causal, query_offset=0)
    on_unit = differentiate(given, causal=causal, query_offset=0)
    monkeypatch.setenv(isa.VARIABLE, "avx512")
    without = differentiate(given, causal=causal, query_offset=0)
    for name in NAMES:
        exact = getattr(want, name)
        assert error(getattr(on_unit, name), exact) <= 1.2 * error(getattr(without, name), exact), name


@pytest.mark.parametrize(("precision", "least", "most"), [("high", 1e-7, 4e-5), ("default", 1e-5, 2e-2)])
def test_precision_buys_digits(precision: str, least: float, most: float) -> None:
    given = inputs(300, 300, 64)
    want = gradients(*given)
    got = differentiate(given, precision=precision)
    for name in NAMES:
        assert least <= error(getattr(got, name), getattr(want, name)) <= most, name


@pytest.mark.parametrize("odd", [2.0**-101, 2.0**-120, 2.0**101, 2.0**110, np.inf, np.nan])
@pytest.mark.parametrize("part", range(4), ids=[*NAMES, "d_output"])
def test_numbers_that_terms_cannot_hold(part: int, odd: float) -> None:
    """One of them is as right as any other, and so is all that it has to do with."""
    given = inputs(280, 300, 24)
    given[part][0, 0, 70, 5] = odd
    with np.errstate(all="ignore"):
        want = gradients(*given, causal=True, query_offset=0)
        got = differentiate(given, causal=True, query_offset=0)
    # A weight of 1 has a derivative of 0 but for rounding, which a huge query or key makes huge.
    least = max(1.0, odd) if part < 2 and np.isfinite(odd) else 1.0
    for name in NAMES:
        exact, mine = getattr(want, name), np.asarray(getattr(got, name))
        finite = np.isfinite(exact)
        np.testing.assert_array_equal(np.isfinite(mine), finite, err_msg=name)
        exact, mine = np.where(finite, exact, 0), np.where(finite, mine, 0)
        largest = np.abs(exact).max(-1, keepdims=True).clip(least)
        assert (np.abs(mine - exact) <= 1e-5 * largest).all(), name


@pytest.mark.parametrize("size", [2.0**-110, 2.0**-100, 2.0**-90, 2.0**-70, 2.0**55, 2.0**70])
def test_gradients_of_any_magnitude(size: float) -> None:
    """All of dO is tiny, or huge: dS, which has terms too, is smaller or larger still."""
    q, k, v, d_output = inputs(280, 2000, 24)
    d_output = np.sign(d_output)
    want = gradients(q, k, v, d_output)
    got = differentiate([q, k, v, d_output * np.float32(size)])
    for name in NAMES:
        assert error(np.asarray(getattr(got, name), np.float64) / size, getattr(want, name)) < 1e-6, name


@pytest.mark.parametrize("odd", [np.nan, np.inf])
@pytest.mark.parametrize("part", [1, 2], ids=NAMES[1:])
def test_a_key_that_no_row_of_a_block_may_see(part: int, odd: float) -> None:
    """Nothing of the block tells that the tile is odd: 0·NaN would be NaN."""
    given = inputs(280, 300, 24)
    mask = np.random.default_rng(0).random((280, 300)) < 0.5
    mask[:, 70] = False
    plain = differentiate(given, mask=mask)
    given[part][0, 0, 70] = odd
    got = differentiate(given, mask=mask)
    for name in NAMES:
        np.testing.assert_allclose(getattr(got, name), getattr(plain, name), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("part", "odd"), [(0, 2.0**101), (1, 2.0**101), (1, np.nan), (2, np.inf), (3, np.nan)]
)
def test_odd_numbers_change_no_bit_of_what_does_not_meet_them(part: int, odd: float) -> None:
    """Blocks are of 64 rows and tiles of 64 keys: what the last query alone meets leaves the others' bits."""
    given = inputs(512, 512, 64)
    plain = differentiate(given, causal=True, query_offset=0)
    given[part][0, 0, -1, 3] = odd
    with np.errstate(all="ignore"):
        changed = differentiate(given, causal=True, query_offset=0)
    np.testing.assert_array_equal(changed.query[:, :, :448], plain.query[:, :, :448])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_scores_of_hundreds_have_weights_that_sum_to_one(dtype: Any) -> None:
    """Of equal values dS is 0 but for rounding, if the weights are those that lse is of."""
    q, k, _, g = (x.astype(dtype) for x in inputs(300, 400, 64))
    q, v = q * dtype(20), np.ones_like(k)
    got = differentiate([q, k, v, g])
    np.testing.assert_allclose(np.asarray(got.value).sum(), g.astype(np.float64).sum(), rtol=2e-3, atol=0.1)
    assert np.abs(np.asarray(got.key, np.float64)).max() < 0.5 * np.abs(q).max() * np.finfo(dtype).eps * 300


def test_an_lse_of_thousands_is_made_again() -> None:
    """It is rounded by more than a weight may be off: a query's only key has weight 1."""
    q, k, v, d_output = inputs(300, 300, 64)
    q, only = q * np.float32(2000), np.eye(300, dtype=bool)
    out, seen = sightline.attention(q, k, v, mask=only, scale=0.3, see=("lse",))
    got = sightline.attention_vjp(q, k, v, out, seen.lse, d_output, mask=only, scale=0.3)
    far = np.abs(seen.lse[0, 0]) > 1024
    assert far.sum() > 200
    np.testing.assert_allclose(np.asarray(got.value)[0, 0, far], d_output[0, 0, far], rtol=1e-6)
