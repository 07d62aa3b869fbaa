"""The arrays of one call for gradients: what is read, where results go, and how they become what was asked for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import arrays, operands
from sightline.cpu.signature import contiguous
from sightline.kernel_key import SIZES
from sightline.passes import readers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sightline.arrays import Spec, View, Workers
    from sightline.problem import Problem

    Array = NDArray[Any]

PER_HEAD = {"sinks": "dot", "alibi_slopes": "lean"}
"""Gradients of one number for each head, and the numbers for each query that they are made of."""


class GradientCall:
    """What a backward kernel reads and writes: `specs` by operand, `numbers` by slot."""

    def __init__(self, problem: Problem, views: dict[str, View]) -> None:
        """Take in the arrays of the forward call."""
        p = self.problem = problem
        self.specs: dict[str, Spec] = {"query": p.query, "key": p.key, "value": p.value}
        self.specs |= {name: spec for name, spec in (("mask", p.mask), ("bias", p.bias)) if spec is not None}
        self.numbers = {name: views[name].address for name in self.specs}
        self._views, self._kept = dict(views), list[object](views.values())
        self._made: dict[str, Any] = {}
        self._rows: dict[str, Array] = {}
        for name, slot in (("sinks", "sinks"), ("alibi_slopes", "slopes")):
            if name in views:
                self._keep(slot, np.ascontiguousarray(arrays.to_numpy(views[name]), np.float64))

    @property
    def bias_shape(self) -> tuple[int, ...]:
        """The one that the bias was given in; () without one."""
        return self._views["bias"].spec.shape if "bias" in self._views else ()

    @property
    def workers(self) -> Workers | None:
        """The threads that the query's framework computes with."""
        return arrays.workers(self._views["query"].owner)

    def read(self, x: object, name: str, slot: str) -> None:
        """An array in the output's shape."""
        p, seen = self.problem, arrays.view(x, name)
        if seen.spec.dtype != p.dtype:
            raise TypeError(
                f"{name} has dtype {seen.spec.dtype}; expected {p.dtype}, as query has; try casting it."
            )
        if seen.spec.shape != p.output_shape:
            raise ValueError(
                f"{name} has shape {seen.spec.shape}; expected {p.output_shape}, as attention's output has."
            )
        self.specs[slot], self.numbers[slot] = operands.heads_first(seen.spec, p.layout), seen.address
        self._kept.append(seen)

    def read_rows(self, x: object, name: str, slot: str) -> None:
        """An array of one number for each query, copied if it is not contiguous."""
        p, seen = self.problem, arrays.view(x, name)
        if seen.spec.dtype not in {"float32", "float64"}:
            raise TypeError(
                f"{name} has dtype {seen.spec.dtype}; expected {p.statistics_dtype}; try casting it."
            )
        if seen.spec.shape != p.rows_shape:
            raise ValueError(
                f"{name} has shape {seen.spec.shape}; expected {p.rows_shape}, (*batch, query heads, queries) in "
                f'either layout, as see=("lse",) gives it.'
            )
        rows = np.ascontiguousarray(arrays.to_numpy(seen), p.statistics_dtype)
        self._rows[slot] = rows
        self._keep(slot, rows)
        self._kept.append(seen)

    def make(self, name: str, like: object) -> None:
        """Memory for a gradient."""
        p = self.problem
        if name in PER_HEAD:
            rows = self._rows[PER_HEAD[name]] = np.zeros(p.rows_shape, p.statistics_dtype)
            self._keep(PER_HEAD[name], rows)
            return
        if name == "bias":
            self._make_bias(like)
            return
        shape = self._full_shape(self.specs[name].shape)
        if shape == self._views[name].spec.shape:
            self._made[name] = arrays.empty_like(like, shape, p.dtype)
        else:  # what was broadcast is summed at the end
            self._made[name] = np.empty(shape, arrays.to_numpy(self._views[name]).dtype)
        spec = operands.heads_first(contiguous(shape, p.dtype), p.layout)
        self.specs[f"d_{name}"] = spec
        self.numbers[f"d_{name}"] = arrays.address(self._made[name])

    def _make_bias(self, like: object) -> None:
        """Memory for the gradient of the bias, in the shape it came in, and who reads which part of it."""
        given, p = self._views["bias"].spec, self.problem
        made = self._made["bias"] = arrays.empty_like(like, given.shape, given.dtype)
        if not (p.queries and p.keys and math.prod(p.batch)):  # where nothing is summed
            arrays.to_numpy(arrays.view(made, "bias"))[...] = 0
        rows, columns = (1, 1, *given.shape)[-2:]
        table = readers(p, given.shape)
        self._keep("repeats", table)
        self.numbers |= {
            "d_bias": arrays.address(made),
            "d_bias_row": columns * SIZES[given.dtype],
            "own_bytes": rows * columns * SIZES[given.dtype],
            "repeat_count": table.shape[1],
        }

    def finished(self, name: str, like: object) -> object:
        """A gradient as the caller's kind of array."""
        given = self._views[name].spec
        if name not in PER_HEAD and tuple(self._made[name].shape) == given.shape:
            return arrays.give_back(like, self._made[name])
        total = self._of_heads(name) if name in PER_HEAD else _summed(self._made[name], given.shape)
        result = arrays.empty_like(like, given.shape, given.dtype)
        arrays.to_numpy(arrays.view(result, name))[...] = total
        return arrays.give_back(like, result)

    def _of_heads(self, name: str) -> Array:
        """The sum of the numbers of each head's queries."""
        numbers = self._rows[PER_HEAD[name]].astype(np.float64)
        if name == "alibi_slopes":
            each = -numbers
        else:
            sinks = arrays.to_numpy(self._views["sinks"]).astype(np.float64)[:, None]
            d_lse = self._rows.get("d_lse", np.zeros(()))
            with np.errstate(all="ignore"):
                weights = np.where(np.isneginf(sinks), 0.0, np.exp(sinks - self._rows["lse"]))
                each = weights * (d_lse - numbers)
        each = each.reshape(math.prod(self.problem.batch), self.problem.heads, self.problem.queries)
        return np.asarray(each.sum(axis=(0, 2)))

    def _full_shape(self, canonical: tuple[int, ...]) -> tuple[int, ...]:
        """(*batch, heads, length, dim) in the caller's layout and rank."""
        if self.problem.rank == 2:
            return canonical[-2:]
        batch, (heads, length, dim) = canonical[:-3], canonical[-3:]
        return (*batch, length, heads, dim) if self.problem.layout == "BLHD" else canonical

    def _keep(self, slot: str, x: Array) -> None:
        self.numbers[slot] = x.ctypes.data
        self._kept.append(x)


def _summed(full: Array, shape: tuple[int, ...]) -> Array:
    """The sum over every axis that was broadcast from `shape`, in float64 or float32."""
    wide = np.float64 if full.dtype == np.float64 else np.float32
    stretched = tuple(
        axis
        for axis, n in enumerate(full.shape)
        if axis < (extra := full.ndim - len(shape)) or shape[axis - extra] != n
    )
    total: Array = full.astype(wide).sum(axis=stretched, keepdims=True)
    return total.reshape(shape)
