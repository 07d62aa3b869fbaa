"""PyTorch's ways to entropy, attention received and top keys: the weights in full, or in chunks of queries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from benchmarks.check_seen import check
from benchmarks.peers import Case, Prepared, Unsupported
from benchmarks.peers.pytorch import inputs, to_numpy
from sightline import Seen, TopKeys

if TYPE_CHECKING:
    from sightline import See

CHUNK = 256


def eager(see: See, case: Case, threads: int) -> Prepared:
    """As eager attention does it, softmax in float32, and the statistics of the weights it has."""
    return _prepared(see, case, threads, case.shape.queries)


def in_chunks(see: See, case: Case, threads: int) -> Prepared:
    """The same, 256 queries at a time against the keys that they may see: the L × L matrix is never whole."""
    return _prepared(see, case, threads, CHUNK)


def _prepared(see: See, case: Case, threads: int, chunk: int) -> Prepared:
    shape = case.shape
    if not shape.causal or shape.needs_dense or shape.group > 1 or shape.queries != shape.keys:
        raise Unsupported("written for causal self-attention with as many key heads")
    query, key, value = inputs(case, threads)
    last: list[Any] = []

    def call() -> Any:
        parts = []
        received = torch.zeros(query.shape[:-1])
        for first in range(0, shape.queries, chunk):
            end = min(first + chunk, shape.queries)
            scores = query[..., first:end, :] @ key[..., :end, :].mT
            scores *= shape.scale
            later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu_(first + 1)
            scores.masked_fill_(later, float("-inf"))
            weights = scores.softmax(-1, dtype=torch.float32)
            del scores
            received[..., :end] += weights.sum(-2)
            top = weights.topk(see.top_keys, -1)
            out = weights.to(value.dtype) @ value[..., :end, :]
            parts.append((out, torch.special.entr(weights).sum(-1), top.indices, top.values))
            del weights
        out, entropy, indices, values = (torch.cat(part, 2) for part in zip(*parts, strict=True))
        seen = Seen(entropy=entropy, received=received, top_keys=TopKeys(indices, values))
        last[:] = [(out, seen)]
        return last[0]

    def output() -> Any:
        check(case, see, last[0][1])
        return to_numpy(last[0][0])

    return Prepared(call, output)
