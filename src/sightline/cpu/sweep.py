"""Runs the second pass: which heads and queries it has to go over, and what it does on the way.

Statistics of all queries share one sweep; the rows in full, and what keys
receive from a part of the queries if nothing else is asked, go over those queries alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sightline.cpu.run import Prepared
from sightline.cpu.sums import chosen_sums, numbers_of
from sightline.cpu.workspace import Workspace
from sightline.plan import Chosen, plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sightline.cpu.sums import Sums
    from sightline.plan import Plan
    from sightline.problem import Problem
    from sightline.see import See

FOR_SECOND_PASS = ("shift", "log_sum")
OF_ALL_QUERIES = ("top_keys", "pooled", "diagonals")


@dataclass(frozen=True, slots=True)
class Sweep:
    """One run of the second pass."""

    queries: range | tuple[int, ...]
    names: tuple[str, ...]
    """of the consumers"""


def needed(request: See) -> bool:
    """Whether the first pass cannot answer it alone."""
    return bool(request.received or request.rows is not None) or any(
        getattr(request, name) for name in OF_ALL_QUERIES
    )


def checked(request: See, problem: Problem) -> See:
    """The request with heads and rows that exist, counted from 0.

    Raises:
        ValueError: what came, and what was expected.
    """
    received = request.how_received
    if request.heads is not None:
        if problem.rank == 2:
            raise ValueError("see.heads is given; expected None, for arrays (L, D) have no axis of heads.")
        request = replace(request, heads=_within(request.heads, problem.heads, "heads"))
        if received and received.per_group and not _whole_groups(request.heads, problem.group):
            raise ValueError(
                f"see.heads is {request.heads} with received.per_group; expected whole groups of "
                f"{problem.group} heads that share a key head, in order."
            )
    if request.rows is not None:
        request = replace(request, rows=_within(request.rows, problem.queries, "rows"))
    return request


def _within(numbers: tuple[int, ...] | None, count: int, name: str) -> tuple[int, ...]:
    for number in numbers or ():
        if not -count <= number < count:
            raise ValueError(f"see.{name} has {number}; expected ints from {-count} to {count - 1}.")
    return tuple(number % count for number in numbers or ())


def _whole_groups(heads: tuple[int, ...] | None, group: int) -> bool:
    heads = heads or ()
    firsts = heads[::group]
    return all(h % group == 0 for h in firsts) and heads == tuple(h + i for h in firsts for i in range(group))


def sweeps(request: See, queries: int) -> Iterator[Sweep]:
    """The runs of the second pass that the request needs."""
    everything = [name for name in OF_ALL_QUERIES if getattr(request, name)]
    received = request.how_received
    if received:
        named = ["received" if received.reduce == "sum" else "received_max"]
        named += ["visible"] if received.normalize else []
        counted = range(queries)[received.queries or slice(None)]
        if len(counted) == queries:
            everything += named
        elif everything:
            everything += [*named, "counted"]
        else:
            yield Sweep(counted if counted.step > 0 else counted[::-1], tuple(named))
    if everything:
        yield Sweep(range(queries), tuple(everything))
    if request.rows is not None:
        yield Sweep(request.rows, ("rows",))


def queries_needed(request: See, queries: int) -> range | tuple[int, ...]:
    """The queries that anything is asked about."""
    if any(getattr(request, name) for name in ("lse", "max_score", "entropy", "distance")):
        return range(queries)
    runs = list(sweeps(request, queries))
    if any(len(run.queries) == queries for run in runs):
        return range(queries)
    return tuple(sorted({query for run in runs for query in run.queries}))


class SecondPass:
    """The second pass of one request, ready to run on any arrays of the first one's signature."""

    def __init__(self, first: Plan, request: See, key_length: int | None) -> None:
        p = first.problem
        self._runs: list[tuple[Prepared, list[Sums]]] = []
        heads = tuple(range(p.heads)) if request.heads is None else request.heads
        for sweep in sweeps(request, p.queries):
            chosen = Chosen(heads, sweep.queries)
            made = plan(p, first.isa, sweep.names, chosen=chosen, values=False, first=first.kernel)
            sums = chosen_sums(request, made)
            numbers, scratch = numbers_of(sums, Workspace(made.kernel, made.isa).bytes)
            self._runs.append((Prepared(made, None, key_length, numbers, scratch), sums))

    def run(
        self, given: tuple[Any, ...], first_pass: dict[str, Any], query_offset: object, key_lengths: object
    ) -> dict[str, Any]:
        """Each statistic by its name in Seen, as the kind of array that the query is."""
        query, key, _, mask, bias, _, slopes, _ = given
        operands = (query, key, None, mask, bias, None, slopes, None)
        made: dict[str, Any] = {}
        for prepared, sums in self._runs:
            room = {name: x for part in sums for name, x in part.make(query).items()}
            prepared.run(operands, first_pass | room, query_offset, key_lengths)
            for part in sums:
                made |= part.join(room, query)
        return made
