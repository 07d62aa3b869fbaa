"""Is what was seen right? All statistics of one head against `sightline.reference`, in chunks of its queries.

Where a head is too long for that, of a few queries; sums are then checked by what they add up to.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.check import TOLERANCE, relative_error
from benchmarks.peers import Case
from sightline import Received, See, reference, reference_statistics
from sightline.see import PER_QUERY

if TYPE_CHECKING:
    from benchmarks.shapes import Shape

HEAD = (0, -1)  # sequence, head
CHUNK = 256
LONGEST = 8192
"""Up to here the whole head is computed."""
WINDOW = Received(queries=slice(-64, None))
KEPT = "SEEING_DEFINITIONS"
"""The variable that names a folder in which definitions are kept, for as long as a benchmark runs."""


def check(case: Case, see: See, seen: Any) -> None:
    """Raise ValueError unless each statistic is within the dtype's tolerance."""
    compare = _whole if case.shape.queries <= LONGEST else _in_places
    for name, got, expected in compare(case, see, seen):
        error = relative_error(np.asarray(got, np.float64), expected)
        if not error <= TOLERANCE[case.dtype]:
            raise ValueError(f"{name} is off: relative error {error:.2g}")


def _head(x: Any) -> np.ndarray:
    return np.asarray(x[HEAD], np.float64)


def _whole(case: Case, see: See, seen: Any) -> list[tuple[str, Any, np.ndarray]]:
    """(name, what was seen, the definition's) of everything that was asked."""
    expected = definition(case.shape, case.dtype)
    found = [(name, _head(getattr(seen, name)), expected[name]) for name in PER_QUERY if getattr(see, name)]
    if see.top_keys:
        found.append(("top_keys", _head(seen.top_keys.weights), expected["top_keys"][:, : see.top_keys]))
    for name in ("received", "pooled", "diagonals"):
        if getattr(see, name):
            windowed = name == "received" and see.how_received == WINDOW
            found.append((name, _head(getattr(seen, name)), expected["window" if windowed else name]))
    if see.rows is not None:
        rows = [row % case.shape.queries for row in see.rows]
        found.append(("rows", _head(seen.rows), np.stack([_steps(case, [row]).weights[0] for row in rows])))
    return found


def _in_places(case: Case, see: See, seen: Any) -> list[tuple[str, Any, np.ndarray]]:
    """Eight queries, and sums over everything."""
    queries = case.shape.queries
    places = [0, 1, 63, 64, queries // 2, queries - 65, queries - 2, queries - 1]
    steps = _steps(case, places)
    request = See(True, True, True, True, top_keys=max(see.top_keys, 1))  # noqa: FBT003 - the four of PER_QUERY
    expected = reference_statistics.see(steps, request)
    found = [
        (name, _head(getattr(seen, name))[places], getattr(expected, name))
        for name in PER_QUERY
        if getattr(see, name)
    ]
    if see.top_keys and expected.top_keys:
        found.append(("top_keys", _head(seen.top_keys.weights)[places], expected.top_keys.weights))
    sums = [name for name in ("received", "pooled", "diagonals") if getattr(see, name)]
    return found + [(name, _head(getattr(seen, name)).sum(), np.asarray(float(queries))) for name in sums]


def _steps(case: Case, queries: list[int] | slice) -> reference.Steps:
    """The definition's steps of some queries of the head."""
    query, key, value = (x[HEAD].astype(np.float64) for x in (case.query, case.key, case.value))
    positions = np.arange(case.shape.queries)[queries]
    mask = positions[:, None] >= np.arange(case.shape.keys) if case.shape.causal else None
    steps = reference.attention(query[queries], key, value, mask=mask)
    object.__setattr__(steps, "positions", positions)  # where they stand in the whole
    return steps


@functools.lru_cache(maxsize=4)
def definition(shape: Shape, dtype: str) -> dict[str, np.ndarray]:
    """Every statistic of the head, from the folder KEPT names, if another worker left it there."""
    kept = Path(os.environ[KEPT]) / f"{shape.name}-{dtype}.npz" if KEPT in os.environ else None
    if kept is not None and kept.exists():
        return dict(np.load(kept))
    made: dict[str, Any] = _defined(Case(shape, dtype, *shape.inputs(dtype)))
    if kept is not None:
        np.savez(kept, **made)
    return made


def _defined(case: Case) -> dict[str, np.ndarray]:
    shape = case.shape
    queries, keys, (rows, columns) = shape.queries, shape.keys, (256, 256)
    made: dict[str, list[np.ndarray]] = {name: [] for name in (*PER_QUERY, "top_keys")}
    received, window, pooled = np.zeros(keys), np.zeros(keys), np.zeros((rows, columns))
    diagonals = np.zeros(queries + keys - 1)
    column_of = np.arange(keys) * columns // keys
    in_columns = (column_of[:, None] == np.arange(columns)).astype(float)  # (Lk, C)
    request = See(True, True, True, True, top_keys=8)  # noqa: FBT003 - the four of PER_QUERY
    for first in range(0, queries, CHUNK):
        chunk = slice(first, min(first + CHUNK, queries))
        steps = _steps(case, chunk)
        seen = reference_statistics.see(steps, request)
        for name in PER_QUERY:
            made[name].append(getattr(seen, name))
        made["top_keys"].append(seen.top_keys.weights if seen.top_keys else np.zeros(0))
        received += steps.weights.sum(axis=0)
        window += steps.weights[np.arange(queries)[chunk] >= queries - 64].sum(axis=0)
        np.add.at(pooled, np.arange(queries)[chunk] * rows // queries, steps.weights @ in_columns)
        for i, weights in enumerate(steps.weights, first):
            diagonals[queries - 1 - i : queries - 1 - i + keys] += weights
    whole = {name: np.concatenate(parts) for name, parts in made.items()}
    return whole | {"received": received, "window": window, "pooled": pooled, "diagonals": diagonals}
