"""merge: attention over parts of the keys, joined, is attention over all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sightline

Array = np.ndarray[Any, Any]


def numbers(*shape: int, dtype: Any = np.float64) -> Array:
    made: Array = np.random.default_rng(5).standard_normal(shape).astype(dtype)
    return made


def in_parts(
    q: Array, k: Array, v: Array, edges: list[int], axis: int, **options: Any
) -> tuple[Array, Array]:
    """Attention over keys cut at `edges`, merged."""
    outputs, lses = [], []
    for first, end in zip([0, *edges], [*edges, k.shape[axis]], strict=True):
        part = [x[(slice(None),) * axis + (slice(first, end),)] for x in (k, v)]
        output, seen = sightline.attention(q, *part, see=("lse",), **options)
        outputs.append(output)
        lses.append(seen.lse)
    return sightline.merge(outputs, lses, layout=options.get("layout", "BHLD"))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("edges", [[], [1], [40, 40], [3, 50, 99]])
def test_parts_joined_give_the_whole(dtype: Any, edges: list[int]) -> None:
    q, k, v = numbers(3, 2, 4, 100, 24, dtype=dtype)
    whole, seen = sightline.attention(q, k, v, see=("lse",))
    output, lse = in_parts(q, k, v, edges, axis=2)
    assert (output.dtype, lse.dtype) == (whole.dtype, seen.lse.dtype)
    bound = {8: 1e-14, 4: 2e-6, 2: 2e-3}[np.dtype(dtype).itemsize]
    np.testing.assert_allclose(output, whole, rtol=0, atol=bound)
    np.testing.assert_allclose(lse, seen.lse, rtol=0, atol=1e-14 if dtype == np.float64 else 2e-6)


def test_the_other_layout() -> None:
    q, k, v = numbers(3, 2, 100, 4, 24)
    output, _ = in_parts(q, k, v, [17], axis=1, layout="BLHD")
    np.testing.assert_allclose(output, sightline.attention(q, k, v, layout="BLHD"), rtol=0, atol=1e-14)


def test_a_part_without_keys_is_not_looked_at() -> None:
    q, k, v = numbers(3, 2, 30, 8)
    whole, seen = sightline.attention(q, k, v, see=("lse",))
    blank = np.full_like(whole, np.nan)
    output, lse = sightline.merge([blank, whole], [np.full_like(seen.lse, -np.inf), seen.lse])
    np.testing.assert_array_equal(output, whole)
    np.testing.assert_array_equal(lse, seen.lse)
    output, lse = sightline.merge([blank], [np.full_like(seen.lse, -np.inf)])
    assert (output == 0).all()
    assert np.isneginf(lse).all()


def test_nan_stays_where_it_is_seen() -> None:
    q, k, v = numbers(3, 2, 30, 8)
    q[1, 3] = np.nan
    output, lse = in_parts(q, k, v, [10], axis=1)
    bad = np.zeros((2, 30), bool)
    bad[1, 3] = True
    np.testing.assert_array_equal(np.isnan(lse), bad)
    np.testing.assert_array_equal(np.isnan(output).all(axis=-1), bad)


def test_far_apart_parts_do_not_overflow() -> None:
    output, lse = sightline.merge(
        [np.ones((1, 2)), np.full((1, 2), 3.0)], [np.array([1e5]), np.array([-1e5])]
    )
    np.testing.assert_array_equal(output, 1.0)
    np.testing.assert_array_equal(lse, 1e5)


def test_tensors_stay_tensors() -> None:
    torch = pytest.importorskip("torch")
    q, k, v = (torch.from_numpy(x).to(torch.bfloat16) for x in numbers(3, 2, 60, 16))
    parts = [sightline.attention(q, k[:, s], v[:, s], see=["lse"]) for s in (slice(25), slice(25, 60))]
    output, lse = sightline.merge([out for out, _ in parts], [seen.lse for _, seen in parts])
    assert (output.dtype, lse.dtype) == (torch.bfloat16, torch.float32)
    assert (output - sightline.attention(q, k, v)).abs().max() < 0.03


@pytest.mark.parametrize(
    ("outputs", "lses", "message"),
    [
        ([], [], "0 outputs and 0 lses"),
        ([np.ones((3, 2))], [], "1 outputs and 0 lses"),
        ([np.ones((3, 2)), np.ones((4, 2))], [np.ones(3)] * 2, r"outputs\[1\] is float64 \(4, 2\)"),
        ([np.ones((3, 2))], [np.ones(4)], r"lses\[0\] is float64 \(4,\); expected"),
        ([np.ones((3, 2))], [np.ones(3, np.float16)], r"lses\[0\] is float16 \(3,\); expected"),
        ([np.ones((3, 2), int)], [np.ones(3)], r"outputs\[0\] has dtype int64"),
    ],
)
def test_what_does_not_fit_is_said(outputs: list[Array], lses: list[Array], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        sightline.merge(outputs, lses)
