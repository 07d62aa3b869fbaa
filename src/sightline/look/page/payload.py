"""Pictures → what the page carries: a manifest, and blocks of numbers as text that are opened when needed.

The page has a budget of characters. One number per query or key, the pooled maps and the tokens are always
there. What is left is for the top keys (of every query, or of every n-th) and for the finer maps (in fewer bits,
in larger cells, or not at all). The manifest says what became of each, and the page shows it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.look.page.codec import Array, Codec, best, pack, pack_bytes, quantised

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sightline.look.picture import Picture
    from sightline.see import TopKeys

SERIES = ("entropy", "received", "distance", "lse", "max_score")
SIGNED = {"lse", "max_score"}
FAINT = 0.1  # of what even attention would give: where colours begin
TOP_KEYS_SHARE = 0.6  # of what is left, if the finer maps need the rest

Manifest = dict[str, Any]


class Blocks:
    """The blocks of numbers so far, and how many characters they may still take."""

    def __init__(self, budget: int) -> None:
        self.texts: list[str] = []
        self.left = budget
        self._tokens: dict[tuple[str, ...], int] = {}

    def add(self, *texts: str) -> list[int]:
        """The numbers of new blocks."""
        first = len(self.texts)
        self.texts += texts
        self.left -= sum(map(len, texts))
        return list(range(first, len(self.texts)))

    def tokens(self, labels: tuple[str, ...] | None) -> int | None:
        """The block that has these labels: the same ones are kept once."""
        if labels is None:
            return None
        if labels not in self._tokens:
            (self._tokens[labels],) = self.add(pack_bytes(json.dumps(labels).encode()))
        return self._tokens[labels]


def payload(pictures: Sequence[Picture], budget: int) -> tuple[Manifest, list[str]]:
    """The manifest and the blocks of a page whose blocks should take about `budget` characters."""
    for picture in pictures:
        _check(picture)
    blocks = Blocks(budget)
    manifests = [_always(picture, blocks) for picture in pictures]
    for n, (picture, manifest) in enumerate(zip(pictures, manifests, strict=True)):
        share = blocks.left // (len(pictures) - n)  # an equal part of what the others have left
        _as_it_fits(picture, manifest, blocks, share)
    return {"pictures": manifests}, blocks.texts


def _check(picture: Picture) -> None:
    """Every array and every list of names has the size that the picture says."""
    heads, queries, keys = len(picture.heads), picture.queries, picture.keys
    if min(heads, queries, keys) < 1:
        raise ValueError(
            f"the picture has {heads} heads, {queries} queries and {keys} keys; expected at least one of each."
        )
    expected = dict.fromkeys(("entropy", "distance", "lse", "max_score"), (heads, queries))
    for name, shape in {**expected, "received": (heads, keys)}.items():
        array = getattr(picture, name)
        if array is not None and array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}; expected {shape}.")
    for name, count in (("query_tokens", queries), ("key_tokens", keys)):
        labels = getattr(picture, name)
        if labels is not None and len(labels) != count:
            raise ValueError(f"{name} has {len(labels)} labels; expected {count}.")


def _always(picture: Picture, blocks: Blocks) -> Manifest:
    """What every page has: names, tokens, one number per query or key, and the pooled maps."""
    coarse = None if picture.pooled is None else _squeezed(picture.pooled, picture)
    return {
        "title": picture.title,
        "options": list(picture.options),
        "heads": list(picture.heads),
        "queries": picture.queries,
        "keys": picture.keys,
        "offset": picture.offset,
        "oneSequence": one_sequence(picture),
        "queryTokens": blocks.tokens(picture.query_tokens),
        "keyTokens": blocks.tokens(picture.key_tokens),
        "series": {
            name: _packed(array, best(array, signed=name in SIGNED), blocks)
            for name in SERIES
            if (array := getattr(picture, name)) is not None
        },
        "maps": [] if coarse is None else [_map(coarse, best(coarse, 12), blocks)],
        "scale": _scale(picture),
        "topKeys": None,
        "notes": [],
    }


def one_sequence(picture: Picture) -> bool:
    """Whether queries and keys are the same tokens, query i being the key at offset + i."""
    start, stop = picture.offset, picture.offset + picture.queries
    if start < 0 or stop > picture.keys:
        return False
    if picture.query_tokens is None or picture.key_tokens is None:
        return picture.query_tokens is picture.key_tokens
    return picture.query_tokens is picture.key_tokens or (
        picture.query_tokens == picture.key_tokens[start:stop]
    )


def _as_it_fits(picture: Picture, manifest: Manifest, blocks: Blocks, share: int) -> None:
    """Top keys and finer maps in about `share` characters: all top keys if they leave the maps enough."""
    end = blocks.left - share
    part = share if picture.fine is None else int(share * TOP_KEYS_SHARE)
    top = None if picture.top_keys is None else TopKeysPacked.of(picture.top_keys, part)
    if top is not None and top.every == 1:
        manifest["topKeys"] = top.added(blocks)
    if picture.fine is not None:
        room = blocks.left - end if top is None or top.every == 1 else share - part
        finer = _finer(_squeezed(picture.fine, picture), room, blocks)
        if finer:
            manifest["maps"].append(finer)
        else:
            manifest["notes"].append("The finer map was left out: it did not fit.")
    if picture.top_keys is None or manifest["topKeys"]:
        return
    top = TopKeysPacked.of(picture.top_keys, blocks.left - end)  # the maps may have left more than their part
    if top is None:
        manifest["notes"].append("The top keys were left out: they did not fit.")
    else:
        manifest["topKeys"] = top.added(blocks)


# ---- Maps ----


def _squeezed(maps: Array, picture: Picture) -> Array:
    """The same maps without the empty blocks that there are where a map has more rows than queries."""
    queries, keys = picture.queries, picture.keys
    _, rows, columns = maps.shape
    if rows > queries:
        maps = maps[:, np.arange(queries) * rows // max(queries, 1)]
    if columns > keys:
        maps = maps[:, :, np.arange(keys) * columns // max(keys, 1)]
    return maps


def _map(maps: Array, codec: Codec, blocks: Blocks) -> Manifest:
    _, rows, columns = maps.shape
    return {"rows": rows, "columns": columns, **_packed(maps, codec, blocks)}


def _finer(maps: Array, room: int, blocks: Blocks) -> Manifest | None:
    """The first of 12 bits, 8 bits, 8 bits in cells of 2 × 2, of 4 × 4, … that fits; else None."""
    for candidate, bits in _coarser(maps):
        if candidate.size * bits / 8 > 6 * room:
            continue  # nothing deflates that well: not worth trying
        codec = quantised(candidate, bits)
        texts = []
        for one in candidate:
            texts.append(pack(codec.encode(one)))
            if sum(map(len, texts)) > room:
                break
        else:
            shape = {"rows": candidate.shape[1], "columns": candidate.shape[2]}
            return {**shape, "codec": _described(codec), "blocks": blocks.add(*texts)}
    return None


def _coarser(maps: Array) -> Iterator[tuple[Array, int]]:
    yield maps, 12
    yield maps, 8
    # Block i · R // L of R blocks lies in block i · (R/2) // L of R/2: halves of an even R add up exactly.
    while maps.shape[1] % 2 == 0 and maps.shape[2] % 2 == 0 and min(maps.shape[1:]) > 512:
        maps = maps[:, ::2] + maps[:, 1::2]
        maps = maps[:, :, ::2] + maps[:, :, 1::2]
        yield maps, 8


def _scale(picture: Picture) -> list[float] | None:
    """The weights, in the mean over a cell, where the colours begin and end: one scale for all heads."""
    means = []
    for maps in (picture.pooled, picture.fine):
        if maps is not None:
            _, rows, columns = maps.shape
            pairs = max(picture.queries / rows, 1) * max(picture.keys / columns, 1)
            flat = maps.reshape(-1)[
                :: max(1, maps.size >> 21)
            ]  # a sample of millions is enough for quantiles
            means.append(flat[flat > 0] / pairs)
    usual = [mean for mean in means if mean.size]
    if not usual:
        return None
    high = float(np.quantile(usual[-1], 0.9995))
    return [min(max(FAINT / max(picture.keys, 1), high * 1e-5), high / 10), high]


# ---- Numbers ----


def _packed(array: Array, codec: Codec, blocks: Blocks) -> Manifest:
    """One block for each head."""
    return {"codec": _described(codec), "blocks": blocks.add(*(pack(codec.encode(one)) for one in array))}


def _described(codec: Codec) -> Manifest:
    return {
        "kind": codec.kind,
        "bits": codec.bits,
        "bytes": codec.dtype.itemsize,
        "low": codec.low,
        "step": codec.step,
        "error": codec.error,
    }


@dataclass(frozen=True, slots=True)
class TopKeysPacked:
    """The top keys of every n-th query, as text: indices and weights of each head in turn."""

    count: int
    every: int
    codec: Codec
    texts: list[str]

    @staticmethod
    def of(top_keys: TopKeys, room: int) -> TopKeysPacked | None:
        """With n as small as fits; None if even a few queries do not."""
        indices, weights = (np.asarray(part) for part in top_keys)
        _, queries, count = indices.shape
        codec = best(weights)
        every = _about(indices, weights, codec, room)
        while every <= max(queries // 8, 1):
            texts = _texts(indices, weights, codec, every)
            size = sum(map(len, texts))
            if size <= room:
                return TopKeysPacked(count, every, codec, texts)
            every = max(every + 1, int(every * size / max(room, 1)))
        return None

    def added(self, blocks: Blocks) -> Manifest:
        """Their part of the manifest, once they are among the blocks."""
        ids = blocks.add(*self.texts)
        described = {"count": self.count, "every": self.every, "codec": _described(self.codec)}
        return {**described, "indices": ids[::2], "blocks": ids[1::2]}


def _texts(indices: Array, weights: Array, codec: Codec, every: int) -> list[str]:
    """Each head's indices (−1 becomes 2³² − 1) and weights, of every n-th query."""
    return [
        pack(coder.encode(one[::every]))
        for both in zip(indices, weights, strict=True)
        for coder, one in zip((Codec("uint32"), codec), both, strict=True)
    ]


def _about(indices: Array, weights: Array, codec: Codec, room: int) -> int:
    """Every how many queries to try first: a little too many of them, going by a sample."""
    sparse = max(1, indices.shape[1] // 1024)
    size = sum(map(len, _texts(indices, weights, codec, sparse))) * sparse
    return max(1, int(0.9 * size / max(room, 1)))
