"""`explain`: the five steps of a small attention call as arrays, and as tables to read."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from sightline.reference import Steps, all_heads
from sightline.reference_call import read
from sightline.tables import table

if TYPE_CHECKING:
    from sightline.problem import Problem
    from sightline.reference_call import Array, Bool, ScoreMod

HEADS = 8  # shown at most; the arrays have them all
QUERIES = 12
KEYS = 10
DIMS = 8


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Explanation(Steps):
    """The steps of all heads, which print as tables, head by head."""

    problem: Problem

    def __str__(self) -> str:
        heads = list(np.ndindex(*self.problem.batch, self.problem.heads))
        lines = [summary(self.problem)]
        for index in heads[:HEADS]:
            lines += explained_head(self, index)
        if len(heads) > HEADS:
            lines += ["", f"… and {len(heads) - HEADS} more heads"]
        return "\n".join(lines)

    __repr__ = __str__


def explain(
    query: object,
    key: object,
    value: object,
    *,
    mask: object = None,
    bias: object = None,
    causal: bool = False,
    window: tuple[int | None, int | None] | None = None,
    query_offset: object = None,
    key_lengths: object = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: object = None,
    alibi_slopes: object = None,
    score_mod: ScoreMod | None = None,
    dropout_p: float = 0.0,
    seed: int | None = None,
    layout: str = "BHLD",
) -> Explanation:
    """The five steps of attention on small arrays: `scores`, `scaled`, `masked`, `weights`, `output`.

    They are computed by the reference, in float64, the (…, Hq, Lq, Lk) matrices in full. The arguments are
    those of `attention`; `score_mod` takes whole matrices, as (score, batch, head, p, j).

    Returns:
        An `Explanation`: float64 arrays `scores`, `scaled`, `capped`, `masked`, `weights`, `kept` (…, Hq,
        Lq, Lk), `output` in the caller's layout, `lse` and `max_score` (…, Hq, Lq). It prints as tables.

    Raises:
        TypeError, ValueError: what came, what was expected, and what to try.

    Example:
        >>> import numpy as np
        >>> from sightline.explain import explain
        >>> words = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> steps = explain(words, words, words, causal=True)
        >>> steps.weights.round(2)
        array([[1.  , 0.  , 0.  ],
               [0.33, 0.67, 0.  ],
               [0.25, 0.25, 0.5 ]])
        >>> print(steps)
        attention of 3 queries to 3 keys: 1 head, D = 2, Dv = 2; scale 0.7071, causal
        <BLANKLINE>
        scores: q · k
                    key 0  key 1  key 2
        query 0     1.000  0.000  1.000
        query 1     0.000  1.000  1.000
        query 2     1.000  1.000  2.000
        <BLANKLINE>
        scaled: scores × 0.7071
                    key 0  key 1  key 2
        query 0     0.707  0.000  0.707
        query 1     0.000  0.707  0.707
        query 2     0.707  0.707  1.414
        <BLANKLINE>
        masked: scaled, · where the query does not see the key
                    key 0  key 1  key 2
        query 0     0.707      ·      ·
        query 1     0.000  0.707      ·
        query 2     0.707  0.707  1.414
        <BLANKLINE>
        weights: exp(masked − lse)
                    key 0  key 1  key 2
        query 0     1.000      ·      ·   lse 0.707
        query 1     0.330  0.670      ·   lse 1.108
        query 2     0.248  0.248  0.503   lse 2.100
        <BLANKLINE>
        output: Σ weights · v
                    dim 0  dim 1
        query 0     1.000  0.000
        query 1     0.330  0.670
        query 2     0.752  0.752
    """
    call = read(
        query,
        key,
        value,
        mask=mask,
        bias=bias,
        causal=causal,
        window=window,
        query_offset=query_offset,
        key_lengths=key_lengths,
        scale=scale,
        softcap=softcap,
        sinks=sinks,
        alibi_slopes=alibi_slopes,
        score_mod=score_mod,
        dropout_p=dropout_p,
        seed=seed,
        layout=layout,
    )
    steps = all_heads(call)
    arrays = {field.name: getattr(steps, field.name) for field in fields(Steps)}
    return Explanation(**arrays, problem=call.problem)


def summary(problem: Problem) -> str:
    """What is computed, in a line or two."""
    given = [f"scale {problem.scale:.4g}"]
    given += [] if problem.softcap is None else [f"softcap {problem.softcap:.4g}"]
    given += ["causal"] if problem.causal else []
    given += [] if problem.window is None else [f"window {problem.window}"]
    given += [] if not problem.dropout_p else [f"dropout {problem.dropout_p:.4g}"]
    given += ["key_lengths"] if problem.key_lengths else []
    given += [
        name for name in ("mask", "bias", "sinks", "alibi_slopes") if getattr(problem, name) is not None
    ]
    sizes = f"{plural(problem.queries, 'query')} to {plural(problem.keys, 'key')}"
    shared = "" if problem.group == 1 else f" on {plural(problem.kv_heads, 'key head')}"
    dims = f"D = {problem.dim}, Dv = {problem.value_dim}"
    return f"attention of {sizes}: {plural(problem.heads, 'head')}{shared}, {dims}; {', '.join(given)}"


def explained_head(steps: Explanation, index: tuple[int, ...]) -> list[str]:
    """The five steps of the head at index (…, h), a table each."""
    problem = steps.problem
    where = () if problem.rank == 2 else index
    output = steps.output.swapaxes(-3, -2) if problem.layout == "BLHD" and where else steps.output
    seen = steps.seen[where]
    lse = [f"   lse {x:.3f}" for x in steps.lse[where]]
    blind = ["" if row.any() else "   sees no key" for row in seen]
    cap = "" if problem.softcap is None else f", then softcap {problem.softcap:.4g}"
    parts = [
        ("scores: q · k", matrix_lines(steps.scores[where], "key", KEYS)),
        (f"scaled: scores × {problem.scale:.4g}{cap}", matrix_lines(steps.capped[where], "key", KEYS)),
        (masked_title(problem), matrix_lines(steps.masked[where], "key", KEYS, seen, blind)),
        ("weights: exp(masked − lse)", matrix_lines(steps.weights[where], "key", KEYS, seen, lse)),
        *dropped_lines(steps, where),
        ("output: Σ weights · v", matrix_lines(output[where], "dim", DIMS)),
    ]
    return [*head_title(problem, index), *(line for title, lines in parts for line in ("", title, *lines))]


def dropped_lines(steps: Explanation, where: tuple[int, ...]) -> list[tuple[str, list[str]]]:
    """What dropout leaves of the weights, if there is any."""
    if not steps.problem.dropout_p:
        return []
    kept = steps.kept[where]
    left = matrix_lines(steps.weights[where] * kept, "key", KEYS, steps.seen[where] & (kept > 0))
    return [("dropout: weights / (1 − dropout_p), · where dropped", left)]


def head_title(problem: Problem, index: tuple[int, ...]) -> list[str]:
    """Which head of which sequence, unless there is but one."""
    *batch, head = index
    sequence = f"sequence {', '.join(map(str, batch))}, " if batch else ""
    shared = "" if problem.group == 1 else f", which reads key head {head // problem.group}"
    return [] if problem.rank == 2 else ["", f"── {sequence}head {head}{shared} ──"]


def masked_title(problem: Problem) -> str:
    """The third step, which also adds what is added to the scores."""
    added = [f"+ {name}" for name in ("bias",) if problem.bias is not None]
    added += ["− slope · |p − j|"] if problem.alibi_slopes is not None else []
    return " ".join(["masked: scaled", *added]) + ", · where the query does not see the key"


def matrix_lines(
    matrix: Array, across: str, most: int, seen: Bool | None = None, notes: list[str] | None = None
) -> list[str]:
    """A row for each query, up to `QUERIES`, and a column for each key or dimension, up to `most`."""
    rows = [f"query {i}" for i in range(min(QUERIES, len(matrix)))]
    columns = [f"{across} {j}" for j in range(min(most, matrix.shape[1]))]
    more = len(matrix) - len(rows)
    return table(matrix, rows, columns, seen, notes) + (
        [f"… and {plural(more, 'more query')}"] if more else []
    )


def plural(count: int, thing: str) -> str:
    """1 query, 2 queries."""
    several = thing[:-1] + "ies" if thing.endswith("y") and not thing.endswith("ey") else thing + "s"
    return f"{count} {thing if count == 1 else several}"
