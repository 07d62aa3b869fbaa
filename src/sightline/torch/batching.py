"""The operators under torch.vmap: the new axis becomes the first of the batch, which kernels have anyway."""

from __future__ import annotations

from typing import Any

import torch

from sightline.torch.call import Call
from sightline.torch.gradients import BACKWARD, DIFFERENTIABLE, FIELDS
from sightline.torch.operator import ATTENTION

TRIO = ("query", "key", "value")
BESIDE_SCORES = ("mask", "bias")


def _forward(size: int, places: tuple[Any, ...], *arguments: Any) -> list[Any]:
    """Every entry of the axis at once, where it can be an axis of the batch."""
    call, where = Call(*arguments), Call(*places)
    if not _in_one_call(call, where):
        return _one_by_one(ATTENTION, size, places, arguments)
    found = ATTENTION(*_batched(call, where, size))
    return [x.squeeze(1) for x in found] if _rank(call, where) == 2 else found


def _backward(size: int, places: tuple[Any, ...], *arguments: Any) -> list[Any]:
    """Every entry has gradients of its own: those of a head, of all its sequences together, need a call each."""
    call, where, rest = Call(*arguments[:FIELDS]), Call(*places[:FIELDS]), arguments[FIELDS:]
    per_head = any(rest[-1][DIFFERENTIABLE.index("sinks") :])
    if per_head or not _in_one_call(call, where) or _rank(call, where) == 2:
        return _one_by_one(BACKWARD, size, places, arguments)
    own = _first(call.bias, where.bias, size)  # (size, …) as given
    if own is not None:
        call, where = call._replace(bias=own), where._replace(bias=0)
    beside = (_first(x, place, size) for x, place in zip(rest[:-1], places[FIELDS:], strict=False))
    found = BACKWARD(*_batched(call, where, size), *beside, rest[-1])
    if rest[-1][DIFFERENTIABLE.index("bias")]:
        found[-1] = found[-1].reshape(own.shape)
    return found


def _in_one_call(call: Call, places: Call) -> bool:
    """Whether the axis is only in tensors that have a batch, and entries do not depend on their number in it."""
    return not call.dropout_p and all(
        place is None or name in (*TRIO, *BESIDE_SCORES)
        for name, place in zip(Call._fields, places, strict=True)
    )


def _rank(call: Call, places: Call) -> int:
    """Of query, key and value without the new axis."""
    return int(call.query.dim()) - (places.query is not None)


def _batched(call: Call, places: Call, size: int) -> Call:
    """The call with the new axis first in the batch; a call of rank 2 gets a head axis too."""
    named = call._asdict()
    rank = _rank(call, places)
    for name in TRIO:
        x = _first(named[name], getattr(places, name), size)
        named[name] = x[:, None] if rank == 2 else x
    for name in BESIDE_SCORES:
        if (place := getattr(places, name)) is not None:
            x = _first(named[name], place, size)
            missing = max(rank, 3) + 1 - x.dim()
            named[name] = x.reshape(size, *[1] * missing, *x.shape[1:])
    if rank == 2:
        named["layout"] = "BHLD"
    return Call(**named)


def _first(x: Any, place: Any, size: int) -> Any:
    """The tensor with the new axis in front, stretched if it has none."""
    if x is None:
        return None
    return x.expand(size, *x.shape) if place is None else x.movedim(place, 0)


def _one_by_one(op: Any, size: int, places: tuple[Any, ...], arguments: tuple[Any, ...]) -> list[Any]:
    """A call for each entry."""
    calls = [
        op(
            *(
                x.select(place, i) if isinstance(place, int) else x
                for x, place in zip(arguments, places, strict=True)
            )
        )
        for i in range(size)
    ]
    return [torch.stack(each) for each in zip(*calls, strict=True)]


def register() -> None:
    """Tell PyTorch."""
    ATTENTION.register_vmap(_forward)
    BACKWARD.register_vmap(_backward)
