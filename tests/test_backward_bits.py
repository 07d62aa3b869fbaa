"""Gradients are bit for bit the same: for any number of threads, in any company, in any memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import sightline
from cases import DTYPES
from sightline import Gradients, passes, plan
from sightline.cpu import isa, threads
from sightline.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True, params=[choice.name for choice in isa.runnable()])
def instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("SIGHTLINE_ISA", request.param)
    monkeypatch.setattr(plan, "THREAD_FLOPS", 1.0)  # threads for the smallest call
    yield request.param
    threads._Setting.threads = None


def numbers(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Array:
    made: Array = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    return made


def differentiate(q: Array, k: Array, v: Array, d_out: Array, **options: Any) -> Gradients:
    wanted = [name for name in passes.GRADIENTS if name in {"query", "key", "value", *options}]
    out, seen = sightline.attention(q, k, v, see=("lse",), **options)
    d_lse = np.cos(np.arange(seen.lse.shape[-1], dtype=seen.lse.dtype)) + 0 * seen.lse
    return sightline.attention_vjp(q, k, v, out, seen.lse, d_out, grad_lse=d_lse, wanted=wanted, **options)


def same_bits(got: Gradients, want: Gradients, part: Any = ...) -> None:
    for name, mine, other in zip(Gradients._fields, got, want, strict=True):
        if other is not None:
            assert np.ascontiguousarray(mine).tobytes() == np.ascontiguousarray(other[part]).tobytes(), name


def inputs(dtype: Any, heads: int, kv_heads: int, length: int, dim: int = 40) -> list[Array]:
    """Query, key, value and dO of two sequences."""
    return [
        numbers(2, h, length, dim, dtype=dtype, seed=seed)
        for seed, h in enumerate((heads, kv_heads, kv_heads, heads))
    ]


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_any_number_of_threads_gives_the_same_bits(dtype: Any) -> None:
    """2 key heads: with 1 and 2 threads one pass makes all gradients, with 3 and 7 there are two passes."""
    given = [x[:1] for x in inputs(dtype, 4, 2, 700)]
    options: dict[str, Any] = {
        "causal": True,
        "bias": numbers(4, 1, 700, seed=9),
        "sinks": numbers(4, seed=10),
        "alibi_slopes": numbers(4, seed=11) / 100,
    }
    results = []
    for count in (1, 2, 3, 7):
        sightline.set_num_threads(count)
        results.append(differentiate(*given, **options))
    for other in results[1:]:
        same_bits(other, results[0])


def test_few_key_heads_for_many_threads_make_two_passes(instructions: str) -> None:
    spec = sightline.arrays.view(numbers(1, 2, 700, 64), "query").spec
    problem, target = Problem.of(spec, spec, spec), isa.target(instructions)
    wanted = ("query", "key", "value")
    one = passes.passes(problem, target, wanted, (), 2)
    two = passes.passes(problem, target, wanted, (), 7)
    assert [made.plan.kernel.gradients for made in one] == [wanted]
    assert [made.plan.kernel.gradients for made in two] == [("query",), ("key", "value")]
    assert [made.ranges for made in two][1] > 1
    assert one[0].items == 2
    assert min(made.items for made in two) >= 6


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("options", [{}, {"window": (30, 5)}, {"softcap": 3.0}])
def test_a_sequence_does_not_depend_on_its_company(dtype: Any, options: dict[str, Any]) -> None:
    given = inputs(dtype, 6, 2, 77, 24)
    together = differentiate(*given, **options)
    for index in range(2):
        q, k, v, d_out = (x[index] for x in given)
        same_bits(differentiate(q, k, v, d_out, **options), together, index)


def test_padding_does_not_change_a_sequence() -> None:
    q, k, v, d_out = (x[:1] for x in inputs(np.float32, 2, 2, 70))
    alone = differentiate(q, k, v, d_out)
    beyond = np.full((1, 2, 200, 40), np.nan, np.float32)
    k, v = (np.concatenate([x, beyond], axis=2) for x in (k, v))
    got = differentiate(q, k, v, d_out, key_lengths=[70])
    assert (got.key[:, :, 70:] == 0).all()
    assert (got.value[:, :, 70:] == 0).all()
    same_bits(got._replace(key=got.key[:, :, :70], value=got.value[:, :, :70]), alone)


def test_a_query_does_not_depend_on_the_queries_beside_it() -> None:
    """Nor on their scores being so large that the lse of these has to be made again."""
    q, k, v, d_out = (x[0] for x in inputs(np.float32, 1, 1, 150))
    q[:, 70] *= 1e6
    whole = differentiate(q, k, v, d_out, causal=True)
    for start in range(0, 150, 9):
        rows = slice(start, start + 9)
        out, seen = sightline.attention(q, k, v, see=("lse",), causal=True)
        d_lse = np.cos(np.arange(150, dtype=np.float32))[None]
        part = sightline.attention_vjp(
            q[:, rows], k, v, out[:, rows], seen.lse[:, rows], d_out[:, rows], grad_lse=d_lse[:, rows],
            causal=True, query_offset=start,
        )  # fmt: skip
        np.testing.assert_array_equal(part.query, whole.query[:, rows])


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("dim", [40, 33])
def test_strides_do_not_change_the_bits(dtype: Any, dim: int) -> None:
    q, k, v, d_out = given = inputs(dtype, 3, 3, 50, dim)
    plain = differentiate(*given)
    turned = [np.ascontiguousarray(x.swapaxes(1, 2)) for x in given]
    by_length = differentiate(turned[0], turned[1], turned[2], turned[3], layout="BLHD")
    same_bits(Gradients(*(None if x is None else x.swapaxes(1, 2) for x in by_length)), plain)
    out, seen = sightline.attention(q, k, v, see=("lse",))
    d_lse = np.cos(np.arange(50, dtype=seen.lse.dtype)) + 0 * seen.lse
    spread = [np.repeat(x, 2, axis=-1)[..., ::2] for x in (q, k, v, out, d_out)]
    backwards = [np.ascontiguousarray(x[..., ::-1])[..., ::-1] for x in (q, k, v, out, d_out)]
    for a, b, c, o, d in (spread, backwards):
        same_bits(sightline.attention_vjp(a, b, c, o, seen.lse, d, grad_lse=d_lse), plain)
