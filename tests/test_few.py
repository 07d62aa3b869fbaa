"""Few query rows: the engine for them gives the very bits of the one that all other calls take."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

import sightline
from sightline import calls, kernel_choice, kernel_key, plan
from sightline.cpu import forward, isa
from sightline.see import PER_QUERY

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, Any]
DTYPES = (np.float64, np.float32, np.float16, ml_dtypes.bfloat16)
# Around the number of lanes, of keys in a tile, and of keys in a period.
LENGTHS = (1, 3, 15, 16, 17, 40, 63, 64, 65, 130, 1024, 1100)


@pytest.fixture(autouse=True, params=[choice.name for choice in isa.runnable()])
def instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SIGHTLINE_ISA", request.param)
    return str(request.param)


def three(rows: int, keys: int, dims: tuple[int, int], dtype: Any) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(rows + keys)
    shapes = (2, rows, dims[0]), (2, keys, dims[0]), (2, keys, dims[1])
    q, k, v = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    return q, k, v


def both_ways(monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any]) -> list[bytes]:
    """The bytes of a call's results with either engine."""
    found = []
    for most in (8, 0):
        monkeypatch.setattr(kernel_choice, "MOST_FEW", most)
        monkeypatch.setattr(calls, "_ready", {})
        made = call()
        arrays = made if isinstance(made, list) else [made]
        found.append(b"".join(np.ascontiguousarray(x).tobytes() for x in arrays))
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "dims"), [(1, (64, 64)), (2, (40, 24)), (3, (128, 72)), (8, (34, 160))])
def test_both_engines_give_the_same_bits(
    dtype: Any, rows: int, dims: tuple[int, int], monkeypatch: pytest.MonkeyPatch, instructions: str
) -> None:
    if instructions == "amx" and dtype is ml_dtypes.bfloat16 and dims[0] % kernel_key.MATRIX_KEYS == 0:
        monkeypatch.setitem(kernel_choice.MATRIX_WORTH, 1, (1, 1))  # both: keys in place, or packed
    calls = [three(rows, keys, dims, dtype) for keys in LENGTHS]
    few, many = both_ways(monkeypatch, lambda: [sightline.attention(*call) for call in calls])
    assert few == many


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_with_every_option_and_statistic(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = three(3, 333, (48, 80), dtype)
    rng = np.random.default_rng(5)
    options: dict[str, Any] = {
        "mask": rng.random((3, 333)) < 0.7,
        "bias": rng.standard_normal((2, 3, 333)).astype(np.float32),
        "window": (290, 5),
        "query_offset": 320,
        "softcap": 7.0,
        "sinks": np.array([0.5, -1.0]),
        "alibi_slopes": np.array([0.1, 0.0]),
    }

    def call() -> list[Array]:
        out, seen = sightline.attention(q, k, v, **options, see=PER_QUERY)
        return [out, *(getattr(seen, name) for name in PER_QUERY)]

    few, many = both_ways(monkeypatch, call)
    assert few == many


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_values_that_are_not_finite(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are done again with care: NaN behind the mask, and Inf in sight."""
    q, k, v = three(2, 100, (64, 64), dtype)
    mask = np.ones((2, 1, 100), bool)
    mask[0, :, 40] = False
    v[0, 40], v[1, 70] = np.nan, np.inf
    few, many = both_ways(monkeypatch, lambda: sightline.attention(q, k, v, mask=mask))
    assert few == many
    out = sightline.attention(q, k, v, mask=mask).astype(np.float32)
    assert np.isfinite(out[0]).all()
    assert (out[1] == np.inf).all()


def test_the_plan_takes_it_where_it_can(instructions: str) -> None:
    """Few rows, long enough rows of K and V, elements side by side."""
    from sightline.arrays import view
    from sightline.problem import Problem

    def few(rows: int, dim: int, dtype: Any, *, spread: bool = False) -> int:
        q, k, v = three(rows, 100, (dim, 64), dtype)
        k = np.repeat(k, 2, axis=-1)[..., ::2] if spread else k
        problem = Problem.of(*(view(x, "x").spec for x in (q, k, v)))
        return plan.plan(problem, isa.target(instructions)).kernel.few

    assert [few(rows, 64, np.float32) for rows in (1, 2, 3, 5, 8, 9)] == [1, 2, 4, 8, 8, 0]
    assert few(1, 3, np.float32) == 0, "shorter than a vector"
    assert few(1, 64, np.float16, spread=True) == 0
    assert few(1, 64, np.float16) == 1


@pytest.mark.parametrize("near", [False, True])
def test_rows_are_fetched_as_far_as_suits_the_processor(instructions: str, *, near: bool) -> None:
    target = replace(isa.target(instructions), fetches_near=near)
    key = kernel_key.KernelKey(dtype="float32", dim=64, value_dim=64, tile_keys=64, few=1)
    levels = set(
        re.findall(r"@llvm.prefetch.*i32 0, i32 (\d), i32 1", forward.generate(key, target).replace('"', ""))
    )
    assert ("3" in levels) is near
