"""The host's side of the second pass's consumers: room for their sums, and what is made of these afterwards.

Every work item has sums of its own, joined here in the order of the items, so that no result depends on which
thread took which item.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import arrays
from sightline.kernel_key import ROW_BYTES
from sightline.see import Received, TopKeys

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sightline.plan import Plan
    from sightline.see import See


class Sums:
    """One consumer's sums. A subclass says how large they are, and what they become."""

    def __init__(self, request: See, made: Plan) -> None:
        p = made.problem
        self.request, self.plan, self.keys = request, made, p.keys
        self.dtype = np.dtype(p.statistics_dtype)
        self.lanes = made.isa.lanes(self.dtype.itemsize)
        self.heads = (*p.batch, made.spaces)
        self.plain = p.rank == 2
        self.numbers: dict[str, int] = {}
        """arguments of the kernel"""
        self.scratch: dict[str, int] = {}
        """bytes of working memory, by the argument that says where it is"""

    def make(self, like: Any) -> dict[str, Any]:
        """The arrays that one call writes to, by the argument that takes their address."""
        raise NotImplementedError

    def join(self, written: dict[str, Any], like: Any) -> dict[str, Any]:
        """What they become, by its name in Seen, as the kind of array that `like` is."""
        raise NotImplementedError

    def _items(self, pitch: int) -> NDArray[Any]:
        """A row of zeros for each work item."""
        return zeros((*self.heads, self.plan.runs, pitch), self.dtype)

    def _given(self, result: NDArray[Any], like: Any) -> Any:
        """A result of NumPy's; a plain (L, D) call has no axis of heads."""
        result = result[0] if self.plain else result
        made = arrays.empty_like(like, result.shape, self.dtype.name)
        _fill(made, result)
        return arrays.give_back(like, made)

    def _shape(self, *inner: int) -> tuple[int, ...]:
        return inner if self.plain else (*self.heads, *inner)


class OfKeys(Sums):
    """What each key received; and, to divide by, how many queries saw it."""

    def __init__(self, request: See, made: Plan) -> None:
        super().__init__(request, made)
        self.how = request.how_received or Received()
        self.pitch = self.keys + self.lanes  # vectors may reach past the last key
        size = self.pitch * self.dtype.itemsize
        self.numbers = {"received_item": size, "visible_item": size}

    def make(self, like: Any) -> dict[str, Any]:
        """Rows of keys."""
        made = {"received": self._items(self.pitch)}
        if "visible" in self.plan.kernel.see:
            made["visible"] = self._items(self.pitch)
        if "counted" in self.plan.kernel.see:
            made["counts"] = np.zeros(self.plan.head_rows, np.int64)
            made["counts"][self.how.queries or slice(None)] = 1
        return made

    def join(self, written: dict[str, Any], like: Any) -> dict[str, Any]:
        """Σ, or the largest, over the items; ÷ how many saw the key; the mean of each group."""
        parts = written["received"][..., : self.keys]
        if self.how.reduce == "max":
            total = parts.max(axis=-2, initial=0.0)
        else:
            total = parts.sum(axis=-2, dtype=np.float64)
        if self.how.normalize:
            saw = written["visible"][..., : self.keys].sum(axis=-2, dtype=np.float64)
            total /= np.maximum(saw, 1)
        if self.how.per_group:
            *batch, heads = self.heads
            group = self.plan.problem.group
            total = total.reshape(*batch, heads // group, group, self.keys).mean(axis=-2)
        return {"received": self._given(total, like)}


class OfPicture(Sums):
    """The matrix summed down to R × C. Row r of item number n is row r − n of the picture."""

    def __init__(self, request: See, made: Plan) -> None:
        super().__init__(request, made)
        self.rows, self.columns = request.pooled or (1, 1)
        row = (self.columns + self.lanes) * self.dtype.itemsize
        self.numbers = {
            "pool_rows": self.rows,
            "pool_columns": self.columns,
            "pooled_row": row,
            "pooled_space": (self.rows + made.runs) * row,
        }
        self.scratch = {"strip": (self.columns + self.lanes) * ROW_BYTES}

    def make(self, like: Any) -> dict[str, Any]:
        """A picture for each head, with a row more for each item."""
        shape = (*self.heads, self.rows + self.plan.runs, self.columns + self.lanes)
        return {"pooled": zeros(shape, self.dtype)}

    def join(self, written: dict[str, Any], like: Any) -> dict[str, Any]:
        """Every item's rows, where they belong."""
        total = np.zeros((*self.heads, self.rows, self.columns), self.dtype)
        queries, size = self.plan.head_rows, self.plan.run_blocks * self.plan.block_rows
        for number in range(self.plan.runs):
            begin, last = number * size, min(number * size + size, queries) - 1
            first, end = begin * self.rows // queries, last * self.rows // queries + 1
            total[..., first:end, :] += written["pooled"][..., first + number : end + number, : self.columns]
        return {"pooled": self._given(total, like)}


class OfDiagonals(Sums):
    """Sums along diagonals. Place d of the item that begins at query b is j − i = d − b − (its rows − 1)."""

    def __init__(self, request: See, made: Plan) -> None:
        super().__init__(request, made)
        self.rows = made.run_blocks * made.block_rows
        self.pitch = self.keys + self.rows
        self.numbers = {"diagonals_item": self.pitch * self.dtype.itemsize}

    def make(self, like: Any) -> dict[str, Any]:
        """The diagonals that an item's rows meet."""
        return {"diagonals": self._items(self.pitch)}

    def join(self, written: dict[str, Any], like: Any) -> dict[str, Any]:
        """Every item's diagonals, where they belong."""
        queries = self.plan.head_rows
        total = np.zeros((*self.heads, max(queries + self.keys - 1, 0)))
        for number in range(self.plan.runs):
            first = queries - (number + 1) * self.rows  # where place 0 belongs
            start, end = max(first, 0), min(first + self.pitch - 1, total.shape[-1])
            total[..., start:end] += written["diagonals"][..., number, start - first : end - first]
        return {"diagonals": self._given(total, like)}


class Lists(Sums):
    """The k largest weights of each query, which the kernel writes where they belong."""

    def __init__(self, request: See, made: Plan) -> None:
        super().__init__(request, made)
        self.numbers = {"top_keys": request.top_keys}
        self.scratch = {"top": request.top_keys * 2 * ROW_BYTES}

    def make(self, like: Any) -> dict[str, Any]:
        """Weights and indices."""
        shape = self._shape(self.plan.head_rows, self.request.top_keys)
        weights = arrays.empty_like(like, shape, self.dtype.name)
        return {"top_weights": weights, "top_indices": arrays.empty_like(like, shape, "int64")}

    def join(self, written: dict[str, Any], like: Any) -> dict[str, Any]:
        """Both, as they are."""
        indices, weights = (arrays.give_back(like, written[name]) for name in ("top_indices", "top_weights"))
        return {"top_keys": TopKeys(indices, weights)}


class Rows(Sums):
    """The weights of chosen queries in full, which the kernel writes where they belong."""

    def make(self, like: Any) -> dict[str, Any]:
        """Zeros, for what no tile covers."""
        made = arrays.empty_like(like, self._shape(self.plan.head_rows, self.keys), self.dtype.name)
        _fill(made, 0)
        return {"weight_rows": made}

    def join(self, written: dict[str, Any], like: Any) -> dict[str, Any]:
        """As they are."""
        return {"rows": arrays.give_back(like, written["weight_rows"])}


_SUMS: dict[str, type[Sums]] = {
    "received": OfKeys,
    "received_max": OfKeys,
    "pooled": OfPicture,
    "diagonals": OfDiagonals,
    "top_keys": Lists,
    "rows": Rows,
}


def chosen_sums(request: See, made: Plan) -> list[Sums]:
    """Those that a kernel of the second pass writes."""
    return [_SUMS[name](request, made) for name in made.kernel.see if name in _SUMS]


def numbers_of(sums: list[Sums], start: int) -> tuple[dict[str, int], int]:
    """The kernel's further arguments, and the bytes of working memory from `start` that these name."""
    numbers: dict[str, int] = {}
    place = start
    for part in sums:
        numbers |= part.numbers
        for name, size in part.scratch.items():
            numbers[name], place = place, place + size
    return numbers, place - start


def zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Room for sums."""
    return np.zeros(shape, dtype)


def _fill(x: Any, numbers: Any) -> None:
    arrays.to_numpy(arrays.view(x, "seen"))[...] = numbers
