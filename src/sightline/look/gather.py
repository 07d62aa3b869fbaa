"""From the arrays of a call to a Picture of it, head by head and part by part, so that a bar can move."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.look.picture import Picture
from sightline.look.sizes import Sizes, coarser, sizes, starts
from sightline.look.words import labels
from sightline.look_only import look_only
from sightline.masks import intervals
from sightline.parts import ROWS, Part, arguments
from sightline.reference_call import Call, read
from sightline.see import See, Seen, TopKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

PART = 2e10  # floating-point operations worth a part of their own: some tenths of a second
PER_QUERY = ("lse", "max_score", "entropy", "distance")


@dataclass(frozen=True, slots=True)
class Look:
    """One sequence of a call, some of its heads, and in what sizes its picture is taken."""

    call: Call
    batch: tuple[int, ...]
    heads: tuple[int, ...]
    sizes: Sizes

    @classmethod
    def at(cls, call: Call, *, heads: Sequence[int] | None = None, sequence: int = 0) -> Look:
        """A look at a call that has something to see.

        Raises:
            ValueError: there is no such head or sequence, or nothing to see.
        """
        problem = call.problem
        count = math.prod(problem.batch)
        if not 0 <= sequence < count:
            raise ValueError(f"sequence is {sequence}; there are {count}, counted from 0.")
        chosen = tuple(range(problem.heads)) if heads is None else tuple(heads)
        for head in chosen:
            if not 0 <= head < problem.heads:
                raise ValueError(f"heads has {head}; there are {problem.heads}, counted from 0.")
        if not (chosen and problem.queries and problem.keys):
            seen = f"{len(chosen)} heads of {problem.queries} queries × {problem.keys} keys"
            raise ValueError(f"there is nothing to look at: {seen}; expected at least one of each.")
        batch = tuple(int(i) for i in np.unravel_index(sequence, problem.batch)) if problem.batch else ()
        return cls(call, batch, chosen, sizes(len(chosen), problem.queries, problem.keys))

    def parts(self) -> list[Part]:
        """What to compute one after the other: each head, a long one in runs of queries with whole blocks."""
        problem, blocks = self.call.problem, self.sizes.fine[0]
        work = 4.0 * problem.queries * problem.keys * problem.dim
        count = max(1, min(blocks, int(work / PART), problem.queries // ROWS))
        if count > 1 and problem.queries % blocks:  # see() takes a row of blocks for each query of a run
            count = min(blocks, max(count, -(-problem.queries // ROWS)))
        first = [*starts(problem.queries, blocks).tolist(), problem.queries]  # query of each block
        runs = pairwise(first[cut * blocks // count] for cut in range(count + 1))
        rows = [slice(*run) for run in runs]
        one = tuple(slice(i, i + 1) for i in self.batch)
        return [Part(one, slice(head, head + 1), run) for head in self.heads for run in rows]

    def see(self, part: Part) -> Seen:
        """What the picture needs of one part.

        The map's block of query i is ⌊i · R / Lq⌋. In a run of queries this is the same as counting blocks from
        the run's own start if the run begins and ends with blocks of R / Lq; else each query is a block.
        """
        (rows, columns), queries = self.sizes.fine, self.call.problem.queries
        length = part.rows.stop - part.rows.start
        even = part.rows.start * rows % queries == part.rows.stop * rows % queries == 0
        (query, key, _), options = arguments(self.call, part)
        del options["precision"]  # weights are always computed at the highest
        request = See(
            lse=True,
            max_score=True,
            entropy=True,
            distance=True,
            received=True,
            top_keys=self.sizes.top_keys,
            pooled=(length * rows // queries if even else length, columns),
        )
        seen: Seen = look_only(query, key, see=request, **options)
        return seen


def take(look: Look, *, advance: Callable[[], None] = lambda: None, **told: Any) -> Picture:
    """The picture of a look; `advance` is called after each of its parts.

    Args:
        look: the call, and what of it to see.
        advance: told of each part that is done.
        told: `title`, `query_tokens`, `key_tokens` and `options` of the Picture.
    """
    problem, heads = look.call.problem, len(look.heads)
    rows, keys = (heads, problem.queries), (heads, problem.keys)
    found: dict[str, Any] = {name: np.empty(rows, np.float32) for name in PER_QUERY}
    received = np.zeros(keys, np.float64)
    fine: NDArray[np.float32] = np.empty((heads, *look.sizes.fine), np.float32)
    top = TopKeys(
        np.empty((*rows, look.sizes.top_keys), np.int64), np.empty((*rows, look.sizes.top_keys), np.float32)
    )
    place = {head: h for h, head in enumerate(look.heads)}
    for part in look.parts():
        seen = look.see(part)
        alone = (0,) * (len(look.batch) + 1)  # of one sequence and one head
        h, run = place[part.heads.start], part.rows
        for name in PER_QUERY:
            found[name][h, run] = getattr(seen, name)[alone]
        received[h] += seen.received[alone]
        for whole, piece in zip(top, seen.top_keys or (), strict=True):
            whole[h, run] = piece[alone]
        _add_blocks(fine[h], seen.pooled[alone], run, problem.queries)
        advance()
    pooled = coarser(fine, *look.sizes.pooled)
    return Picture(
        heads=tuple(map(str, look.heads)),
        queries=problem.queries,
        keys=problem.keys,
        offset=int(look.call.offsets[look.batch]),
        received=received.astype(np.float32),
        top_keys=top,
        pooled=pooled,
        fine=None if fine.shape == pooled.shape else fine,
        visible=_visible(look),
        **found,
        **{"title": "attention", **told},
    )


def _add_blocks(fine: NDArray[np.float32], blocks: NDArray[Any], run: slice, queries: int) -> None:
    """Puts a run's blocks, or the rows of its queries, where they belong in the map of its head."""
    first, end = (place * len(fine) // queries for place in (run.start, run.stop))
    if len(blocks) > end - first:
        blocks = np.add.reduceat(blocks, starts(queries, len(fine))[first:end] - run.start)
    fine[first:end] = blocks


def picture(
    query: Any,
    key: Any,
    *,
    title: str = "attention",
    tokens: Sequence[str] | None = None,
    heads: Sequence[int] | None = None,
    sequence: int = 0,
    advance: Callable[[], None] = lambda: None,
    **options: Any,
) -> Picture:
    """Looks at the attention of `query` and `key` and takes its picture, in memory that grows with L.

    Args:
        query: (…, Hq, Lq, D), or (L, D) for one head, of any kind that `sightline.attention` takes.
        key: (…, Hkv, Lk, D), same dtype.
        title: what to call it.
        tokens: Lk labels of the keys, and of the queries where they stand at the same positions.
        heads: query heads to look at, default all.
        sequence: which sequence of the batch, counted in C order.
        advance: called after each part of the work.
        options: of `sightline.attention`: mask, bias, causal, window, …

    Raises:
        TypeError, ValueError: what came, what was expected, and what to try.

    Example:
        >>> import numpy as np
        >>> from sightline.look.gather import picture
        >>> q, k = np.random.default_rng(0).standard_normal((2, 4, 100, 64), dtype=np.float32)
        >>> found = picture(q, k, causal=True, heads=(0, 3))
        >>> found.heads, found.entropy.shape, found.pooled.shape
        (('0', '3'), (2, 100), (2, 100, 100))
    """
    call = read(query, key, key, **options)
    look = Look.at(call, heads=heads, sequence=sequence)
    names = labels(tokens, call.problem.queries, call.problem.keys, int(call.offsets[look.batch]))
    return take(look, advance=advance, title=title, **names)


def _visible(look: Look) -> NDArray[Any]:
    """(H, Lq): how many keys each query may see; a bias of −∞ hides like a mask."""
    call, problem = look.call, look.call.problem
    positions = np.arange(problem.queries) + call.offsets[look.batch]
    first, end = intervals(problem.band, positions, int(call.key_lengths[look.batch]))
    within = np.maximum(end - first, 0)
    if call.mask is None and call.bias is None:
        return np.broadcast_to(within, (len(look.heads), problem.queries))
    counts = np.empty((len(look.heads), problem.queries), np.int64)
    keys = np.arange(problem.keys)
    for h, head in enumerate(look.heads):
        for start in range(0, problem.queries, ROWS):
            run = slice(start, start + ROWS)
            where: Any = (*look.batch, head, run)
            seen = (keys >= first[run, None]) & (keys < end[run, None])
            if call.mask is not None:
                seen &= call.mask[where]
            if call.bias is not None:
                seen &= ~np.isneginf(call.bias[where])
            counts[h, run] = seen.sum(axis=1)
    return counts
