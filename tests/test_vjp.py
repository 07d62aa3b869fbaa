"""The door to gradients: what may be given and wanted, what comes back, what is refused, and its corners."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import sightline
from sightline import Gradients
from sightline.reference_gradients import gradients

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(5)


def normal(*shape: int, dtype: Any = np.float64) -> Array:
    made: Array = RNG.standard_normal(shape).astype(dtype)
    return made


def call(dtype: Any = np.float64) -> dict[str, Array]:
    """Two sequences, four query heads on two key heads, 9 queries, 11 keys, D = 6, Dv = 5."""
    shapes = {"query": (2, 4, 9, 6), "key": (2, 2, 11, 6), "value": (2, 2, 11, 5)}
    return {name: normal(*shape, dtype=dtype) for name, shape in shapes.items()}


def differentiate(given: dict[str, Any], d_output: Any, **more: Any) -> Gradients:
    out, seen = sightline.attention(**given, see=("lse",))
    return sightline.attention_vjp(output=out, lse=seen.lse, grad_output=d_output, **given, **more)


# ── What comes back ──


def test_kernels_and_differences_of_kernels_agree() -> None:
    """The gradient of a sum over output and lse is what small steps make of it: every array, every option."""
    given: dict[str, Any] = call() | {
        "bias": normal(4, 1, 11), "sinks": normal(4), "alibi_slopes": normal(4) / 10, "softcap": 2.0,
        "causal": True, "query_offset": 2, "window": (8, 3), "mask": RNG.random((9, 11)) < 0.8, "scale": 0.7,
    }  # fmt: skip
    d_output, d_lse = normal(2, 4, 9, 5), normal(2, 4, 9)

    def loss(**changed: Array) -> float:
        out, seen = sightline.attention(**given | changed, see=("lse",))
        return float((d_output * out).sum() + (d_lse * seen.lse).sum())

    wanted = Gradients._fields
    got = differentiate(given, d_output, grad_lse=d_lse, wanted=wanted)
    for name in wanted:
        x, direction = given[name], normal(*given[name].shape)
        step = 1e-5 * direction
        slope = (loss(**{name: x + step}) - loss(**{name: x - step})) / 2e-5
        assert (getattr(got, name) * direction).sum() == pytest.approx(slope, rel=1e-7, abs=1e-7), name


def test_only_what_is_wanted_is_made() -> None:
    given, d_output = call(), normal(2, 4, 9, 5)
    everything = differentiate(given, d_output)
    assert everything.bias is everything.sinks is everything.alibi_slopes is None
    for wanted in (("query",), ("key",), ("value",), ["value", "query"], ()):
        got = differentiate(given, d_output, wanted=wanted)
        for name in Gradients._fields:
            if name in wanted:
                np.testing.assert_array_equal(getattr(got, name), getattr(everything, name))
            else:
                assert getattr(got, name) is None


def test_gradients_of_what_was_broadcast_are_sums() -> None:
    given = call(np.float32)
    given["key"], given["query"] = given["key"][:1], given["query"][:1]
    d_output = normal(2, 4, 9, 5, dtype=np.float32)
    got = differentiate(given, d_output)
    want = gradients(given["query"], given["key"], given["value"], d_output)
    for name, x in given.items():
        assert getattr(got, name).shape == x.shape
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_gradients_have_the_dtype_of_their_arrays(dtype: Any) -> None:
    given: dict[str, Any] = call(dtype) | {"bias": normal(11, dtype=np.float16), "sinks": normal(4)}
    got = differentiate(given, normal(2, 4, 9, 5, dtype=dtype), wanted=("query", "key", "bias", "sinks"))
    assert [x.dtype for x in (got.query, got.key, got.bias, got.sinks)] == [
        dtype,
        dtype,
        np.float16,
        np.float64,
    ]
    assert got.value is None


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_tensors_give_tensors(kind: str) -> None:
    torch = pytest.importorskip("torch")
    given = {name: torch.from_numpy(x).to(getattr(torch, kind)) for name, x in call().items()}
    d_output = torch.ones(()).to(given["query"].dtype).expand(2, 4, 9, 5)  # as .sum().backward() makes it
    got = differentiate(given, d_output)
    arrays = {name: x.double().numpy() for name, x in given.items()}
    want = gradients(arrays["query"], arrays["key"], arrays["value"], np.ones((2, 4, 9, 5)))
    for name, tensor in given.items():
        x = getattr(got, name)
        assert isinstance(x, torch.Tensor)
        assert x.dtype == tensor.dtype
        tolerance = 1e-5 if kind == "float32" else 0.05
        np.testing.assert_allclose(x.double().numpy(), getattr(want, name), rtol=tolerance, atol=tolerance)


def test_parts_of_the_keys_with_the_lse_of_all_add_up() -> None:
    """As ring attention needs it; also where scores are so large that an lse is rounded by more than 1."""
    for size in (1.0, 1e8):
        query, key, value = call(np.float32).values()
        query *= np.float32(size)
        d_output = normal(2, 4, 9, 5, dtype=np.float32)
        out, seen = sightline.attention(query, key, value, see=("lse",))
        want = sightline.attention_vjp(query, key, value, out, seen.lse, d_output)
        parts = [
            sightline.attention_vjp(query, key[:, :, s], value[:, :, s], out, seen.lse, d_output)
            for s in (slice(4), slice(4, 11))
        ]
        tolerance = 1e-5 * abs(want.value).max()
        for name in ("key", "value"):
            joined = np.concatenate([getattr(part, name) for part in parts], axis=2)
            np.testing.assert_allclose(joined, getattr(want, name), rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize("size", [1e4, 1e9, 1e25])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_so_large_that_the_lse_is_rounded_away(size: float, dtype: Any) -> None:
    """Two keys alike share their query's weight, although exp(score − lse) is anything by then."""
    given = {name: x.astype(dtype) for name, x in call().items()}
    given["query"] *= dtype(size)
    given["key"][:, :, 6:] = given["key"][:, :, :5]
    d_output = normal(2, 4, 9, 5, dtype=dtype)
    got = differentiate(given, d_output)
    want = gradients(given["query"], given["key"], given["value"], d_output)
    np.testing.assert_allclose(got.value, want.value, rtol=1e-3, atol=1e-6)


def test_no_queries_and_no_keys() -> None:
    for queries, keys in ((0, 5), (5, 0), (0, 0)):
        given: dict[str, Any] = {"query": normal(1, 2, queries, 4), "key": normal(1, 2, keys, 4)}
        given |= {"value": normal(1, 2, keys, 3), "bias": normal(1, 2, 1, 1), "sinks": normal(2)}
        got = differentiate(
            given, normal(1, 2, queries, 3), wanted=("query", "key", "value", "bias", "sinks")
        )
        for name in ("query", "key", "value", "bias", "sinks"):
            assert getattr(got, name).shape == given[name].shape
            assert not np.asarray(getattr(got, name)).any()


def test_nan_in_a_gradient_that_comes_in_stays_with_its_query() -> None:
    given: dict[str, Any] = call() | {"causal": True, "query_offset": 0}
    d_output = normal(2, 4, 9, 5)
    clean = differentiate(given, d_output)
    d_output[:, :, 4, 1] = np.nan
    got = differentiate(given, d_output)
    rows = np.arange(9) != 4
    np.testing.assert_array_equal(got.query[:, :, rows], clean.query[:, :, rows])
    assert np.isnan(got.query[:, :, 4]).all()
    for name in ("key", "value"):
        np.testing.assert_array_equal(getattr(got, name)[:, :, 5:], getattr(clean, name)[:, :, 5:])
    assert np.isnan(got.key[:, :, :5]).all()


# ── What is refused ──


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"wanted": "query"}, TypeError, "wanted is 'query'"),
        (
            {"wanted": ("query", "scale")},
            ValueError,
            'wanted has "scale"; expected some of query, key, value',
        ),
        ({"wanted": ("bias",)}, ValueError, 'wanted has "bias", but there is no bias in the call'),
        (
            {"output": np.zeros((2, 4, 9, 6))},
            ValueError,
            r"output has shape \(2, 4, 9, 6\); expected \(2, 4, 9, 5\)",
        ),
        (
            {"grad_output": np.zeros((2, 4, 9, 5), np.float32)},
            TypeError,
            "grad_output has dtype float32; expected",
        ),
        ({"grad_output": None}, TypeError, "grad_output is a NoneType"),
        ({"lse": np.zeros((2, 9, 4))}, ValueError, r"lse has shape \(2, 9, 4\); expected \(2, 4, 9\)"),
        ({"lse": np.zeros((2, 4, 9), np.int64)}, TypeError, "lse has dtype int64; expected float64"),
        ({"grad_lse": np.zeros(3)}, ValueError, "grad_lse has shape"),
        ({"causal": True}, ValueError, "query_offset"),
        ({"key": np.zeros((2, 2, 11, 7))}, ValueError, "query has dim 6 and key has dim 7"),
    ],
)
def test_refusals_say_what_came_and_what_was_expected(
    change: dict[str, Any], error: type[Exception], words: str
) -> None:
    given: dict[str, Any] = call() | {"output": np.zeros((2, 4, 9, 5)), "lse": np.zeros((2, 4, 9))}
    with pytest.raises(error, match=words):
        sightline.attention_vjp(**{"grad_output": np.zeros((2, 4, 9, 5)), **given, **change})
