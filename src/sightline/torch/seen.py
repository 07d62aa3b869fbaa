"""What to see, as a word that an operator can carry, and the form of what it gives back.

`encode` runs under torch.compile, so it is made of what that can follow.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

from sightline.see import Received, See, Seen, TopKeys, requested

if TYPE_CHECKING:
    from sightline.torch.call import Call

FLAGS = ("lse", "max_score", "entropy", "distance", "diagonals")


def encode(see: Any) -> str:
    """A word for each thing asked, as in "entropy top_keys=8 pooled=2,3"; names are taken as they come."""
    if see is None:
        return ""
    if not isinstance(see, See):
        return " ".join(see)
    words = [name for name in FLAGS if getattr(see, name)]
    how = see.received
    if isinstance(how, Received):
        counted = slice(None) if how.queries is None else how.queries
        bounds = f"{counted.start},{counted.stop},{counted.step}"
        words.append(f"received={bounds},{how.reduce},{how.normalize},{how.per_group}")
    elif how:
        words.append("received")
    if see.top_keys:
        words.append(f"top_keys={see.top_keys}")
    numbers = [(name, getattr(see, name)) for name in ("pooled", "rows", "heads")]
    words += [f"{name}={','.join([str(n) for n in each])}" for name, each in numbers if each is not None]
    return " ".join(words)


@functools.lru_cache
def decode(text: str) -> See:
    """The request that `encode` made the words from."""
    plain = [word for word in text.split() if "=" not in word]
    values: dict[str, Any] = {name: True for name in plain if requested([name])}  # which knows the names
    words = dict(word.split("=") for word in text.split() if "=" in word)
    if "received" in words:
        *bounds, reduce, normalize, per_group = words["received"].split(",")
        ends = [None if bound == "None" else int(bound) for bound in bounds]
        counted = None if ends == [None] * 3 else slice(*ends)
        how: Any = reduce
        values["received"] = Received(counted, how, normalize == "True", per_group == "True")
    if "top_keys" in words:
        values["top_keys"] = int(words["top_keys"])
    for name in ("pooled", "rows", "heads"):
        if name in words:
            values[name] = tuple(int(n) for n in words[name].split(",") if n)
    return See(**values)


def names(text: str) -> list[str]:
    """The fields of Seen that the words ask for, in their order; lse, which has gradients, goes its own way."""
    fields = [word.partition("=")[0] for word in text.split()]
    return [name for name in fields if name not in {"heads", "lse"}]


def listed(seen: Seen, text: str) -> list[Any]:
    """The tensors of a Seen but lse, in the order of the words: of top_keys two."""
    found = []
    for name in names(text):
        field = getattr(seen, name)
        found += list(field) if name == "top_keys" else [field]
    return found


def gathered(lse: Any, tensors: list[Any], text: str) -> Seen:
    """The Seen that `listed` took apart, with its part of the lse of all heads."""
    rest, words = list(tensors), text.split()
    fields = {}
    for name in names(text):
        fields[name] = TopKeys(rest.pop(0), rest.pop(0)) if name == "top_keys" else rest.pop(0)
    if "lse" in words:
        heads = [[int(n) for n in word[6:].split(",")] for word in words if word.startswith("heads=")]
        fields["lse"] = lse[..., heads[0], :] if heads else lse
    return Seen(**fields)


def shapes(call: Call) -> list[tuple[str, tuple[Any, ...]]]:
    """Names and shapes of the tensors that `listed` gives; heads come before queries in every layout."""
    request, (rows, keys, *stack) = decode(call.see), sizes(call)
    if request.heads is not None and stack:
        stack[-1] = len(request.heads)
    receiving, how = stack, request.how_received
    if how is not None and how.per_group and stack:
        axis = -2 if call.layout == "BLHD" else -3
        receiving = [*stack[:-1], stack[-1] * call.key.shape[axis] // call.query.shape[axis]]
    found: list[tuple[str, tuple[Any, ...]]] = []
    for name in names(call.see):
        if name == "top_keys":
            shape = (*stack, rows, request.top_keys)
            found += [("indices", shape), ("weights", shape)]
        elif name == "received":
            found.append((name, (*receiving, keys)))
        elif name == "pooled":
            found.append((name, (*stack, *(request.pooled or ()))))
        elif name == "rows":
            found.append((name, (*stack, len(request.rows or ()), keys)))
        elif name == "diagonals":
            found.append((name, (*stack, max(rows + keys - 1, 0))))
        else:
            found.append((name, (*stack, rows)))
    return found


def sizes(call: Call) -> tuple[Any, ...]:
    """Lq, Lk, then the batch and Hq; Lq and Lk alone for rank 2."""
    query, key, value = (tuple(x.shape) for x in call[:3])
    if len(query) == 2:
        return query[0], key[0]
    batch = tuple(torch.broadcast_shapes(query[:-3], key[:-3], value[:-3]))
    if call.layout == "BLHD":
        return query[-3], key[-3], *batch, query[-2]
    return query[-2], key[-2], *batch, query[-3]
