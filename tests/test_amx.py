"""The matrix unit: what its terms can hold, what they cannot, and that nobody notices which."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import sightline
from sightline import reference
from sightline.arrays import Spec
from sightline.cpu import isa, terms
from sightline.kernel_choice import MATRIX_FEW
from sightline.plan import plan
from sightline.problem import Problem

Array = np.ndarray[Any, Any]
HERE = "amx" in [choice.name for choice in isa.runnable()]
on_the_unit = pytest.mark.skipif(not HERE, reason="this processor or system has no AMX")


@pytest.fixture(autouse=True)
def instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    if HERE:
        monkeypatch.setenv(isa.VARIABLE, "amx")


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def error(got: Array, want: Array) -> float:
    """Relative, of the whole."""
    return float(np.linalg.norm(got.astype(np.float64) - want) / np.linalg.norm(want))


def terms_of(dtype: str, queries: int = 300, isa_name: str = "amx", **options: Any) -> int:
    size = {"float64": 8, "float32": 4}.get(dtype, 2)
    rows = Spec((2, queries, 64), (queries * 64 * size, 64 * size, size), dtype)
    return plan(Problem.of(rows, rows, rows, **options), isa.target(isa_name)).kernel.terms


def test_how_many_terms_a_number_gets() -> None:
    assert [terms_of(dtype) for dtype in ("float64", "float32", "float16", "bfloat16")] == [0, 3, 2, 1]
    assert [terms_of("float32", precision=word) for word in ("highest", "high", "default")] == [3, 2, 1]
    assert terms_of("bfloat16", precision="high") == 1
    assert terms_of("float32", isa_name="avx512") == 0
    assert [terms_of("bfloat16", MATRIX_FEW), terms_of("bfloat16", MATRIX_FEW + 1)] == [1, 1]
    assert [terms_of("float16", MATRIX_FEW), terms_of("float16", MATRIX_FEW + 1)] == [0, 2]
    assert [terms_of("float32", 255), terms_of("float32", 256)] == [0, 3], "measured: not worth it below"
    assert [terms_of("float32", scale=scale) for scale in (1e20, 1e-20, 0.0, -2.0)] == [0, 0, 0, 3]


@pytest.mark.parametrize(("dtype", "count", "exact"), [("float32", 3, True), ("float32", 2, False)])
def test_terms_hold_the_bits_they_say(dtype: str, count: int, exact: bool) -> None:
    assert terms.exact_in(dtype, count) is exact
    assert terms.exact_in("float16", 2)
    assert not terms.exact_in("float16", 1)
    assert terms.exact_in("bfloat16", 1)


@on_the_unit
@pytest.mark.parametrize("dim", [40, 33, 128, 257])
@pytest.mark.parametrize(
    ("precision", "least", "most"), [("highest", 0.0, 4e-7), ("high", 1e-7, 2e-5), ("default", 1e-5, 6e-3)]
)
def test_precision_buys_digits(dim: int, precision: str, least: float, most: float) -> None:
    q, k, v = (numbers(2, 300, dim, seed=seed) for seed in range(3))
    want = reference.attention(q, k, v).output
    got = sightline.attention(q, k, v, precision=precision)
    assert least <= error(got, want) <= most


@on_the_unit
def test_float32_is_no_worse_than_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    for logits in (1.0, 8.0):
        q, k, v = (
            numbers(1, 300, 64) * np.float32(logits),
            numbers(1, 2000, 64, seed=1),
            numbers(1, 2000, 64, seed=2),
        )
        want = reference.attention(q, k, v).output
        unit = error(sightline.attention(q, k, v), want)
        theirs = torch.nn.functional.scaled_dot_product_attention(*map(torch.from_numpy, (q, k, v)))
        assert unit <= 1.2 * error(theirs.numpy(), want)


@on_the_unit
@pytest.mark.parametrize("size", [1e-45, 1e-41, 1e-38, 1e-32, 1e-25, 1e30, 1e37])
@pytest.mark.parametrize("part", ["value", "query and key"])
def test_magnitudes_that_terms_cannot_hold(size: float, part: str) -> None:
    """Tiny values, and tiny queries that meet huge keys or the other way round, are done without the unit."""
    q, k, v = (numbers(1, 300, 24, seed=seed) for seed in range(3))
    if part == "value":
        v = v * np.float32(size)
    else:
        q, k = q * np.float32(size), (k.astype(np.float64) / size).clip(-1e37, 1e37).astype(np.float32)
    want = reference.attention(q, k, v).output
    got = sightline.attention(q, k, v)
    finest = 8 * float(np.finfo(np.float32).smallest_subnormal)  # sums of the smallest numbers there are
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=max(1e-6 * abs(want).max(), finest))


@on_the_unit
def test_a_row_that_the_unit_cannot_do_leaves_the_others_their_bits() -> None:
    q, k, v = (numbers(1, 300, 32, seed=seed) for seed in range(3))
    alone = sightline.attention(q, k, v)
    for odd in (1e-35, 1e33, np.inf, np.nan):
        changed = q.copy()
        changed[0, 13, 5] = odd
        got = sightline.attention(changed, k, v)
        others = np.arange(300) != 13
        np.testing.assert_array_equal(got[0, others], alone[0, others])
        if np.isfinite(odd):
            np.testing.assert_allclose(
                got[0, 13], reference.attention(changed, k, v).output[0, 13], rtol=1e-4, atol=1e-7
            )


@on_the_unit
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_what_waits_is_multiplied_before_a_maximum_rises(dtype: Any) -> None:
    """Half precision has groups of several tiles, so weights do wait when scores climb."""
    q, k, v = numbers(1, 300, 24), numbers(1, 900, 24, seed=1), numbers(1, 900, 24, seed=2)
    q[..., 0], k[..., 0] = 4.0, np.linspace(0.0, 30.0, 900, dtype=np.float32)
    q, k, v = (x.astype(dtype) for x in (q, k, v))
    want = reference.attention(*(x.astype(np.float64) for x in (q, k, v))).output
    assert error(sightline.attention(q, k, v), want) < 1.2 * 2.0 ** (-10 if dtype is np.float16 else -8)


@on_the_unit
@pytest.mark.parametrize("climb", [30.0, 300.0])
def test_maxima_that_climb_and_weights_that_wait(climb: float) -> None:
    """Scores that rise tile after tile make the maximum rise while weights of earlier tiles wait."""
    q, k, v = numbers(1, 300, 24), numbers(1, 900, 24, seed=1), numbers(1, 900, 24, seed=2)
    q[..., 0], k[..., 0] = 4.0, np.linspace(0.0, climb, 900, dtype=np.float32)
    for keys in (slice(None), slice(None, None, -1)):
        want = reference.attention(q, k[:, keys], v[:, keys])
        got, seen = sightline.attention(q, k[:, keys], v[:, keys], see=("lse", "max_score"))
        assert error(got, want.output) < 1e-6 + 1e-7 * climb
        np.testing.assert_allclose(seen.lse, want.lse, rtol=1e-6)
        np.testing.assert_array_equal(got, sightline.attention(q, k[:, keys], v[:, keys]))


@on_the_unit
def test_a_single_key_gives_its_value_back() -> None:
    for dtype in ("float32", "float16"):
        q, k, v = (numbers(1, 300, 24, seed=seed).astype(dtype) for seed in range(3))
        got = sightline.attention(q, k, v, window=(0, 0))
        np.testing.assert_allclose(got, v, rtol=2.0**-23 if dtype == "float32" else 0)


@on_the_unit
@pytest.mark.parametrize(
    ("part", "odd"), [(0, 2.0**110), (1, 2.0**110), (1, np.nan), (2, 2.0**-110), (2, np.inf)]
)
def test_odd_numbers_change_no_bit_of_what_does_not_see_them(part: int, odd: float) -> None:
    """Neither in earlier blocks, nor where other sequences make runs of blocks longer."""
    arrays = [numbers(1, 1, 512, 64, seed=seed) for seed in range(3)]
    plain = sightline.attention(*arrays, causal=True)
    arrays[part][0, 0, -1, 3] = odd
    changed = sightline.attention(*arrays, causal=True)
    np.testing.assert_array_equal(changed[:, :, :480], plain[:, :, :480])
    together = sightline.attention(*(np.repeat(x, 40, axis=0) for x in arrays), causal=True)
    np.testing.assert_array_equal(together[7:8], changed)


@on_the_unit
@pytest.mark.parametrize("keys", [1, 31, 77, 1100, 3001])
@pytest.mark.parametrize("options", [{}, {"softcap": 5.0}, {"window": (900, 0)}, {"see": ("lse",)}])
def test_a_decoders_step_has_the_bits_of_the_prefill(keys: int, options: dict[str, Any]) -> None:
    """In bfloat16: its keys are read where they lie, in pieces, and those of many queries packed."""
    dtype = ml_dtypes.bfloat16
    q = numbers(8, 40, 64).astype(dtype)
    k, v = (numbers(2, keys, 64, seed=seed).astype(dtype) for seed in (1, 2))
    many = sightline.attention(q, k, v, query_offset=keys - 40, causal=True, **options)
    one = sightline.attention(q[:, -1:], k, v, query_offset=keys - 1, causal=True, **options)
    many, one = (x if "see" not in options else x[0] for x in (many, one))
    np.testing.assert_array_equal(one[:, 0], many[:, -1])


@on_the_unit
def test_what_lies_between_rows_and_behind_the_last_key_is_not_read() -> None:
    """Keys and values of a longer cache, with other numbers between the rows and behind."""
    cache = np.full((2, 2, 300, 96), np.nan, ml_dtypes.bfloat16)
    cache[:, :, :77, :64] = numbers(2, 2, 77, 64)
    q = numbers(2, 1, 64, seed=3).astype(ml_dtypes.bfloat16)
    k, v = cache[0, :, :77, :64], cache[1, :, :77, :64]
    want = sightline.attention(q, np.ascontiguousarray(k), np.ascontiguousarray(v))
    np.testing.assert_array_equal(sightline.attention(q, k, v), want)
    assert np.isfinite(want.astype(np.float32)).all()


def in_bfloat16(*arrays: Array) -> list[Any]:
    return [x.astype(ml_dtypes.bfloat16) for x in arrays]


def exact(*arrays: Any, **options: Any) -> Array:
    return reference.attention(*(x.astype(np.float64) for x in arrays), **options).output


@on_the_unit
@pytest.mark.parametrize(("logits", "most"), [(1.0, 2.5e-3), (8.0, 1.85e-3)])
@pytest.mark.parametrize("dim", [40, 64])
def test_weights_of_one_term_and_their_sum_are_rounded_alike(logits: float, most: float, dim: int) -> None:
    """Were l the sum of unrounded weights, 8 would give 2.1e-3: one weight is nearly all of a row there."""
    q, k, v = (numbers(2, 700, dim, seed=seed) for seed in range(3))
    q, k, v = in_bfloat16(q * np.float32(logits), k, v)
    assert error(sightline.attention(q, k, v), exact(q, k, v)) < most


@on_the_unit
@pytest.mark.parametrize("below", [70.0, 88.0, 100.0, 177.0, 200.0, 1000.0, 5728.0, 6e4])
def test_a_weight_beyond_the_exponent_is_zero(below: float) -> None:
    """Fixed point does not wrap around: huge values far below the largest score are not felt.

    At 5728 the bits of the sum lie within those of a sum that fits, which its neighbours are.
    """
    q, k, v = (numbers(1, 64, 32, seed=seed) for seed in range(3))
    q[..., 0], k[..., 0] = 1.0, 0.0
    k[:, ::3, 0], v[:, ::3] = -below, 2.0**30
    q, k, v = in_bfloat16(q, k, v)
    seen = np.arange(64) % 3 > 0
    got = sightline.attention(q, k, v, scale=1.0)
    np.testing.assert_allclose(got.astype(np.float32), exact(q, k, v, scale=1.0), rtol=0.02, atol=0.02)
    alone = sightline.attention(q, k, v, scale=1.0, mask=np.broadcast_to(seen, (1, 64, 64)))
    if below > 177:
        np.testing.assert_array_equal(got, alone)


@on_the_unit
@pytest.mark.parametrize("far", [0.0, 5e3, 6e3, 1e4, -5e3, -6e3, -1e5, 1e7])
@pytest.mark.parametrize("near", [1.0, 40.0])
def test_weights_of_scores_far_from_zero(far: float, near: float) -> None:
    """In fixed point, and with care beyond 5600."""
    q, k, v = (numbers(1, 48, 32, seed=seed) for seed in range(3))
    q[..., :2], k[..., 0], k[..., 1] = (1.0, near), far, np.linspace(0, 1, 48)
    q, k, v = in_bfloat16(q, k, v)
    want = exact(q, k, v, scale=1.0)
    error_here = error(sightline.attention(q, k, v, scale=1.0), want)
    assert error_here < 4e-3 + 2.0**-22 * abs(far)


@on_the_unit
@pytest.mark.parametrize("odd", [np.nan, -np.nan, np.inf, -np.inf])
def test_what_is_no_number_shows_in_its_row_alone(odd: float) -> None:
    q, k, v = in_bfloat16(*(numbers(1, 300, 32, seed=seed) for seed in range(3)))
    bias = numbers(1, 300, 300, seed=3)
    alone = sightline.attention(q, k, v, bias=bias)
    for place in (5, 131, 299):
        changed = bias.copy()
        changed[0, 77, place] = odd
        got = sightline.attention(q, k, v, bias=changed)
        others = np.arange(300) != 77
        np.testing.assert_array_equal(got[:, others], alone[:, others])
        assert np.isnan(got[:, 77].astype(np.float32)).all() == (odd != -np.inf)


@on_the_unit
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_a_mask_that_leaves_out_tiles_while_weights_wait(dtype: Any) -> None:
    """What waits has no gaps; and where the maximum rises, it is that of the keys that may be seen."""
    q, k, v = (numbers(1, n, 32, seed=n) for n in (300, 900, 901))
    q[..., 0], k[..., 0] = 4.0, np.linspace(0.0, 30.0, 900, dtype=np.float32)
    q, k, v = (x.astype(dtype) for x in (q, k, v[:, :900]))
    mask = np.random.default_rng(0).random((300, 900)) < 0.5
    mask[:, 64:128] = mask[:100, 448:640] = mask[:, 880:] = False
    k[:, 130:800:67, 0], v[:, 131:800:67] = 400.0, 1000.0  # not to be seen, and not to raise a maximum
    mask[:, 130:800:67] = mask[:, 131:800:67] = False
    want = reference.attention(*(x.astype(np.float64) for x in (q, k, v)), mask=mask).output
    limit = {np.float32: 4e-6, np.float16: 1.2 * 2.0**-10}.get(dtype, 1.2 * 2.0**-8)
    assert error(sightline.attention(q, k, v, mask=mask), want) < limit
