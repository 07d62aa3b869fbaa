"""Any call that makes sense: hypothesis picks shapes, strides and options together, the reference answers."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sightline
from sightline import reference

Array = np.ndarray[Any, Any]

# One type and a few head sizes: each new combination of options compiles a kernel.
DIMS = (1, 5, 16, 33)


@st.composite
def calls(draw: st.DrawFn) -> tuple[Array, Array, Array, dict[str, Any]]:
    """A call, its arrays made from one seed."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kv_heads, group = draw(st.integers(1, 3)), draw(st.sampled_from((1, 2, 4)))
    queries, keys = draw(st.integers(0, 140)), draw(st.integers(0, 140))
    dim, value_dim = draw(st.sampled_from(DIMS)), draw(st.sampled_from(DIMS))
    batch = draw(st.sampled_from(((), (1,), (3,), (2, 2))))
    heads = kv_heads * group

    def array(heads: int, length: int, width: int) -> Array:
        made: Array = rng.standard_normal((*batch, heads, length, width), dtype=np.float32)
        return _rearranged(draw, made)

    q, k, v = array(heads, queries, dim), array(kv_heads, keys, dim), array(kv_heads, keys, value_dim)
    scores = (*batch, heads, queries, keys)
    return q, k, v, _options(draw, rng, scores)


def _rearranged(draw: st.DrawFn, x: Array) -> Array:
    """The same numbers, lying otherwise in memory."""
    how = draw(st.sampled_from(("plain", "by length", "backwards", "spread", "repeated")))
    if how == "by length":
        return np.ascontiguousarray(x.swapaxes(-3, -2)).swapaxes(-3, -2)
    if how == "backwards":
        return np.ascontiguousarray(x[..., ::-1, :])[..., ::-1, :]
    if how == "spread":
        return np.repeat(x, 3, axis=-1)[..., 1::3]
    if how == "repeated" and x.shape[-2]:
        return np.broadcast_to(x[..., :1, :], x.shape)
    return x


def _options(draw: st.DrawFn, rng: np.random.Generator, scores: tuple[int, ...]) -> dict[str, Any]:
    """Some of the door's options."""
    *batch, heads, _queries, keys = scores
    offset = draw(st.integers(-3, 150))
    choices: dict[str, Any] = {
        "query_offset": offset,  # always given: Lq and Lk differ nearly always
        "causal": True,
        "window": draw(st.sampled_from(((0, 0), (40, None), (None, 7), (13, 70)))),
        "mask": rng.random((heads, *scores[-2:])) < draw(st.sampled_from((0.0, 0.1, 0.9, 1.0))),
        "bias": rng.standard_normal(scores[-2:]).astype(np.float32),
        "softcap": 2.5,
        "sinks": rng.standard_normal(heads),
        "alibi_slopes": rng.random(heads) / 8,
        "key_lengths": rng.integers(0, keys + 1, batch),
        "scale": draw(st.sampled_from((0.3, -0.7))),
    }
    optional = sorted(set(choices) - {"query_offset"})
    picked = draw(st.sets(st.sampled_from(optional), max_size=3))
    return {name: choices[name] for name in ("query_offset", *sorted(picked))}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(calls())
def test_every_call_keeps_the_definition(call: tuple[Array, Array, Array, dict[str, Any]]) -> None:
    q, k, v, options = call
    got = sightline.attention(q, k, v, **options)
    want = reference.attention(q, k, v, **options).output
    assert got.shape == want.shape
    # Scores here stay below 100 in size: a weight is off by 2^-24 times that and a few roundings more.
    np.testing.assert_allclose(got, want, rtol=0, atol=3e-5)
    np.testing.assert_array_equal(got[~want.any(axis=-1)], 0.0)
