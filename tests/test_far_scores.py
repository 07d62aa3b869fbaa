"""Scores of any finite size: where a rounding analysis allows everything, the answer is still plain to see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sightline
from sightline import reference
from sightline.cpu import isa

LOWEST = {"float32": float(np.finfo(np.float32).min), "float64": float(np.finfo(np.float64).min)}


@pytest.fixture(autouse=True, params=[choice.name for choice in isa.runnable()])
def instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_ISA", request.param)


def arrays(dtype: str, *shape: int) -> Any:
    return np.random.default_rng(3).standard_normal((3, *shape)).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("far", [-1e20, -1e30, "lowest", 1e20, 1e30])
@pytest.mark.parametrize("keys", [1, 40, 200])
def test_a_row_biased_far_away_weighs_its_keys_alike(dtype: str, far: float | str, keys: int) -> None:
    """Beside 10²⁰ the scores vanish: every key has the same. Padded rows of real models look like this."""
    q, k, v = arrays(dtype, 2, keys, 16)
    bias = np.zeros((keys, keys), dtype)
    bias[keys // 2] = LOWEST[dtype] if isinstance(far, str) else far
    got = sightline.attention(q, k, v, bias=bias)
    bound = 1e-13 if dtype == "float64" else 2e-6
    np.testing.assert_allclose(got[:, keys // 2], v.mean(axis=1), rtol=0, atol=bound)
    want = reference.attention(q, k, v, bias=bias).output
    np.testing.assert_allclose(got, want, rtol=0, atol=bound)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("spread", [1e9, 1e11, 1e30])
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"scale": -0.5}, {"sinks": np.ones(2)}])
def test_the_largest_of_huge_scores_takes_all(dtype: str, spread: float, options: dict[str, Any]) -> None:
    q, k, v = arrays(dtype, 2, 90, 16)
    got = sightline.attention(q * np.array(spread, dtype), k, v, **options)
    want = reference.attention(q * np.array(spread, dtype), k, v, **options)
    first, second = np.sort(want.masked, axis=-1)[..., [-1, -2]].transpose(2, 0, 1)
    clear = (first - second > abs(first) * 1e-5) & ((first > 0) | ("sinks" not in options))
    assert clear.mean() > 0.4
    np.testing.assert_allclose(got[clear], want.output[clear], rtol=0, atol=1e-6)
    assert np.isfinite(got).all()


def test_one_row_far_away_leaves_its_neighbours_bits_alone() -> None:
    q, k, v = arrays("float32", 1, 64, 32)
    alone = sightline.attention(q, k, v)
    changed = q.copy()
    changed[0, 9] *= np.float32(1e12)
    changed[0, 20] = np.nan
    k2 = k.copy()
    got = sightline.attention(changed, k2, v)
    others = [row for row in range(64) if row not in {9, 20}]
    np.testing.assert_array_equal(got[0, others], alone[0, others])
    assert np.isnan(got[0, 20]).all()
    assert np.isfinite(got[0, 9]).all()


@pytest.mark.parametrize("size", [1e37, 3e38])
def test_values_near_the_largest_number_do_not_overflow(size: float) -> None:
    q, k, v = arrays("float32", 1, 100, 8)
    v = np.sign(v) * np.float32(size)
    got = sightline.attention(q, k, v)
    want = reference.attention(q, k, v).output
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got / size, want / size, rtol=0, atol=1e-6)
