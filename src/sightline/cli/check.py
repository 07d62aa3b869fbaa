"""How far a result is from the definition: a few rows of it against the float64 reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sightline.parts import Part, arguments

if TYPE_CHECKING:
    from sightline.cli.files import Array
    from sightline.reference_call import Call

HEADS = 6  # heads looked at, spread over all sequences
RUNS = 4  # runs of neighbouring rows in each, spread from the first row to the last
ROWS = 4  # rows in a run
WORK = 2**29  # operations that the check may cost, about a second: beyond, it looks at fewer heads
READING = 32  # operations a number that takes part costs before it is used: it becomes float64


@dataclass(frozen=True, slots=True)
class Checked:
    """The outcome: nothing was left out but rows."""

    error: float
    """Largest over the rows of max|output − reference| / max|reference|; inf if only one is NaN or zero."""
    rows: int
    heads: int


def check(call: Call, output: Array) -> Checked:
    """Compares sampled rows of `output` (…, Hq, Lq, Dv) with the reference; the sample is always the same."""
    from sightline.reference import output_and_lse

    sample = _sample(call)
    worst = 0.0
    for part in sample:
        arrays, options = arguments(call, part)
        expected, _ = output_and_lse(*arrays, **options)
        worst = max(worst, relative_error(np.asarray(output[part.index], np.float64), expected))
    rows = sum(part.rows.stop - part.rows.start for part in sample)
    heads = {tuple(side.start for side in (*part.batch, part.heads)) for part in sample}
    return Checked(worst, rows, len(heads))


def relative_error(found: Array, expected: Array) -> float:
    """max|found − expected| / max|expected| of the worst row; equal NaN and infinities are no error."""
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(found - expected))
    difference = np.where(np.isnan(difference), np.inf, difference).max(axis=-1, initial=0.0)
    largest = np.where(np.isfinite(expected), np.abs(expected), 0.0).max(axis=-1, initial=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(difference == 0.0, 0.0, difference / largest)
    return float(ratio.max(initial=0.0))


def _sample(call: Call) -> list[Part]:
    problem = call.problem
    every = int(np.prod(problem.batch, dtype=np.int64)) * problem.heads
    per_head = RUNS * (ROWS + READING) * problem.keys * (problem.dim + problem.value_dim)
    heads = _spread(every, min(HEADS, max(1, WORK // max(per_head, 1))))
    starts = _spread(max(problem.queries - ROWS + 1, min(problem.queries, 1)), RUNS)
    shape = (*problem.batch, problem.heads)
    sample = []
    for number in heads:
        *batch, head = (int(i) for i in np.unravel_index(number, shape))
        one = tuple(slice(i, i + 1) for i in batch)
        for start in starts:
            rows = slice(start, min(start + ROWS, problem.queries))
            sample.append(Part(one, slice(head, head + 1), rows))
    return sample


def _spread(size: int, count: int) -> list[int]:
    """At most `count` different numbers below `size`, evenly from the first to the last."""
    return sorted({int(i) for i in np.linspace(0, size - 1, min(count, size)).round()}) if size else []
