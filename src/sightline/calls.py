"""Calls made ready: all that shapes, strides, dtypes and options decide, looked up by their signature.

Every door comes here. A repeated call finds what an earlier one of its signature prepared, and only fills in
addresses.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from sightline import arrays, growing
from sightline.cpu import isa
from sightline.cpu.overlap import overlaps_itself
from sightline.cpu.run import OPERANDS, Prepared
from sightline.cpu.sweep import FOR_SECOND_PASS, SecondPass, checked, needed, queries_needed
from sightline.plan import Chosen, plan
from sightline.problem import Problem, int_or_spec
from sightline.see import PER_QUERY, See

if TYPE_CHECKING:
    from collections.abc import Hashable

OPTIONS = (
    "causal",
    "window",
    "query_offset",
    "key_lengths",
    "scale",
    "softcap",
    "layout",
    "precision",
    "dropout_p",
)

Operands = tuple[Any, ...]
"""In the order of OPERANDS, None where not given."""

_ready: dict[Hashable, Ready | growing.Pattern] = {}
MOST_READY = 1024
NOTHING = See()


class Ready:
    """One signature's kernels, and what they are asked to see."""

    __slots__ = ("_heads", "_names", "_prepared", "_second", "problem")

    def __init__(self, prepared: Prepared, request: See, second: SecondPass | None) -> None:
        self._prepared, self._second = prepared, second
        self.problem = prepared.plan.problem
        self._names = tuple(name for name in PER_QUERY if getattr(request, name))
        self._heads = request.heads

    @property
    def shape(self) -> tuple[int, ...]:
        """The output's."""
        return self._prepared.output_shape

    def result(self, query: Any) -> Any:
        """A new array for the output."""
        return arrays.empty_like(query, self._prepared.output_shape, self._prepared.dtype)

    def at(self, addresses: tuple[int, ...], given: Operands) -> None:
        """Write the output of a call that asks nothing about the weights: see `Prepared.at`."""
        self._prepared.at(addresses, given)

    def run(self, operands: Operands, offset: object, lengths: object, seed: int = 0) -> dict[str, Any]:
        """Write the output, if there is one, and give what was asked about the weights, by its name in Seen."""
        if not self._names and not self._second:
            self._prepared.run(operands, {}, offset, lengths, seed)
            return {}
        query, p = operands[0], self.problem
        names = (*self._names, *FOR_SECOND_PASS) if self._second else self._names
        made = {name: arrays.empty_like(query, p.rows_shape, p.statistics_dtype) for name in names}
        self._prepared.run(operands, made, offset, lengths, seed)
        seen: dict[str, Any] = {name: arrays.give_back(query, made[name]) for name in self._names}
        if self._heads is not None:
            heads = list(self._heads)
            seen = {name: x[..., heads, :] for name, x in seen.items()}
        if self._second is not None:
            sums = {name: made[name] for name in FOR_SECOND_PASS}
            seen |= self._second.run(operands, sums, offset, lengths)
        return seen


def ready(
    operands: Operands, options: tuple[Any, ...], see: See | None, *, values: bool = True
) -> tuple[Ready, Operands]:
    """What the call needs, and its operands with a NumPy look in place of what has no signature."""
    signed = _signature(operands, options, see, values=values)
    found = _lookup(signed)
    if found is not None:
        return found, operands
    if signed is None:
        operands = _settled(operands)
        signed = _signature(operands, options, see, values=values)
        found = _lookup(signed)
    return found or _prepare(operands, options, see, signed, values=values), operands


def _settled(operands: Operands) -> Operands:
    pairs = zip(OPERANDS, operands, strict=True)
    return tuple(None if x is None else arrays.settle(x, name) for name, x in pairs)


def _signature(operands: Operands, options: tuple[Any, ...], see: See | None, *, values: bool) -> Hashable:
    """All that a prepared call depends on; of values per sequence, read at every call, only whether given.

    None where something has no signature: what is wrong, if anything is, the slow path says.
    """
    types = tuple(map(type, options))  # 1 == True, but causal=1 is an error
    _, window, offset, lengths = options[:4]
    try:
        if window is not None:
            types += tuple(map(type, window))
        if offset is not None or lengths is not None:
            given = (x if x is None or isinstance(x, int) else "given" for x in (offset, lengths))
            options = (*options[:2], *given, *options[4:])
        arrays_seen = [x if x is None else arrays.signature(x) for x in operands]
    except (arrays.NoSignatureError, TypeError):
        return None
    return (isa.word(), see, values, options, types, *arrays_seen)


def _lookup(signed: Hashable) -> Any:
    """What was kept of an earlier call of the same signature."""
    try:
        return None if signed is None else _ready.get(signed)
    except TypeError:  # e.g. a window given as a list
        return None


def _keep(signed: Hashable, made: Ready | growing.Pattern) -> None:
    """For the next call like it."""
    with contextlib.suppress(TypeError):
        if signed is not None and _ready.get(signed) is None:
            if len(_ready) >= MOST_READY:
                _ready.clear()
            _ready[signed] = made


def _prepare(
    operands: Operands, options: tuple[Any, ...], see: See | None, signed: Hashable, *, values: bool
) -> Ready:
    """The slow path: look at everything, raise every error, plan, get the kernels."""
    required = OPERANDS[: 3 if values else 2]
    given = {name: x for name, x in zip(OPERANDS, operands, strict=True) if x is not None or name in required}
    views = {name: arrays.view(x, name) for name, x in given.items()}
    named: dict[str, Any] = dict(zip(OPTIONS, options, strict=True))
    for name in ("query_offset", "key_lengths"):
        named[name] = int_or_spec(named[name], name)
    _check_out(views.get("out"))
    specs: dict[str, Any] = {name: seen.spec for name, seen in views.items()}
    pattern = growing.pattern(specs, named) if values and see is None else None
    known = _lookup(pattern)
    if known is not None:
        prepared = known.prepared(specs, named["layout"])
        if prepared is not None:
            made = Ready(prepared, NOTHING, None)
            _keep(signed, made)
            return made
    if not values:
        specs["value"] = specs["key"]  # any that fits: it is not read
    problem = Problem.of(**specs, **named)
    lengths = named["key_lengths"] if isinstance(named["key_lengths"], int) else None
    request = checked(see or NOTHING, problem)
    made = _made(problem, request, views["out"].spec if "out" in views else None, lengths, values=values)
    _keep(signed, made)
    if known is not None:
        known.learn(problem)
    else:
        _keep(pattern, growing.Pattern())
    return made


def _made(
    problem: Problem, request: See, out: arrays.Spec | None, lengths: int | None, *, values: bool
) -> Ready:
    """The first pass, and the second if it is needed."""
    second = needed(request)
    names = tuple(name for name in PER_QUERY if getattr(request, name)) + (FOR_SECOND_PASS if second else ())
    chosen = None
    if not values:  # then only what is asked about is gone over
        heads = tuple(range(problem.heads)) if request.heads is None else request.heads
        chosen = Chosen(heads, queries_needed(request, problem.queries))
    first = plan(problem, isa.chosen(), names, chosen=chosen, values=values)
    prepared = Prepared(first, out, lengths)
    return Ready(prepared, request, SecondPass(first, request, lengths) if second else None)


def _check_out(out: arrays.View | None) -> None:
    """A kernel may write to it, each element to a place of its own."""
    if out is not None and not out.writable:
        raise ValueError("out is read-only; expected an array to write to; try a new one, or leave out=None.")
    if out is not None and overlaps_itself(out.spec):
        raise ValueError(
            f"out has strides {out.spec.strides} with which it overlaps itself; expected one place for each "
            f"element; try a new array, or leave out=None."
        )
