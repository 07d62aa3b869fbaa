"""A call of a new length is made from those before it: with the same bits, and with every error as before."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import sightline
from sightline import calls, growing, plan
from sightline.problem import Problem

Array = np.ndarray[Any, Any]
LENGTHS = (*range(1, 70), *range(120, 135), 511, 512, 513, *range(1000, 1090), *range(2040, 2060))


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_ready", {})


def decoder(dtype: Any = np.float32, layout: str = "BHLD", batch: int = 2) -> tuple[Array, Array, Array]:
    """One query, and keys to take the first of: a query of each sequence, keys that all of them share."""
    rng = np.random.default_rng(3)
    q, k, v = (
        rng.standard_normal(shape).astype(dtype)
        for shape in ((batch, 4, 1, 16), (1, 2, 2060, 16), (batch, 2, 2060, 24))
    )
    if layout == "BLHD":
        q, k, v = (np.ascontiguousarray(x.swapaxes(1, 2)) for x in (q, k, v))
    return q, k, v


def step(q: Array, k: Array, v: Array, keys: int, layout: str, *, copied: bool = False) -> Array:
    """One step of a decoder: its cache is a part of a larger array, or an array of its own."""
    part = (slice(None), slice(keys)) if layout == "BLHD" else (..., slice(keys), slice(None))
    k, v = (x[part].copy() if copied else x[part] for x in (k, v))
    return np.asarray(sightline.attention(q, k, v, layout=layout))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(("layout", "copied"), [("BHLD", False), ("BHLD", True), ("BLHD", True)])
def test_every_length_has_the_bits_of_a_call_of_its_own(
    dtype: Any, layout: str, copied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "THREAD_FLOPS", 1e4)  # keys are shared among work items from some length on
    arrays = decoder(dtype, layout)
    grown = [step(*arrays, keys, layout, copied=copied) for keys in LENGTHS]
    for keys, got in zip(LENGTHS, grown, strict=True):
        calls._ready.clear()
        assert got.tobytes() == step(*arrays, keys, layout, copied=copied).tobytes(), keys


def test_from_the_third_length_on_nothing_is_planned_until_the_next_64(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrays, planned, real = decoder(), [], Problem.of

    def counting(*args: Any, **options: Any) -> Problem:
        planned.append(1)
        return real(*args, **options)

    monkeypatch.setattr(Problem, "of", counting)
    for keys in range(65, 193):
        step(*arrays, keys, "BHLD")
    assert len(planned) == 4


def test_lengths_that_are_planned_differently_are_each_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = decoder()
    monkeypatch.setattr(plan, "THREAD_FLOPS", 2.39e6)  # up to 1064 keys are too little to be shared

    def split(keys: int) -> bool:
        before = set(calls._ready)
        step(*arrays, keys, "BHLD")
        (made,) = (x for key, x in calls._ready.items() if key not in before and isinstance(x, calls.Ready))
        return made._prepared.plan.kernel.split

    lengths = range(1050, 1080)
    found = [split(keys) for keys in lengths]
    assert found == sorted(found)
    assert len(set(found)) == 2
    for keys, expected in zip(lengths, found, strict=True):
        calls._ready.clear()
        assert split(keys) == expected


def test_what_is_wrong_with_a_new_length_is_said() -> None:
    q, k, v = decoder()
    for keys in (66, 67, 68):
        sightline.attention(q, k[..., :keys, :], v[..., :keys, :], scale=1.0)
    with pytest.raises(ValueError, match="key has length 70 and value has length 71"):
        sightline.attention(q, k[..., :70, :], v[..., :71, :])
    with pytest.raises(TypeError, match="scale"):
        sightline.attention(q, k[..., :70, :], v[..., :70, :], scale=True)
    with pytest.raises(ValueError, match="query_offset"):
        sightline.attention(q, k[..., :70, :], v[..., :70, :], causal=True)
    with pytest.raises(TypeError, match="one dtype"):
        sightline.attention(q, k[..., :70, :], v[..., :70, :].astype(np.float64))


def test_what_grows_with_the_keys_has_no_pattern() -> None:
    q, k, v = decoder()
    mask = np.ones((1, 2060), bool)
    for keys in (66, 67, 68):
        part = (..., slice(keys), slice(None))
        sightline.attention(q, k[part], v[part], mask=mask[:, :keys])
        sightline.attention(q, k[part], v[part], key_lengths=60)
        sightline.attention(q, k[part], v[part], window=(5, 0), query_offset=keys - 1)
        sightline.attention(q, k[part], v[part], see=("lse",))
    assert not [x for x in calls._ready.values() if isinstance(x, growing.Pattern)]
