"""Seen.merge: what was seen of the parts of a call, joined into what would be seen of the whole.

Over parts of the keys, a part's weights shrink by share = exp(lse_part − lse), a factor of each query's own. What
is one number for each query, or keeps its query's weights apart, can be corrected for that; what has added up the
weights of many queries cannot. Over parts of the queries, weights stay what they are.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sightline import arrays
from sightline.merge import shares
from sightline.options import word
from sightline.see import PER_QUERY, See, Seen, TopKeys, requested

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

ADDED_UP = ("received", "pooled", "diagonals")


class Parts(NamedTuple):
    """The parts, and the request that each of them answers."""

    seen: Sequence[Seen]
    request: See

    def arrays(self, name: str, *free: int) -> list[Array]:
        """One field of every part; shapes are the same but for the axes `free`, counted from the end."""
        found = []
        for i, part in enumerate(self.seen):
            if getattr(part, name.partition(".")[0]) is None:
                raise ValueError(f"parts[{i}] has no {name}; expected what `see` asks for in every part.")
            found.append(arrays.to_numpy(arrays.view(attrgetter(name)(part), f"parts[{i}].{name}")))
        for i, x in enumerate(found):
            if _form(x, free) != _form(found[0], free):
                raise ValueError(
                    f"parts[{i}].{name} is {x.dtype} {x.shape} and parts[0]'s {found[0].dtype} {found[0].shape}; "
                    f"expected the same of all parts{f', but for axis {free[-1]}' if free else ''}."
                )
        return found

    def made(self, name: str, result: Array) -> Any:
        """A result in the type and kind of array of the first part's field."""
        like = attrgetter(name)(self.seen[0])
        made = arrays.empty_like(like, result.shape, arrays.view(like, name).spec.dtype)
        arrays.to_numpy(arrays.view(made, name))[...] = result
        return arrays.give_back(like, made)


def _form(x: Array, free: tuple[int, ...]) -> tuple[Any, ...]:
    return (x.dtype, *(None if axis - x.ndim in free else size for axis, size in enumerate(x.shape)))


def _wide(parts: list[Array]) -> list[Array]:
    """As many keys in all parts: those that a part lacks have no weight in it."""
    keys = max(x.shape[-1] for x in parts)
    return [np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, keys - x.shape[-1])]) for x in parts]


def merge(
    parts: Sequence[Seen], see: object, *, over: str, first_keys: Any = None, sinks: Any = None
) -> Seen:
    """See `Seen.merge`."""
    request = requested(see)
    word(over, "over", ("keys", "queries"))
    listed = Parts(list(parts), request)
    if not listed.seen:
        raise ValueError("there are no parts; expected at least one Seen.")
    for i, part in enumerate(listed.seen):
        if not isinstance(part, Seen):
            raise TypeError(f"parts[{i}] is {type(part).__name__}; expected a Seen.")
    if over == "keys":
        return Seen(**_over_keys(listed, first_keys, sinks))
    for name, given in (("first_keys", first_keys), ("sinks", sinks)):
        if given is not None:
            raise ValueError(f'{name} is given with over="queries"; expected it with over="keys" alone.')
    return Seen(**_over_queries(listed))


# ── Parts of the keys ──


def _over_keys(parts: Parts, first_keys: Any, sinks: Any) -> dict[str, Any]:
    """Each field of the whole, by its name."""
    request, made = parts.request, dict[str, Any]()
    for name in ADDED_UP:
        if getattr(request, name):
            raise ValueError(
                f"see.{name} cannot be joined over keys: it adds up the weights of many queries, and with the "
                f"other parts' keys each query's weights shrink by a factor of its own; try asking for it over "
                f"all keys in one look_only, which needs no values, or in parts of the queries."
            )
    if not request.lse:
        raise ValueError(
            "see.lse is False; joining over keys needs every part's lse: try adding it to `see`."
        )
    lses = [x.astype(np.float64) for x in parts.arrays("lse")]
    outside = [] if sinks is None else [_sinks(sinks, request, lses[0])]
    share, lse = shares([*lses, *outside])
    made["lse"] = parts.made("lse", lse)
    if request.max_score:
        highest = np.max(parts.arrays("max_score"), axis=0)
        made["max_score"] = parts.made("max_score", np.where(np.isnan(lse), np.nan, highest))
    if request.entropy:
        made["entropy"] = parts.made("entropy", _entropy(parts.arrays("entropy"), share))
    if request.distance:
        pairs = zip(parts.arrays("distance"), share, strict=False)
        made["distance"] = parts.made("distance", np.sum([x * s for x, s in pairs], axis=0))
    if request.rows is not None:
        made["rows"] = parts.made("rows", _rows(parts, share))
    if request.top_keys:
        firsts = _first_keys(first_keys, len(parts.seen))
        made["top_keys"] = _top_keys(parts, firsts, [*zip(share, lses, strict=False)])
    return made


def _sinks(sinks: Any, request: See, lse: Array) -> Array:
    """The logit of each head, as one more part that every query sees."""
    logits = arrays.to_numpy(arrays.view(sinks, "sinks"))
    heads = 1 if lse.ndim == 1 else lse.shape[-2]
    known = heads if request.heads is None else len(logits) if logits.ndim == 1 else 0
    if logits.shape != (known,) or any(not -known <= head < known for head in request.heads or ()):
        raise ValueError(
            f"sinks has shape {logits.shape}; expected one logit for each query head: ({heads},), or all heads' "
            f"where see.heads names some."
        )
    chosen = logits if request.heads is None else logits[list(request.heads)]
    chosen = chosen.astype(np.float64)
    return np.broadcast_to(chosen[:, None] if lse.ndim > 1 else chosen, lse.shape)


def _entropy(parts: list[Array], share: list[Array]) -> Array:
    """−Σ s·w·log(s·w) = s·(entropy − log s) for each part, whose weights w add up to 1."""
    total = np.zeros(share[0].shape)
    for x, s in zip(parts, share, strict=False):
        total += s * (x - np.log(np.where(s == 0, 1.0, s)))
    return total


def _rows(parts: Parts, share: list[Array]) -> Array:
    """Weights of the chosen queries, side by side. Where a row is NaN, keys that are not seen still have 0."""
    chosen, queries = list(parts.request.rows or ()), share[0].shape[-1]
    rows = parts.arrays("rows", -1)
    if rows[0].shape[-2] != len(chosen) or any(not -queries <= row < queries for row in chosen):
        raise ValueError(
            f"see.rows is {tuple(chosen)} and parts[0].rows has {rows[0].shape[-2]} rows of {queries} queries; "
            f"expected the request that the parts answer."
        )
    factors = (s[..., chosen][..., None] for s in share)
    return np.concatenate(
        [np.where(x == 0, 0.0, x * s) for x, s in zip(rows, factors, strict=False)], axis=-1
    )


def _first_keys(given: Any, count: int) -> list[int]:
    firsts = [] if given is None else [int(first) for first in given]
    if len(firsts) != count:
        raise ValueError(
            f"first_keys is {given!r}; joining top_keys needs the place of each part's first key among all keys: "
            f"expected {count} ints; try first_keys=(0, …)."
        )
    return firsts


def _top_keys(parts: Parts, firsts: list[int], measures: list[tuple[Array, Array]]) -> TopKeys:
    """The largest of all parts' largest: by weight, then (where weights underflow) by score, then by key."""
    found = parts.arrays("top_keys.weights")
    weights, scores, keys = [], [], []
    for x, index, first, (share, lse) in zip(
        found, parts.arrays("top_keys.indices"), firsts, measures, strict=True
    ):
        missing = index < 0
        weights.append(np.where(missing, 0.0, x * share[..., None]).astype(x.dtype))
        with np.errstate(divide="ignore", invalid="ignore"):
            scores.append(np.where(missing, -np.inf, np.log(x.astype(np.float64)) + lse[..., None]))
        keys.append(np.where(missing, np.iinfo(np.int64).max, index + first))
    weight, score, key = (np.concatenate(each, axis=-1) for each in (weights, scores, keys))
    order = np.lexsort((key, -score, -weight), axis=-1)[..., : found[0].shape[-1]]
    key, weight = (np.take_along_axis(each, order, axis=-1) for each in (key, weight))
    undefined = np.isnan(sum(share for share, _ in measures))[..., None]
    key = np.where((key == np.iinfo(np.int64).max) | undefined, -1, key)
    weight = np.where(undefined, np.nan, weight)
    return TopKeys(parts.made("top_keys.indices", key), parts.made("top_keys.weights", weight))


# ── Parts of the queries ──


def _over_queries(parts: Parts) -> dict[str, Any]:
    """Each field of the whole, by its name."""
    request, made = parts.request, dict[str, Any]()
    if request.pooled:
        raise ValueError(
            "see.pooled cannot be joined over queries: a part's blocks are not the whole's; try asking for it "
            "over all queries in one look_only."
        )
    for name in PER_QUERY:
        if getattr(request, name):
            made[name] = parts.made(name, np.concatenate(parts.arrays(name, -1), axis=-1))
    if request.received:
        made["received"] = parts.made("received", _received(parts))
    if request.top_keys:
        both = ("top_keys.indices", "top_keys.weights")
        joined = (parts.made(name, np.concatenate(parts.arrays(name, -2), axis=-2)) for name in both)
        made["top_keys"] = TopKeys(*joined)
    if request.rows is not None:
        made["rows"] = parts.made("rows", np.concatenate(_wide(parts.arrays("rows", -1, -2)), axis=-2))
    if request.diagonals:
        made["diagonals"] = parts.made("diagonals", _diagonals(parts))
    return made


def _received(parts: Parts) -> Array:
    """The sum of sums, or the largest of the largest."""
    how = parts.request.how_received
    if how and (how.normalize or (how.per_group and how.reduce == "max")):
        what = "normalize" if how.normalize else 'per_group with reduce="max"'
        instead = "sums, and dividing them" if how.normalize else "each head, and taking the mean"
        raise ValueError(
            f"see.received has {what}, after which parts cannot be joined; try asking for {instead} afterwards."
        )
    received = _wide(parts.arrays("received", -1))
    if how and how.reduce == "max":
        return np.asarray(np.max(received, axis=0))
    return np.asarray(np.sum(received, axis=0, dtype=np.float64))


def _diagonals(parts: Parts) -> Array:
    """Part p of n_p queries from query f_p on: its place 0 is j − i = −(f_p + n_p − 1)."""
    counts, sums = _queries(parts), parts.arrays("diagonals", -1)
    queries = sum(counts)
    keys = max((x.shape[-1] - n + 1 for x, n in zip(sums, counts, strict=True) if x.shape[-1]), default=0)
    total = np.zeros((*sums[0].shape[:-1], max(queries + keys - 1, 0)))
    after = queries
    for x, n in zip(sums, counts, strict=True):
        after -= n  # queries of later parts
        total[..., after : after + x.shape[-1]] += x
    return total


def _queries(parts: Parts) -> list[int]:
    """How many queries each part has."""
    for name in PER_QUERY:
        if getattr(parts.request, name):
            return [x.shape[-1] for x in parts.arrays(name, -1)]
    raise ValueError(
        "see.diagonals alone does not tell how many queries each part has; try asking for lse too, in every part "
        "and here."
    )
