"""Each head in a line of numbers: how widely it looks, how far, at what, and where it is sharpest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sightline.look.picture import Picture

Values = NDArray[np.floating[Any]]
MOST_RECEIVED = 4


class Glance(NamedTuple):
    """One query, the key it looks at most, and with what weight."""

    query: int
    key: int
    weight: float


@dataclass(frozen=True, slots=True)
class Head:
    """What one head does; None is what its picture does not have."""

    name: str
    entropy: float | None
    """Mean over the queries that see a key, nats."""
    share: float | None
    """Mean of entropy / log(visible keys) over the queries that see two or more: 1 looks at all alike."""
    distance: float | None
    """Mean over the queries that see a key, positions."""
    sharpest: Glance | None
    """The largest weight on another token: no query's on itself, and none of a query that sees one key only."""
    most: tuple[tuple[int, float], ...]
    """The keys that receive most, and their share of all queries' attention."""
    received: Values | None
    """(Lk,): the attention each key receives, as a share of all queries'."""


def heads(picture: Picture) -> list[Head]:
    """One line for each head of the picture."""
    return [_head(picture, h) for h in range(len(picture.heads))]


def share_received(picture: Picture) -> Values | None:
    """(H, Lk): the received attention as a share of all queries'."""
    return None if picture.received is None else picture.received / max(picture.queries, 1)


def mean_received(picture: Picture) -> Values | None:
    """(Lk,): the same, mean over the heads for which it is defined."""
    shares = share_received(picture)
    if shares is None:
        return None
    defined = np.isfinite(shares)
    counts = np.where(defined.any(axis=0), defined.sum(axis=0), np.nan)
    return np.asarray(np.where(defined, shares, 0.0).sum(axis=0) / counts)


def mean(values: Values) -> float | None:
    """The mean of what is a number; None where nothing is."""
    defined = values[np.isfinite(values)]
    return float(defined.mean(dtype=np.float64)) if defined.size else None


def _head(picture: Picture, h: int) -> Head:
    visible = None if picture.visible is None else picture.visible[h]
    received = share_received(picture)
    return Head(
        name=picture.heads[h],
        entropy=_mean_seeing(picture.entropy, h, visible),
        share=None if picture.entropy is None or visible is None else _share(picture.entropy[h], visible),
        distance=_mean_seeing(picture.distance, h, visible),
        sharpest=_sharpest(picture, h, visible),
        most=() if received is None else _most(received[h]),
        received=None if received is None else received[h],
    )


def _mean_seeing(values: Values | None, h: int, visible: NDArray[Any] | None) -> float | None:
    if values is None:
        return None
    return mean(values[h] if visible is None else values[h][visible > 0])


def _share(entropy: Values, visible: NDArray[Any]) -> float | None:
    choosing = visible > 1
    return mean(entropy[choosing] / np.log(visible[choosing]))


def _sharpest(picture: Picture, h: int, visible: NDArray[Any] | None) -> Glance | None:
    if picture.top_keys is None or not picture.top_keys.weights[h].size:
        return None
    keys, weights = (x[h] for x in picture.top_keys)  # (Lq, k)
    itself = np.arange(picture.queries)[:, None] + picture.offset
    counts = np.isfinite(weights) & (keys >= 0)
    telling = counts & (keys != itself)
    if visible is not None:
        telling &= visible[:, None] > 1
    counts = telling if telling.any() else counts
    if not counts.any():
        return None
    query, place = divmod(int(np.where(counts, weights, -np.inf).argmax()), weights.shape[-1])
    return Glance(query, int(keys[query, place]), float(weights[query, place]))


def _most(received: Values) -> tuple[tuple[int, float], ...]:
    order = np.argsort(np.where(np.isfinite(received), -received, np.inf), kind="stable")[:MOST_RECEIVED]
    return tuple((int(key), float(received[key])) for key in order if received[key] > 0)
