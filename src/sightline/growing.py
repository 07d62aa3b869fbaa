"""Calls whose keys grow, as a decoder's cache does: what one length needed, remembered for the next.

To plan a call takes longer than to look one up, and each step of a decoder has a length that no call had before.
Where nothing but the number of keys and the strides that follow from it are new, kernel and arguments stay: of 64
lengths in a row, the first is prepared as any call is, the second prepares the longest of them as well, and all
others are made from that.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sightline import operands
from sightline.arrays import Spec
from sightline.cpu import isa
from sightline.cpu.run import Prepared
from sightline.plan import plan

if TYPE_CHECKING:
    from collections.abc import Hashable

    from sightline.plan import Plan
    from sightline.problem import Problem

LENGTHS = 64  # a kernel's periods of keys are multiples of it


class Pattern:
    """The calls of so many lengths in a row that differ in nothing else."""

    __slots__ = ("_learned", "_longest")

    def __init__(self) -> None:
        self._longest: Prepared | None = None
        self._learned = False

    def prepared(self, specs: dict[str, Spec], layout: str) -> Prepared | None:
        """The call with these arrays, if it is known how to make it from another."""
        if self._longest is None:
            return None
        batch = self._longest.plan.problem.batch
        key, value = (operands.heads_first(specs[name], layout) for name in ("key", "value"))
        return self._longest.with_keys(*(operands.broadcast(x, batch + x.shape[-3:]) for x in (key, value)))

    def learn(self, problem: Problem) -> None:
        """Prepare for the other lengths, unless they are planned differently."""
        if self._learned:
            return
        self._learned = True
        last = -(-problem.keys // LENGTHS) * LENGTHS
        first, longest = (_planned(problem, keys) for keys in (last - LENGTHS + 1, last))
        if (first.kernel, first.pieces) == (longest.kernel, longest.pieces):
            self._longest = Prepared(longest, None)


def pattern(specs: dict[str, Spec], options: dict[str, Any]) -> Hashable:
    """What calls have in common that differ in their keys alone; None where a new length may mean more.

    With causality or a window the number of keys decides what is an error; masks and biases grow as well.
    """
    if len(specs) > 3 or options["causal"] is not False or options["key_lengths"] is not None:
        return None
    if (
        options["window"] is not None
        or options["dropout_p"]
        or not isinstance(options["query_offset"], int | None)
    ):
        return None
    query, key, value = specs.values()
    rank = len(key.shape)
    axis = rank - (3 if options["layout"] == "BLHD" and rank > 2 else 2)
    if rank < 2 or len(value.shape) != rank or key.shape[axis] != value.shape[axis] or not key.shape[axis]:
        return None
    rows = ((*x.shape[:axis], *x.shape[axis + 1 :], x.strides[-1], x.dtype) for x in (key, value))
    chunk = (key.shape[axis] - 1) // LENGTHS
    types = tuple(map(type, options.values()))  # 1 == True, but scale=True is an error
    return (isa.word(), query, *rows, chunk, *options.values(), types)


def _planned(problem: Problem, keys: int) -> Plan:
    """The same with another number of keys."""
    key, value = (
        Spec((*x.shape[:-2], keys, x.shape[-1]), x.strides, x.dtype) for x in (problem.key, problem.value)
    )
    return plan(replace(problem, key=key, value=value), isa.chosen())
