"""From a Seen, of whatever fields and kind of array, to a Picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.arrays import to_numpy, view
from sightline.look.picture import Picture
from sightline.look.sizes import OVERVIEW, SIDE, coarser, even_blocks
from sightline.look.words import labels
from sightline.see import Seen, TopKeys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PER_QUERY = ("lse", "max_score", "entropy", "distance")


def picture_of(
    seen: Seen,
    *,
    tokens: Sequence[str] | None = None,
    heads: Sequence[int] | None = None,
    names: Sequence[str | int] | None = None,
    title: str = "attention",
    sequence: int = 0,
    query_offset: int = 0,
) -> Picture:
    """The picture of what was seen; what was not asked for is left out. `Seen.plot` says what is what."""
    fields = _fields(seen, sequence)
    if not fields:
        raise ValueError(
            "there is nothing to draw in this Seen; "
            'expected fields such as see=("entropy", "received") or see=See(pooled=(256, 256)).'
        )
    count = _heads(fields)
    chosen = list(range(count) if heads is None else heads)
    for head in chosen:
        if not 0 <= head < count:
            raise ValueError(f"heads has {head}; this Seen has {count}, counted from 0.")
    if names is not None and len(names) != count:
        raise ValueError(f"names has {len(names)} of them; this Seen has {count} heads.")
    fields = {name: values[chosen] for name, values in fields.items()}
    queries, keys = _lengths(fields, tokens)
    arrays: dict[str, Any] = {name: fields[name] for name in (*PER_QUERY, "received") if name in fields}
    if "indices" in fields:
        arrays["top_keys"] = TopKeys(fields["indices"], fields["weights"])
    if "pooled" in fields:
        arrays |= _maps(fields["pooled"], queries, keys)
    return Picture(
        title=title,
        heads=tuple(str(head if names is None else names[head]) for head in chosen),
        queries=queries,
        keys=keys,
        offset=query_offset,
        **labels(tokens, queries, keys, query_offset),
        **arrays,
    )


def _fields(seen: Seen, sequence: int) -> dict[str, NDArray[Any]]:
    """What was seen of one sequence, by field, each (H, …): numbers as float32."""
    given = {name: (getattr(seen, name), 1) for name in (*PER_QUERY, "received")}
    given["pooled"] = seen.pooled, 2
    if seen.top_keys is not None:
        given |= {"indices": (seen.top_keys.indices, 2), "weights": (seen.top_keys.weights, 2)}
    found = {}
    for name, (values, inner) in given.items():
        if values is None:
            continue
        array = to_numpy(view(values, name))
        stacked = array.reshape(-1, *array.shape[-inner - 1 :] if array.ndim > inner else (1, *array.shape))
        if not 0 <= sequence < len(stacked):
            raise ValueError(f"sequence is {sequence}; this Seen has {len(stacked)}, counted from 0.")
        found[name] = stacked[sequence].astype(np.int64 if name == "indices" else np.float32)
    return found


def _heads(fields: dict[str, NDArray[Any]]) -> int:
    counts = {name: len(values) for name, values in fields.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise ValueError(
            f"the fields are of different heads ({told}); expected the same in all; "
            f"try received without per_group=True."
        )
    return next(iter(counts.values()))


def _lengths(fields: dict[str, NDArray[Any]], tokens: Sequence[str] | None) -> tuple[int, int]:
    """Lq and Lk, which not every field tells."""
    per_query = next((values for name, values in fields.items() if name in (*PER_QUERY, "indices")), None)
    if per_query is None:
        raise ValueError("this Seen does not tell how many queries there are; try asking for lse too.")
    if "received" in fields:
        return per_query.shape[1], fields["received"].shape[1]
    if tokens is None:
        raise ValueError(
            "this Seen does not tell how many keys there are; try asking for received too, or tokens=…."
        )
    return per_query.shape[1], len(tokens)


def _maps(blocks: NDArray[np.float32], queries: int, keys: int) -> dict[str, Any]:
    """Pooled blocks of any size as the overview of a picture and, if they are finer, the map to zoom into."""
    _, rows, columns = blocks.shape
    if rows > queries or columns > keys:  # some blocks have no query or no key
        rows, columns = min(rows, queries), min(columns, keys)
        has = np.ix_(*(np.arange(n) * m // n for n, m in zip((rows, columns), blocks.shape[1:], strict=True)))
        blocks = blocks[:, has[0], has[1]]
    fine = coarser(blocks, _fitting(rows, queries, SIDE), _fitting(columns, keys, SIDE))
    pooled = coarser(
        fine, _fitting(fine.shape[1], queries, OVERVIEW), _fitting(fine.shape[2], keys, OVERVIEW)
    )
    return {"pooled": pooled, "fine": None if pooled.shape == fine.shape else fine}


def _fitting(blocks: int, length: int, most: int) -> int:
    """The most blocks, at most `most`, into which `blocks` of them can be summed exactly."""
    if blocks <= most:
        return blocks
    if blocks == length:  # single positions can be summed to anything
        return even_blocks(length, most)
    return max(math.gcd(blocks, count) for count in range(1, most + 1))
