"""Scores of hundreds, as trained models have: what lse and gradients lose to rounding is what PyTorch's lose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sightline
from sightline import reference
from sightline.cpu import isa

Array = np.ndarray[Any, Any]
DTYPES = ("float64", "float32")
LARGEST = 1.2  # times PyTorch's error


@pytest.fixture(autouse=True, params=[choice.name for choice in isa.runnable()])
def instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SIGHTLINE_ISA", request.param)
    return str(request.param)


def arrays(dtype: str, length: int, dim: int, scores: float) -> tuple[Array, ...]:
    """Query, key, value and the gradient of the output; scores ~ N(0, `scores`²)."""
    q, k, v, d_output = np.random.default_rng(3).standard_normal((4, 1, 2, length, dim))
    return tuple(x.astype(dtype) for x in (q * scores, k, v, d_output))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{}, {"scale": 0.3}, {"bias": np.full((1, 1), 0.0)}])
def test_a_query_of_one_key_has_weight_one_and_its_score_as_lse(dtype: str, options: dict[str, Any]) -> None:
    q, k, v, d_output = arrays(dtype, 300, 64, 200.0)
    only = np.eye(300, dtype=bool)
    out, seen = sightline.attention(q, k, v, mask=only, see=("lse", "max_score"), **options)
    grads = sightline.attention_vjp(q, k, v, out, seen.lse, d_output, mask=only, **options)
    assert np.abs(seen.lse).max() > 500
    np.testing.assert_array_max_ulp(seen.lse, seen.max_score, 1)
    assert (seen.lse == seen.max_score).mean() > 0.99
    # Where s·scale is a number, the weight is 1; else lse has lost up to half a spacing of what it is.
    lost = float(np.abs(seen.lse).max()) if "scale" in options else 0.0
    off = np.abs(np.asarray(grads.value) / d_output - 1).max()
    assert off <= np.finfo(dtype).eps * (3 + lost)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sink", [-300.0, 0.0, 900.0])
def test_lse_is_right_to_a_rounding_or_two_beside_a_sink(dtype: str, sink: float) -> None:
    q, k, v, _ = arrays(dtype, 90, 16, 100.0)
    sinks = np.full(2, sink)
    _, seen = sightline.attention(q, k, v, sinks=sinks, see=("lse",))
    scores = np.einsum("bhid,bhjd->bhij", *(x.astype(np.float64) for x in (q, k)))
    room = 16 * np.finfo(dtype).eps * np.abs(scores).max(-1) / 4 + 2 * np.finfo(dtype).eps * 900
    assert (np.abs(seen.lse - reference.attention(q, k, v, sinks=sinks).lse) <= room).all()


@pytest.mark.parametrize("dim", [32, 64, 128])
@pytest.mark.parametrize("scores", [50.0, 200.0, 600.0])
@pytest.mark.parametrize("causal", [False, True])
def test_gradients_are_as_close_as_pytorchs(dim: int, scores: float, causal: bool) -> None:
    torch: Any = pytest.importorskip("torch")
    given = arrays("float32", 512, dim, scores / 5)  # 5 deviations: about the largest
    want, theirs = (
        torch.autograd.grad(
            torch.nn.functional.scaled_dot_product_attention(*tensors, is_causal=causal),
            tensors,
            torch.from_numpy(given[3]).to(kind),
        )
        for kind in (torch.float64, torch.float32)
        for tensors in [[torch.from_numpy(x).to(kind).requires_grad_() for x in given[:3]]]
    )
    out, seen = sightline.attention(*given[:3], causal=causal, see=("lse",))
    q, k, v, d_output = given
    ours = sightline.attention_vjp(q, k, v, out, seen.lse, d_output, causal=causal)
    for name, exact, peer in zip(("value", "key", "query"), want[::-1], theirs[::-1], strict=True):
        error, known = (
            np.linalg.norm(np.asarray(x, np.float64) - exact.numpy()) for x in (getattr(ours, name), peer)
        )
        assert error <= LARGEST * known, f"d_{name}: {error / known:.2f} times PyTorch's error"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scores", [50.0, 300.0])
def test_weights_that_are_seen_sum_to_one(dtype: str, scores: float) -> None:
    """The second pass makes its scores as the first one did, or their sum would be that of others."""
    q, k, v, _ = arrays(dtype, 512, 64, scores / 5)
    rows = tuple(range(0, 512, 3))
    _, seen = sightline.attention(q, k, v, see=sightline.See(rows=rows))
    off = np.abs(np.asarray(seen.rows, np.float64).sum(-1) - 1).max()
    assert off <= 20 * np.finfo(dtype).eps
