"""What the answer to a conformance case must be: exact where the definition is, close where numbers round.

Two bounds, neither picked by hand:

1. Each element: what rounding can do, after Higham and Mary's probabilistic analysis, in which n roundings
   add up like √n; here to λ = 6 deviations. u is the arithmetic's unit roundoff (float32's for half types).
   A weight is off, relative to itself, by

       r = λ · u · (√D · S + 4 · M + √Lk + 8)     S = max_j scale · Σ_d |q_d · k_jd|,  M = max(|score_j|, |lse|)

   (the sum of a product; then scaling, bias, subtraction and change of base on numbers as large as M; then
   the sum of the weights; then exp and division). So an output is off by r · Σ_j w_j·|v_j| and one roundoff
   of its own type, and lse by r and one roundoff. Of the statistics (s is a score, W = Σ_j w_j):

       max_score   by the first two terms of r: no weight takes part
       entropy     = Σ_j w_j·(lse − s_j), a sum of numbers ≥ 0: by r · entropy for the weights and their sum, and
                   by r · W, for lse − s_j is off by r like the logarithm of a weight
       distance    = Σ_j w_j·|p − j|: by r · distance, for |p − j| is exact

   and one roundoff each. Weights that underflow are lost from them as from the output.
   For float16 a kernel may leave out what the last three bits of two numbers make when multiplied: at most 2^-16
   of each product, of either sign, which adds up to 2^-16/3 · √(Σ_d (q_d·k_jd)²) · scale beside S.
   For bfloat16 a kernel may round each weight to bfloat16, as PyTorch's fused kernel does: independent errors,
   even between ±u_bf16, that add up to t = u_bf16/√3 · √(Σ_j (w_j·v_j)²), again taken λ times.
2. All of them: where PyTorch can compute the same call in the same type, the root mean square of the error is
   at most 1.2 times PyTorch's. A small case's error is luck: one roundoff of the terms and of the output in
   the arithmetic's type, then correct rounding to the output's own, is always let pass; so is 1.2·t, for where
   PyTorch falls back to its unfused path it rounds no weight. In float64 the reference is no better than what it
   judges, and adds the products of a score in one chain, as PyTorch often does and we do not. So what that does is
   let pass there, times √2, for both are off: D products one after the other by c = u/√6 · √D · √(Σ_d (q_d·k_jd)²)
   · scale, for partial sums grow like √d, and an output by √(Σ_j (w_j·(v_j − o)·c_j)²).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from cases import DTYPES, Array, Case, Inputs, build
from peer import torch_attention
from sightline import reference
from sightline.reference_call import Call, read
from sightline.reference_statistics import see
from sightline.see import PER_QUERY, requested

DEVIATIONS = 6.0
BETTER_THAN_TORCH = 1.2


@dataclass(frozen=True)
class Expected:
    """The definition's answer, and how far off it may be."""

    output: Array  # float64, in the caller's layout
    output_bound: Array  # for each element
    statistics: dict[str, Array]  # float64, (…, Hq, Lq): lse, max_score, entropy, distance
    statistics_bounds: dict[str, Array]  # for each element
    error_bound: float | None  # for the output's root mean square error; None where PyTorch has no answer


def unit_roundoff(dtype: str) -> float:
    """Half the distance from 1 to the next number."""
    bits = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}[dtype]
    return float(2.0**-bits)


def arithmetic(dtype: str) -> str:
    """What the kernels calculate in."""
    return "float64" if dtype == "float64" else "float32"


@functools.lru_cache(maxsize=8)  # each case is asked for by every backend in turn
def expected(case: Case, dtype: str) -> Expected:
    """The reference's answer to the inputs as rounded to `dtype`, and its bounds."""
    inputs = build(case, dtype)
    call = read(inputs.query, inputs.key, inputs.value, **inputs.options)
    problem = call.problem
    rows = (*problem.batch, problem.heads, problem.queries)
    output = np.empty((*rows, problem.value_dim))
    terms = np.empty(output.shape)  # Σ_j w_j·|v_j|
    squares = np.empty(output.shape)  # Σ_j (w_j·v_j)²
    chains = np.zeros(output.shape)  # √(Σ_j (w_j·(v_j − o)·c_j)²) / u
    relative, sees = np.empty(rows), np.empty(rows, bool)
    statistics, bounds = ({name: np.empty(rows) for name in PER_QUERY} for _ in range(2))
    own, inner = unit_roundoff(dtype), unit_roundoff(arithmetic(dtype))
    for index, head in reference.heads(call):
        value = call.value[shared_head(call, index)].astype(np.float64)
        output[index], relative[index] = head.output, weight_error(call, index, head)
        sees[index] = head.seen.any(axis=1)
        finite = np.where(np.isfinite(value), value, 0.0)
        used = head.weights * head.kept
        terms[index], squares[index] = used @ abs(finite), used**2 @ finite**2
        if dtype == "float64":
            chains[index] = np.sqrt(2) * in_one_chain(call, index, used, finite)
        seen = see(head, requested(PER_QUERY))
        off = statistics_bounds(call, index, head, arithmetic(dtype))
        for name in PER_QUERY:
            statistics[name][index], bounds[name][index] = getattr(seen, name), off[name]
    slip = DEVIATIONS * inner * relative
    rounded = own * np.sqrt(squares / 3) if dtype == "bfloat16" else np.zeros(output.shape)
    output_bound = slip[..., None] * terms + DEVIATIONS * rounded + own * abs(output)
    output_bound += sees[..., None] * least(dtype, call)
    with np.errstate(invalid="ignore"):
        narrowing = abs(output.astype(DTYPES[dtype]) - output.astype(DTYPES[arithmetic(dtype)])).astype(
            np.float64
        )
        luck = inner * (terms + abs(output) + chains) + np.hypot(narrowing, BETTER_THAN_TORCH * rounded)
    output, output_bound, luck = (reference.in_layout(x, problem) for x in (output, output_bound, luck))
    if problem.rank == 2:
        statistics, bounds = ({name: x[0] for name, x in many.items()} for many in (statistics, bounds))
    return Expected(output, output_bound, statistics, bounds, error_bound(inputs, output, luck))


def statistics_bounds(
    call: Call, index: tuple[int, ...], head: reference.Steps, kind: str
) -> dict[str, Array]:
    """How far off the statistics of one head may be: (Lq,) each."""
    u, sees = unit_roundoff(kind), head.seen.any(axis=1)
    seen = see(head, requested(PER_QUERY))
    slip = DEVIATIONS * u * weight_error(call, index, head)
    total = head.weights.sum(axis=1)
    farthest = abs(head.positions[:, None] - np.arange(call.problem.keys)).max(axis=1, initial=0)
    lost = sees * float(np.finfo(kind).tiny) * call.problem.keys  # weights that underflow
    surprise = -2 * np.log(smallest_number(kind))  # of one of those
    return {
        "lse": slip + u * abs(seen.lse),
        "max_score": DEVIATIONS * u * score_error(call, index, head) + u * abs(seen.max_score),
        "entropy": slip * (seen.entropy + total) + u * seen.entropy + lost * surprise,
        "distance": slip * seen.distance + u * seen.distance + lost * farthest,
    }


def in_one_chain(call: Call, index: tuple[int, ...], weights: Array, value: Array) -> Array:
    """How far off outputs are for the order in which scores are summed, in roundoffs: (Lq, Dv)."""
    query = call.query[index].astype(np.float64)
    key = call.key[shared_head(call, index)].astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        c = np.sqrt(query**2 @ (key**2).T * call.problem.dim / 6) * abs(call.problem.scale)
    each = (weights * np.where(np.isfinite(c), c, 0.0)) ** 2
    output = weights @ value
    off = each @ value**2 - 2 * output * (each @ value) + output**2 * each.sum(axis=1, keepdims=True)
    spread: Array = np.sqrt(off.clip(min=0.0))
    return spread


def shared_head(call: Call, index: tuple[int, ...]) -> tuple[int, ...]:
    """Where the key and value of a query head are."""
    return (*index[:-1], index[-1] // call.problem.group)


def weight_error(call: Call, index: tuple[int, ...], head: reference.Steps) -> Array:
    """√D · S + 4 · M + √Lk + 8 of the bound above: (Lq,)."""
    error: Array = score_error(call, index, head) + np.sqrt(call.problem.keys) + 8
    return error


def score_error(call: Call, index: tuple[int, ...], head: reference.Steps) -> Array:
    """√D · S + 4 · M of the bound above: (Lq,)."""
    query = abs(call.query[index].astype(np.float64))
    key = abs(call.key[shared_head(call, index)].astype(np.float64))
    with np.errstate(invalid="ignore"):
        products = query @ key.T * abs(call.problem.scale)
    products = np.where(head.seen & np.isfinite(products), products, 0.0).max(axis=1, initial=0.0)
    largest = np.where(head.seen, abs(head.masked), 0.0).max(axis=1, initial=0.0)
    largest = np.maximum(largest, np.nan_to_num(abs(head.lse), posinf=0.0))  # with a sink lse may be larger
    error: Array = np.sqrt(call.problem.dim) * products + 4 * largest
    if call.problem.dtype == "float16":
        with np.errstate(invalid="ignore"):
            squares = query**2 @ (key**2).T * call.problem.scale**2
        squares = np.where(head.seen & np.isfinite(squares), squares, 0.0).max(axis=1, initial=0.0)
        error += 2.0**-16 / 3 / unit_roundoff("float32") * np.sqrt(squares)
    return error


def error_bound(inputs: Inputs, output: Array, luck: Array) -> float | None:
    """1.2 times PyTorch's root mean square error, or what a small case owes to luck."""
    peer = torch_attention(inputs)
    if peer is None or not output.size:
        return None
    return max(BETTER_THAN_TORCH * root_mean_square(peer - output), root_mean_square(luck))


def least(dtype: str, call: Call) -> float:
    """What underflow may lose: the output's smallest numbers, and weights below the arithmetic's."""
    finite = np.where(np.isfinite(call.value.astype(np.float64)), call.value.astype(np.float64), 0.0)
    weight = float(np.finfo(arithmetic(dtype)).tiny) * call.problem.keys
    weight /= 1 - call.problem.dropout_p
    return smallest_number(dtype) + weight * float(abs(finite).max(initial=0.0))


def smallest_number(dtype: str) -> float:
    """The smallest positive number of a type."""
    return {"float64": 2.0**-1074, "float32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133}[dtype]


def check(case: Case, dtype: str, output: Any, **statistics: Any) -> None:
    """Raise AssertionError unless this is the answer to the case: the output, and lse=…, entropy=… if given."""
    want = expected(case, dtype)
    assert output.dtype == DTYPES[dtype], f"output is {output.dtype}, expected {dtype}"
    got = np.asarray(output).astype(np.float64)
    compare("output", got, want.output, want.output_bound)
    if want.error_bound is not None:
        error = root_mean_square(got - want.output)
        assert error <= want.error_bound, f"root mean square error {error:.3g} exceeds {want.error_bound:.3g}"
    for name, x in statistics.items():
        assert x.dtype == DTYPES[arithmetic(dtype)], f"{name} is {x.dtype}, expected {arithmetic(dtype)}"
        got = np.asarray(x).astype(np.float64)
        compare(name, got, want.statistics[name], want.statistics_bounds[name])


def compare(name: str, got: Array, want: Array, bound: Array) -> None:
    """Shape, NaN and ±Inf equal; the rest within the bound, which is 0 for a query that sees nothing."""
    assert got.shape == want.shape, f"{name} has shape {got.shape}, expected {want.shape}"
    special = ~np.isfinite(want)
    wrong = ~np.where(special, same_special(got, want), np.isfinite(got))
    assert not wrong.any(), f"{name}: NaN or Inf is off; {describe(wrong, got, want)}"
    with np.errstate(invalid="ignore"):
        wrong = ~special & ~(abs(got - want) <= bound)
    assert not wrong.any(), f"{name}: rounding is off; {describe(wrong, got, want, bound)}"


def same_special(got: Array, want: Array) -> Array:
    """NaN for NaN, +Inf for +Inf, −Inf for −Inf."""
    return np.where(np.isnan(want), np.isnan(got), got == want)


def describe(wrong: Array, got: Array, want: Array, bound: Array | None = None) -> str:
    """How many are wrong, and the first of them."""
    where = tuple(int(i) for i in np.argwhere(wrong)[0])
    allowed = "" if bound is None else f" ± {bound[where]:.2g}"
    first = f"{got[where]!r} at {where}, expected {want[where]!r}{allowed}"
    return f"{wrong.sum()} of {wrong.size} wrong, the first {first}"


def root_mean_square(x: Array) -> float:
    """√(mean x²)."""
    return float(np.sqrt(np.mean(np.square(x))))
