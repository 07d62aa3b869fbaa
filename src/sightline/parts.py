"""Cuts one call into smaller calls with the same result, so that long work can show how far it is.

Sequences, heads and queries do not depend on one another, so cutting there changes nothing; keys stay whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sightline.reference_call import Array, Call

ROWS = 1024  # queries are cut only at multiples of this, which is where kernels begin a block of rows too


@dataclass(frozen=True, slots=True)
class Part:
    """A box of the output (…, Hq, Lq, Dv): some sequences, query heads and queries."""

    batch: tuple[slice, ...]
    heads: slice
    rows: slice

    @property
    def index(self) -> tuple[slice, ...]:
        """Where the part lies in arrays of shape (…, Hq, Lq, anything)."""
        return (*self.batch, self.heads, self.rows)


def arguments(call: Call, part: Part) -> tuple[tuple[Array, Array, Array], dict[str, Any]]:
    """The arrays and options that compute `part`, nothing copied. Its heads are one head, or whole groups."""
    problem = call.problem
    group = problem.group
    shared = slice(part.heads.start // group, math.ceil(part.heads.stop / group))
    arrays = (call.query[part.index], call.key[(*part.batch, shared)], call.value[(*part.batch, shared)])
    options: dict[str, Any] = {"causal": problem.causal, "window": problem.window}
    options |= {"scale": problem.scale, "softcap": problem.softcap, "precision": problem.precision}
    options["query_offset"] = call.offsets[part.batch] + part.rows.start
    if problem.key_lengths:
        options["key_lengths"] = call.key_lengths[part.batch]
    for name, matrix in (("mask", call.mask), ("bias", call.bias)):
        if matrix is not None:
            options[name] = matrix[part.index]
    for name, per_head in (("sinks", call.sinks), ("alibi_slopes", call.alibi_slopes)):
        if per_head is not None:
            options[name] = per_head[part.heads]
    return arrays, options


def parts(call: Call, count: int) -> list[Part]:
    """About `count` parts, if there are places to cut: along sequences first, then heads, then queries."""
    problem = call.problem
    blocks = max(1, math.ceil(problem.queries / ROWS))
    boxes = _boxes((*problem.batch, problem.kv_heads, blocks), 1.0, 1.0 / count)
    return [
        Part(
            tuple(batch),
            slice(heads.start * problem.group, heads.stop * problem.group),
            slice(rows.start * ROWS, min(rows.stop * ROWS, problem.queries)),
        )
        for *batch, heads, rows in boxes
    ]


def _boxes(sizes: tuple[int, ...], work: float, target: float) -> Iterator[tuple[slice, ...]]:
    """Boxes that cover `sizes`, each of about `target` of the `work`, cut along the first axes."""
    if not sizes:
        yield ()
        return
    size, *rest = sizes
    each = work / max(size, 1)
    if rest and each > target:
        for i in range(size):
            for box in _boxes(tuple(rest), each, target):
                yield (slice(i, i + 1), *box)
        return
    step = max(1, round(target / each))
    for start in range(0, size, step):
        yield (slice(start, min(start + step, size)), *(slice(0, n) for n in rest))
