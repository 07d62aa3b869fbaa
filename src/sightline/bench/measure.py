"""Right before fast, then in turns: every library makes the same call, round after round, and medians are kept.

A ratio is taken inside a round and the median of those is reported, so that a machine whose mood changes does
not decide it. Between two turns there is a pause: most libraries' threads go on spinning after a call.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sightline import reference
from sightline.bench.others import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sightline.bench.others import Library, Ready
    from sightline.bench.shapes import Array, Shape

# Relative errors above these disqualify: some ten times those of honest arithmetic in the dtype.
TOLERANCE = {"float32": 1e-4, "float16": 3e-3, "bfloat16": 3e-2}
ROWS = 8  # query rows looked at, of the first two heads and the last
PAUSE = 0.12  # seconds
MOST_CALLS = 2000


@dataclass(frozen=True, slots=True)
class Row:
    """One library's figures for one call."""

    shape: str
    dtype: str
    threads: int
    library: str
    milliseconds: float
    """of a call, the median"""
    gflops: float
    gigabytes: float
    """GB/s of query, key, value and output, each once"""
    times: float
    """how many times as long as ours it takes, the median over the rounds"""
    error: float
    """relative, against float64"""


@dataclass(frozen=True, slots=True)
class Refused:
    """A library that is not timed."""

    shape: str
    dtype: str
    library: str
    why: str


def measure(
    shape: Shape, dtype: str, threads: int, libraries: Mapping[str, Library], rounds: int, turn: float
) -> Iterator[Row | Refused]:
    """Check all of them, time those that are right; ours first, then the fastest.

    Args:
        shape: the call.
        dtype: of its arrays.
        threads: that each may use.
        libraries: by name; ours must be among them.
        rounds: in which each has a turn.
        turn: seconds of calls in a turn.
    """
    inputs = shape.inputs(dtype)
    rows, expected = _expected(shape, inputs)
    errors, ready = {}, {}
    for name, library in libraries.items():
        if dtype not in library.dtypes:
            continue
        try:
            made = library.prepare(shape, inputs, threads)
            if made is None:
                continue
            made.call()
            error = _error(shape, made.result(), rows, expected)
        except Exception as problem:  # whatever a library may raise: the others go on
            yield Refused(shape.name, dtype, name, f"{type(problem).__name__}: {problem}")
            continue
        if not error <= TOLERANCE[dtype]:
            yield Refused(shape.name, dtype, name, f"wrong: relative error {error:.2g}")
            continue
        errors[name], ready[name] = error, made
    found = _rounds(ready, rounds, turn)
    made_rows = [
        Row(
            shape.name, dtype, threads, name,
            milliseconds=1e3 * (median := float(np.median(found[name]))),
            gflops=shape.flops / median / 1e9,
            gigabytes=shape.bytes(dtype) / median / 1e9,
            times=float(np.median(np.divide(found[name], found[OURS]))) if OURS in found else float("nan"),
            error=errors[name],
        )
        for name in found
    ]  # fmt: skip
    yield from sorted(made_rows, key=lambda row: (row.library != OURS, row.milliseconds))


def _rounds(ready: Mapping[str, Ready], rounds: int, turn: float) -> dict[str, list[float]]:
    """Seconds of a call in each round."""
    found: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(rounds):
        for name, made in ready.items():
            time.sleep(PAUSE)
            found[name].append(_turn(made, turn))
    return found


def _turn(made: Ready, seconds: float) -> float:
    """The median of calls made for so long, after one that does not count."""
    made.call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < MOST_CALLS and (not times or time.perf_counter() < end):
        start = time.perf_counter()
        made.call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _looked_at(shape: Shape) -> list[tuple[int, int]]:
    """Batch and head: two heads that may share a key head, and the last of all."""
    return [(0, 0), (0, 1 % shape.heads), (shape.batch - 1, shape.heads - 1)]


def _expected(shape: Shape, inputs: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    """Some rows of some heads, by the definition, from the inputs as rounded."""
    rows = np.unique(np.linspace(0, shape.queries - 1, ROWS).astype(int))
    query, key, value = (x.astype(np.float64) for x in inputs)
    allowed = rows[:, None] >= np.arange(shape.keys) if shape.causal else None
    outputs = [
        reference.attention(
            query[b, h][rows], key[b, h // shape.group], value[b, h // shape.group], mask=allowed
        )
        for b, h in _looked_at(shape)
    ]
    return rows, np.stack([steps.output for steps in outputs])


def _error(shape: Shape, output: Array, rows: Array, expected: Array) -> float:
    """‖output − expected‖ / ‖expected‖ over the rows looked at."""
    seen = np.stack([output[b, h][rows] for b, h in _looked_at(shape)])
    return float(np.linalg.norm(seen - expected) / np.linalg.norm(expected))
