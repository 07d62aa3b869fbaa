"""The closed-form gradients against central differences of the definition: every argument, every option."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sightline import reference
from sightline.reference_gradients import gradients

Array = NDArray[Any]
RNG = np.random.default_rng(11)
STEP = 1e-5  # the truncation error STEP² and the rounding error 2⁻⁵³ / STEP are both about 1e-10


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape)


def plain(**options: Any) -> dict[str, Any]:
    """Two sequences, four query heads on two key heads, 3 queries, 5 keys, D = 4, Dv = 2."""
    arrays = {"query": normal(2, 4, 3, 4), "key": normal(2, 2, 5, 4), "value": normal(2, 2, 5, 2)}
    return arrays | options


DARK = np.array(
    [[False] * 5, [True, True, False, True, False], [False, True] + [True] * 3]
)  # one row sees nothing

CALLS = {
    "plain": plain(),
    "scale": plain(scale=-0.3),
    "causal": plain(causal=True, query_offset=1),
    "causal with empty rows": plain(causal=True, query_offset=-2),
    "window": plain(window=(1, 0), query_offset=np.array([0, 2])),
    "key lengths": plain(key_lengths=[0, 3]),
    "mask": plain(mask=DARK),
    "bias": plain(bias=normal(2, 4, 3, 5)),
    "bias by head": plain(bias=normal(4, 1, 1)),
    "bias by key": plain(bias=normal(5)),
    "bias by sequence": plain(bias=normal(2, 1, 3, 1)),
    "bias that hides": plain(bias=np.where(normal(4, 3, 5) > 0.8, -np.inf, normal(4, 3, 5))),
    "softcap": plain(softcap=0.7),
    "softcap and bias": plain(softcap=0.7, bias=normal(3, 5), mask=DARK),
    "sinks": plain(sinks=normal(4)),
    "sinks and empty rows": plain(sinks=normal(4), mask=DARK),
    "a head without its sink": plain(sinks=np.array([0.1, -np.inf, 0.3, 2.0])),
    "alibi": plain(alibi_slopes=normal(4), query_offset=1),
    "dropout": plain(dropout_p=0.4, seed=3, causal=True, query_offset=2, sinks=normal(4)),
    "layout": plain() | {"query": normal(2, 3, 4, 4), "key": normal(2, 5, 2, 4), "value": normal(2, 5, 2, 2)},
    "rank 2": {"query": normal(3, 4), "key": normal(5, 4), "value": normal(5, 2), "bias": normal(3, 5)},
    "keys broadcast": plain() | {"key": normal(1, 2, 5, 4), "value": normal(1, 2, 5, 2)},
    "queries broadcast": plain() | {"query": normal(1, 4, 3, 4)},
    "everything": plain(
        mask=DARK,
        bias=normal(1, 4, 3, 5),
        causal=True,
        window=(3, 0),
        query_offset=np.array([1, 3]),
        key_lengths=[5, 4],
        scale=0.8,
        softcap=1.1,
        sinks=normal(4),
        alibi_slopes=normal(4),
    ),
}
CALLS["layout"]["layout"] = "BLHD"
ARRAYS = ("query", "key", "value", "bias", "sinks", "alibi_slopes")


def loss(call: dict[str, Any], d_output: Array, d_lse: Array) -> float:
    """A sum with these gradients with respect to output and lse; the −∞ of an empty row does not count."""
    output, lse = reference.output_and_lse(**call)
    return float((d_output * output).sum() + (d_lse * np.where(np.isfinite(lse), lse, 0.0)).sum())


@pytest.mark.parametrize("name", CALLS)
def test_gradients_are_the_central_differences(name: str) -> None:
    call = CALLS[name]
    output, lse = reference.output_and_lse(**call)
    d_output, d_lse = normal(*output.shape), normal(*lse.shape)
    got = gradients(d_output=d_output, d_lse=d_lse, **call)
    for argument in ARRAYS:
        gradient = getattr(got, argument)
        if argument not in call:
            assert gradient is None
            continue
        want = differences(call, argument, d_output, d_lse)
        np.testing.assert_allclose(gradient, want, rtol=1e-7, atol=1e-8, strict=True, err_msg=argument)


def differences(call: dict[str, Any], argument: str, d_output: Array, d_lse: Array) -> Array:
    """∂loss/∂argument, element by element."""
    x = call[argument]
    slopes = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        if np.isfinite(x[index]):
            step = np.zeros(x.shape)
            step[index] = STEP
            above = loss(call | {argument: x + step}, d_output, d_lse)
            slopes[index] = (above - loss(call | {argument: x - step}, d_output, d_lse)) / (2 * STEP)
    return slopes


def test_lse_counts_for_nothing_when_left_out() -> None:
    call = CALLS["everything"]
    output, lse = reference.output_and_lse(**call)
    d_output = normal(*output.shape)
    without, zero = gradients(d_output=d_output, **call), gradients(d_output=d_output, d_lse=0 * lse, **call)
    for argument in ARRAYS:
        np.testing.assert_array_equal(getattr(without, argument), getattr(zero, argument))


def test_what_nobody_sees_reaches_no_gradient() -> None:
    call = plain(key_lengths=3)
    want = gradients(d_output=np.ones((2, 4, 3, 2)), **call)
    poisoned = {name: call[name].copy() for name in ("key", "value")}
    for x in poisoned.values():
        x[:, :, 3:] = np.nan
    got = gradients(d_output=np.ones((2, 4, 3, 2)), **(call | poisoned))
    for argument in ("query", "key", "value"):
        np.testing.assert_array_equal(getattr(got, argument), getattr(want, argument))
    assert (got.key[:, :, 3:] == 0).all()
    assert (got.value[:, :, 3:] == 0).all()


def test_an_undefined_query_reaches_the_keys_that_it_sees_and_no_others() -> None:
    call = plain(causal=True, query_offset=0)
    call["query"][:, :, 1] = np.nan
    got = gradients(d_output=np.ones((2, 4, 3, 2)), **call)
    assert np.isnan(got.key[:, :, :2]).all()
    assert np.isfinite(got.key[:, :, 2:]).all()
    assert np.isfinite(got.query[:, :, [0, 2]]).all()


def test_an_empty_row_gives_no_gradient_even_when_it_is_undefined() -> None:
    call = plain(mask=DARK, sinks=normal(4))
    call["query"][:, :, 0] = np.nan
    d_output = np.ones((2, 4, 3, 2))
    d_output[:, :, 0] = np.nan
    got = gradients(d_output=d_output, d_lse=np.ones((2, 4, 3)), **call)
    assert (got.query[:, :, 0] == 0).all()
    for argument in ("query", "key", "value", "sinks"):
        assert np.isfinite(getattr(got, argument)).all(), argument


def test_score_mod_has_no_known_derivative() -> None:
    with pytest.raises(ValueError, match="score_mod"):
        gradients(d_output=np.ones((2, 4, 3, 2)), score_mod=lambda score, *_: score, **plain())
