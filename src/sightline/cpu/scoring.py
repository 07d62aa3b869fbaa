"""From rows of Q and K to a tile of scores as the softmax takes them: what every program over them begins with.

A block's queries are turned into lanes once. Then, tile by tile, keys are copied where the engine cannot read
them in place, multiplied, and the scores modified where the tile or the call needs it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sightline.cpu import amx, few, formats, modify, tiles, transpose
from sightline.cpu.kinds import BOOL, INT
from sightline.cpu.rows import of_sequence

if TYPE_CHECKING:
    from collections.abc import Callable

    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.rows import Rows
    from sightline.cpu.values import Pointer, Value


class Scoring:
    """The functions that scores are made of, and the steps that call them."""

    def __init__(self, k: Kernel) -> None:
        key = k.key
        self.k = k
        self.rows_to_lanes = transpose.rows_to_lanes(k, key.dtype, pairs=k.per_word)
        self.rows_to_words = transpose.rows_to_words(k) if key.paired and key.stage_key else None
        if key.bias:
            self.bias_to_lanes = transpose.rows_to_lanes(k, key.bias, ahead=key.tile_keys)
        copies = key.stage_key or key.stage_value or key.copies_with_care
        self.rows_to_rows = transpose.rows_to_rows(k, key.dtype) if copies else None
        soon = (key.value_dim or key.dim) * formats.size(key.dtype)  # the rows of V, or the next ones of K
        product = tiles.Product("scores", key.dim, "query", "scores", soon, top=True)
        self.products = (amx if key.terms else few if key.few else tiles).inner(k, product)
        # A matrix unit is for numbers that are sums of terms: what is done again with care goes the plain way.
        again = replace(product, name="scores.careful")
        self.careful_products = tiles.inner(k, again) if key.terms else self.products
        self.pack_mask = modify.pack_mask(k) if key.mask else None
        self.modify = modify.modify(k) if key.modified or key.selective else None

    def load_queries(self, f: Function, a: Pointer, w: Pointer, rows: Rows) -> None:
        """Qᵀ of the block."""
        k = self.k
        query_rows, query = k.place(w, "query_rows"), k.place(w, "query")
        dim, step = f.value(k.key.dim), k.argument(f, a, "query_step")
        f.call(self.rows_to_lanes, query_rows, f.value(0), step, dim, rows.vectors, query, w)

    def of_head(self, f: Function, a: Pointer, rows: Rows, name: str) -> Pointer:
        """The keys or values that these rows read."""
        head = rows.key_head * self.k.argument(f, a, f"{name}_head")
        return self.k.address(a, name) + (of_sequence(rows.sequence, name) + head)

    def skip_empty(
        self, f: Function, a: Pointer, w: Pointer, first: Value, n: Value, rows: Value, full: Value,
        before: Callable[[], object] | None = None, *, waits: bool = False,
    ) -> Value:  # fmt: skip
        """Leave the tile's function if the mask lets no row see any of its keys; whether all rows see it all.

        `before` writes what is to be done before leaving; where the mask `waits` for the weights, it is left out.
        """
        if self.pack_mask is None:
            return full
        kind = f.call(self.pack_mask, a, w, first, n, rows)
        if before is not None:
            with f.when(kind == modify.EMPTY):
                before()
        f.give_if(kind == modify.EMPTY, 0)
        if waits:
            return full
        return full & (kind == modify.FULL).unsigned(INT)

    def scores(
        self, f: Function, a: Pointer, w: Pointer, tile: tuple[Pointer, Value, Value], vectors: Value,
        full: Value, soon: tuple[Pointer, Value], *, careful: bool = False,
    ) -> tuple[Pointer, Value]:  # fmt: skip
        """S of the tile, −inf where not allowed, and each row's largest. Returns the tile's keys as `packed` does.

        tile: its first key's address and number, keys in it. soon: rows to fetch into the cache meanwhile, and
        the bytes from one to the next.
        """
        keys, first, n = tile
        key = self.k.key
        copy = None if not key.stage_key else self.rows_to_words if key.paired else self.rows_to_rows
        if careful and key.terms:
            copy = self.rows_to_rows
        packed, row = self.packed(f, a, w, "key", keys, n, copy)
        f.call(self.careful_products if careful else self.products, w, packed, row, n, vectors, *soon)
        self._modified(f, a, w, first, n, vectors, full)
        return packed, row

    def packed(
        self, f: Function, a: Pointer, w: Pointer, name: str, rows: Pointer, n: Value, copy: Function | None
    ) -> tuple[Pointer, Value]:
        """The tile's keys or values as rows of words: as they are, or copied."""
        k, key = self.k, self.k.key
        row = k.argument(f, a, f"{name}_row")
        if copy is None:
            return rows, row
        dim = {"key": key.dim, "value": key.value_dim}[name]
        # The forward program's values are words of two keys' numbers, all others of two columns'.
        words = k.words(dim) if name == "key" or key.gradients else dim
        target = k.place(w, f"{name}s")
        f.call(copy, rows, row, k.argument(f, a, f"{name}_step"), n, dim, target)
        return target, f.value(words * k.element_bytes)

    def _modified(
        self, f: Function, a: Pointer, w: Pointer, first: Value, n: Value, vectors: Value, full: Value
    ) -> None:
        """Modify the scores where this tile needs it."""
        k, key = self.k, self.k.key
        if key.bias:
            step, table, target = k.argument(f, a, "bias_step"), k.place(w, "bias_rows"), k.place(w, "bias")
            f.call(self.bias_to_lanes, table, first * step, step, n, vectors, target, w)
        if self.modify is not None:
            with f.when(f.value(1, BOOL) if key.modified else full == 0):
                f.call(self.modify, a, w, first, n, vectors)
