"""What the gradients of a conformance case must be: exact where the definition is, close where numbers round.

As in `judge`: λ = 6 deviations, u the arithmetic's unit roundoff, u' that of the arrays' own type, r the relative
error of row i's weights. The backward program makes

    delta_i     off by λ·(u·√Dv + u')·√(Σ_d (dO·O)²) + λ·u·Σ_d |dO·O|: O comes rounded to its own type
    dP_ij       off by λ·u·√Dv·Σ_d |dO·v|
    dS_ij       = w·(dP − delta + dlse): off by r·|dS| + w·(the two above + 4·u·(|dP| + |delta| + |dlse|))
    the softcap's derivative 1 − tanh² off by λ·u·(s/softcap + 10), s the error of a score in u
    sums        of n products a·b, off by Σ δa·|b| and λ·u·√n·√Σ (a·b)² (and u·Σ|a·b|), and one own roundoff

bfloat16 kernels may round P and dS before they are multiplied: t = u_bf16/√3·√Σ (a·b)², λ times.
Where PyTorch's autograd can compute the same call in the same type, the root mean square error is at most 1.2
times PyTorch's, or what luck and t allow.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from cases import DTYPES, Array, Case, build
from judge import (
    BETTER_THAN_TORCH,
    DEVIATIONS,
    arithmetic,
    compare,
    root_mean_square,
    score_error,
    shared_head,
    smallest_number,
    unit_roundoff,
    weight_error,
)
from peer import torch_gradients
from sightline import reference
from sightline.reference_call import Call, heads_first, read
from sightline.reference_gradients import as_given, gradients

NAMES = ("query", "key", "value", "bias", "sinks", "alibi_slopes")


@dataclass(frozen=True)
class Expected:
    """The definition's gradients, and how far off they may be."""

    d_output: Array
    d_lse: Array | None
    gradients: dict[str, Array]  # float64, in the shapes of the arrays
    bounds: dict[str, Array]  # for each element
    error_bounds: dict[str, float]  # for root mean square errors, where PyTorch has an answer


def cotangents(case: Case, dtype: str) -> tuple[Array, Array | None]:
    """The dO in the output's shape and type and, in every second case, dlse: the same numbers every time."""
    inputs = build(case, dtype)
    problem = read(inputs.query, inputs.key, inputs.value, **inputs.options).problem
    rng = np.random.default_rng(len(case.name))
    d_output = rng.standard_normal(problem.output_shape).astype(DTYPES[dtype])
    d_lse = rng.standard_normal(problem.rows_shape).astype(DTYPES[arithmetic(dtype)])
    return d_output, d_lse if len(case.name) % 2 else None


@functools.lru_cache(maxsize=8)
@np.errstate(all="ignore")
def expected(case: Case, dtype: str) -> Expected:
    """The reference's gradients of the inputs as rounded to `dtype`, and their bounds."""
    inputs = build(case, dtype)
    d_output, d_lse = cotangents(case, dtype)
    call = read(inputs.query, inputs.key, inputs.value, **inputs.options)
    want = gradients(inputs.query, inputs.key, inputs.value, d_output, d_lse, **inputs.options)
    bounds = _Bounds(call, dtype, d_output, d_lse)
    for index, steps in reference.heads(call):
        bounds.add_head(index, steps)
    named = {name: x for name in NAMES if (x := getattr(want, name)) is not None}
    off, luck = bounds.finished(named)
    peers = torch_gradients(inputs, d_output) if d_lse is None else {}  # PyTorch gives no lse
    errors = {
        name: max(BETTER_THAN_TORCH * root_mean_square(x - named[name]), root_mean_square(luck[name]))
        for name, x in peers.items()
    }
    return Expected(d_output, d_lse, named, off, errors)


class _Bounds:
    """The sums of the docstring, head after head."""

    def __init__(self, call: Call, dtype: str, d_output: Array, d_lse: Array | None) -> None:
        p = self.p = call.problem
        self.call, self.dtype = call, dtype
        self.u, self.own = unit_roundoff(arithmetic(dtype)), unit_roundoff(dtype)
        self.narrow = unit_roundoff("bfloat16") / np.sqrt(3) if dtype == "bfloat16" else 0.0
        rows = (*p.batch, p.heads, p.queries)
        self.d_output = heads_first(d_output.astype(np.float64), p)
        self.d_lse = np.zeros(rows) if d_lse is None else d_lse.astype(np.float64).reshape(rows)
        shapes = {"query": call.query.shape, "key": call.key.shape, "value": call.value.shape}
        shapes |= {"bias": (*rows, p.keys), "sinks": (p.heads,), "alibi_slopes": (p.heads,)}
        # Of each gradient: what its terms are off by, Σ|terms|, Σ terms², and Σ of one roundoff each, squared.
        self.off, self.sizes, self.squares, self.chance = (
            {n: np.zeros(s) for n, s in shapes.items()} for _ in range(4)
        )

    def add_head(self, index: tuple[int, ...], steps: reference.Steps) -> None:
        """The part of the head at index (…, h)."""
        call, p, u, head = self.call, self.p, self.u, index[-1]
        shared = shared_head(call, index)
        query, key, value = (
            np.nan_to_num(x.astype(np.float64), nan=0, posinf=0, neginf=0)
            for x in (call.query[index], call.key[shared], call.value[shared])
        )
        d_output, d_lse = self.d_output[index], self.d_lse[index][:, None]
        w, seen, kept = np.nan_to_num(steps.weights), steps.seen, steps.kept
        used = w * kept
        products = np.nan_to_num(d_output * steps.output)
        delta, each = products.sum(axis=1, keepdims=True), abs(products).sum(axis=1, keepdims=True)
        root = np.sqrt((products**2).sum(axis=1, keepdims=True))
        off_delta = DEVIATIONS * ((u * np.sqrt(p.value_dim) + self.own) * root + u * each)
        dp, dp_size = d_output @ value.T * kept, abs(d_output) @ abs(value).T * kept
        r = np.nan_to_num(DEVIATIONS * u * weight_error(call, index, steps)[:, None], posinf=0.0)
        inside = dp - delta + d_lse
        ds = np.where(seen, w * inside, 0.0)
        lost = seen * float(np.finfo(arithmetic(self.dtype)).tiny) * abs(inside)  # weights that underflow
        off = (
            r * abs(ds)
            + lost
            + w
            * (
                off_delta
                + DEVIATIONS * u * np.sqrt(p.value_dim) * dp_size
                + 4 * u * (abs(dp) + abs(delta) + abs(d_lse))
            )
        )
        slope: Any = 1.0
        off_slope: Any = 0.0
        if p.softcap is not None:
            slope = np.nan_to_num(1 - (steps.capped / p.softcap) ** 2)
            off_slope = np.nan_to_num(
                DEVIATIONS * u * (score_error(call, index, steps)[:, None] / p.softcap + 10)
            )
        d_scores, off_scores = (
            ds * slope * p.scale,
            (off * abs(slope) + abs(ds) * off_slope + 2 * u * abs(ds)) * abs(p.scale),
        )
        distance = abs(steps.positions[:, None] - np.arange(p.keys))
        sums = u * abs(p.scale) * np.sqrt(p.value_dim / 6 + 1)  # n partial sums, each off by u/√3
        off_root = np.hypot(sums, self.own / np.sqrt(3) * abs(p.scale)) * root
        weight = u * np.hypot(
            abs(p.scale) * np.sqrt((p.dim / 6 + 1) * (query**2 @ key.T**2)), np.nan_to_num(steps.lse)[:, None]
        )
        chance = np.hypot(
            w * np.hypot(sums * kept * np.sqrt(d_output**2 @ value.T**2), off_root), weight * d_scores
        )
        self.chance["value"][shared] += (weight * used).T ** 2 @ np.nan_to_num(d_output) ** 2
        self._product("query", index, d_scores, off_scores, key)
        self._product("key", shared, d_scores.T, off_scores.T, query)
        self.chance["query"][index] += (
            chance**2 @ key**2 + (off_root * (w @ key)) ** 2
        )  # delta is one for all keys
        self.chance["key"][shared] += chance.T**2 @ query**2
        self._product(
            "value",
            shared,
            used.T,
            (r * used + lost * 0 + seen * np.finfo(arithmetic(self.dtype)).tiny).T,
            d_output,
        )
        self._put("bias", index, off, abs(ds), ds**2)
        self._put(
            "alibi_slopes",
            head,
            (off * distance).sum(),
            (abs(ds) * distance).sum(),
            ((ds * distance) ** 2).sum(),
        )
        if call.sinks is not None:
            weight = np.nan_to_num(np.exp(float(call.sinks[head]) - steps.lse[:, None]))
            terms = weight * (d_lse - delta)
            self._put(
                "sinks", head, (r * abs(terms) + weight * off_delta).sum(), abs(terms).sum(), (terms**2).sum()
            )

    def _product(self, name: str, index: tuple[int, ...], a: Array, off: Array, b: Array) -> None:
        b = np.nan_to_num(b)
        self._put(name, index, off @ abs(b), abs(a) @ abs(b), a**2 @ b**2)

    def _put(self, name: str, index: Any, off: Any, size: Any, squares: Any) -> None:
        self.off[name][index] += off
        self.sizes[name][index] += size
        self.squares[name][index] += squares

    def finished(self, want: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Bounds for each element, and what luck may do, in the shapes of the arrays."""
        p, bounds, lucks = self.p, {}, {}
        terms = {"query": p.keys, "bias": p.queries * p.keys * p.heads * int(np.prod(p.batch))}
        for name, x in want.items():
            parts = (self.off, self.sizes, self.squares, self.chance)
            off, size, squares, chance = (self._as_given(part[name], name) for part in parts)
            n = terms.get(name, p.queries * p.group * int(np.prod(p.batch)))
            rounded = self.narrow * np.sqrt(squares) if name in {"query", "key", "value"} else 0.0 * squares
            own_dtype = self.dtype if name in {"query", "key", "value"} else self._dtype(name)
            least = smallest_number(own_dtype) * (1 + self._repeats(name)) * (size > 0)
            sums = DEVIATIONS * self.u * np.sqrt(max(n, 1)) * np.sqrt(squares) + self.u * size
            own = unit_roundoff(own_dtype)
            # What was broadcast along the batch is rounded before it is summed.
            bounds[name] = (
                off + sums + DEVIATIONS * rounded + own * (abs(x) + self._repeats(name) * size) + least
            )
            with np.errstate(invalid="ignore"):
                kind = DTYPES[self.dtype]
                narrowing = abs(x.astype(kind) - x.astype(DTYPES[arithmetic(self.dtype)])).astype(np.float64)
            lucks[name] = (
                np.sqrt(chance) + self.u * (size + abs(x)) + np.hypot(narrowing, BETTER_THAN_TORCH * rounded)
            )
        return bounds, lucks

    def _dtype(self, name: str) -> str:
        """That of the array."""
        return str(getattr(self.call, name).dtype.name)

    def _repeats(self, name: str) -> int:
        """Whether this array was broadcast along the batch."""
        shape = self.call.shapes[name]
        return int(name in {"query", "key", "value"} and shape[:-3] != self.p.batch and self.p.rank > 2)

    def _as_given(self, x: Array, name: str) -> Array:
        if name in {"query", "key", "value"}:
            x = reference.in_layout(x, self.p)
        return as_given(x, self.call.shapes[name]) if name not in {"sinks", "alibi_slopes"} else x


def check(case: Case, dtype: str, got: Any) -> None:
    """Raise AssertionError unless these are the gradients of the case, each that is not None."""
    want = expected(case, dtype)
    for name, x in want.gradients.items():
        if (given := getattr(got, name)) is not None:
            given = np.asarray(given).astype(np.float64)
            compare(f"d_{name}", given, x, want.bounds[name])
            if name in want.error_bounds:
                error, bound = root_mean_square(given - x), want.error_bounds[name]
                assert error <= bound, f"d_{name}: root mean square error {error:.3g} exceeds {bound:.3g}"
