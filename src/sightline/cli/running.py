"""Runs one call and times it: short ones several times over, long ones once, in parts, under a bar."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sightline.cli.files import BFLOAT16
from sightline.cli.progress import PATIENCE, Bar
from sightline.parts import arguments, parts

if TYPE_CHECKING:
    from sightline.cli.files import Array
    from sightline.cli.inputs import Inputs
    from sightline.reference_call import Call

PART = 4e9  # floating-point operations worth a part of their own: some hundredths of a second
MOST_PARTS = 50
REPEATS = 5  # calls after the first, as long as they take less than PATIENCE together


@dataclass(frozen=True, slots=True)
class Ran:
    """A result and what it took."""

    output: Array
    """In the caller's layout."""
    seconds: float
    """The whole call, kernel at hand: the median where it was repeated."""
    first: float
    """The first time round, with making or loading the kernel."""
    repeats: int
    """Calls that the median is of; 0 where there was no time to repeat."""


def attend(inputs: Inputs, call: Call, flops: float) -> Ran:
    """Attention as asked. Long work (by its `flops`) goes in parts, which changes no bit of the result."""
    count = min(MOST_PARTS, int(flops / PART))
    start = time.perf_counter()
    output = _whole(inputs) if count < 2 else _in_parts(call, count)
    first = time.perf_counter() - start
    times: list[float] = []
    while first + sum(times) < PATIENCE and len(times) < REPEATS:
        start = time.perf_counter()
        output = _whole(inputs)
        times.append(time.perf_counter() - start)
    if output.shape != call.problem.output_shape:
        raise RuntimeError(f"the output has shape {output.shape}, not {call.problem.output_shape}")
    return Ran(output, statistics.median(times) if times else first, first, len(times))


def _whole(inputs: Inputs) -> Array:
    from sightline import attention

    return np.asarray(attention(inputs.query, inputs.key, inputs.value, **inputs.options))


def _in_parts(call: Call, count: int) -> Array:
    from sightline import attention
    from sightline.reference import in_layout

    problem = call.problem
    dtype = BFLOAT16 if problem.dtype == "bfloat16" else np.dtype(problem.dtype)
    output = np.empty((*problem.batch, problem.heads, problem.queries, problem.value_dim), dtype)
    pieces = parts(call, count)
    with Bar(len(pieces)) as bar:
        for part in pieces:
            arrays, options = arguments(call, part)
            output[part.index] = attention(*arrays, **options)
            bar.advance()
    return in_layout(output, problem)
