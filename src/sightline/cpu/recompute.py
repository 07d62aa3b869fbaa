"""The scores once more, and beside them dP: what every backward program begins with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sightline.cpu import amx, derivative, packing, softmax, state, terms, tiles, transpose
from sightline.cpu.kinds import ADDRESS, BOOL, INT, NEGATIVE_INFINITY
from sightline.cpu.scoring import Scoring

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.rows import Rows
    from sightline.cpu.values import Pointer, Value

PACKED = {"query": "queries", "out": "outs", "d_out": "d_outs"}
"""The part with an operand's rows side by side."""

Tile = tuple["Pointer", "Pointer", "Value", "Value"]
"""Its first key and value, the key's number, keys in the tile."""


class Recompute:
    """The functions that S and dP are made of, and the steps that call them."""

    def __init__(self, k: Kernel) -> None:
        key = k.key
        self.k = k
        self.scoring = Scoring(k)
        self.copy_values = self.scoring.rows_to_rows if key.stage_value else None
        if key.paired and key.stage_value:
            self.copy_values = self.scoring.rows_to_words or transpose.rows_to_words(k)
        self.pair_rows = packing.pair_rows(k) if key.paired else None
        self.table_to_rows = packing.table_to_rows(k, key.dtype)
        self.all_finite = packing.all_finite(k, "float64" if key.dtype == "float64" else "float32")
        product = tiles.Product("d_weights", key.value_dim, "d_out", "d_scores", 0)
        self.d_weights = (amx if key.terms else tiles).inner(k, product)
        self.weights = softmax.weights(k, careful=True)
        if key.terms:
            self.careful_d_weights = tiles.inner(k, replace(product, name="d_weights.careful"))
            self.pack_lanes = [
                terms.pack_lanes(k, "query", key.dim),
                terms.pack_lanes(k, "d_out", key.value_dim),
            ]
            self.pack_rows = {
                name: terms.pack_rows(k, PACKED[name], columns)
                for name, columns in (("query", key.dim), ("d_out", key.value_dim))
            }
        else:
            self.far_tile = self._far_tile()

    def load(self, f: Function, a: Pointer, w: Pointer, rows: Rows) -> tuple[Value, Value]:
        """Q and dO in lanes and as packed rows, and what makes weights of scores.

        Whether Q and dO are finite, or fit a matrix unit; and whether some row's lse does not tell its weights.
        """
        k, key = self.k, self.k.key
        self.scoring.load_queries(f, a, w, rows)
        place, step, dim = k.place(w, "d_out_rows"), k.argument(f, a, "d_out_step"), f.value(key.value_dim)
        to_lanes = self.scoring.rows_to_lanes
        f.call(to_lanes, place, f.value(0), step, dim, rows.vectors, k.place(w, "d_out"), w)
        if key.terms:
            for pack in self.pack_lanes:
                f.call(pack, w, rows.vectors)
        self._pack(f, a, w, rows, "out", key.value_dim)
        finite = self._pack(f, a, w, rows, "d_out", key.value_dim) & self._pack(
            f, a, w, rows, "query", key.dim
        )
        return finite, derivative.start(k, f, a, w, rows)

    def _pack(self, f: Function, a: Pointer, w: Pointer, rows: Rows, name: str, columns: int) -> Value:
        """The block's rows of an operand side by side; whether they are finite."""
        k = self.k
        part = PACKED[name]
        table, step, total = (
            k.place(w, f"{name}_rows"),
            k.argument(f, a, f"{name}_step"),
            rows.vectors * k.lanes,
        )
        f.call(self.table_to_rows, table, step, f.value(columns), rows.count, total, k.place(w, part))
        if name == "out":
            return f.value(1, BOOL)
        if k.key.terms:
            return f.call(self.pack_rows[name], w, rows.vectors) == 0
        if self.pair_rows is not None:
            f.call(self.pair_rows, k.place(w, part), f.value(columns), total, k.place(w, f"{part}.pairs"))
        row = k.column_vectors(columns) * k.vector_bytes
        return f.call(self.all_finite, k.place(w, part), row, rows.count, f.value(columns))

    def begin_far(self, f: Function, a: Pointer, w: Pointer, rows: Rows) -> None:
        """Largest score and sum of weights of each row, before any key."""
        k = self.k
        if k.key.sinks:
            state.keep_sinks(k, f, a, w, rows.vectors, careful=True)
        with f.loop(0, rows.vectors, name="begin") as g:
            for part, nothing in (("high", NEGATIVE_INFINITY), ("sum", 0.0)):
                kept = k.table(w, f"kept_{part}")
                k.table(w, part)[g] = kept[g] if k.key.sinks else f.value(nothing, k.vec)

    def again_with_care(self, f: Function, a: Pointer, w: Pointer, rows: Rows) -> None:
        """Largest score and sum of weights of each row, for those whose lse does not tell."""
        k, size = self.k, self.k.key.tile_keys
        self.begin_far(f, a, w, rows)
        keys = self.scoring.of_head(f, a, rows, "key")
        with f.loop(rows.begin // size * size, rows.end, size, name="tile") as corner:
            first, last = corner.max(rows.begin), (corner + size).min(rows.end)
            full = ((first >= rows.full_begin) & (last <= rows.full_end)).unsigned(INT)
            f.call(self.far_tile, a, w, keys, first, last - first, rows.count, full)
        derivative.replace_far(k, f, a, w, rows.vectors)

    def _far_tile(self) -> Function:
        """One tile of keys for rows whose lse does not tell.

        Parameters: arguments, workspace, the head's keys, first key of the tile, keys in it, rows, whether every
        row may see all of it (as far as causal and window go).
        """
        k = self.k
        with k.module.function("far", *[ADDRESS] * 3, *[INT] * 4, returns=INT) as f:
            a, w, keys, first, n, rows, full = f.arguments()
            full = self.scoring.skip_empty(f, a, w, first, n, rows, full)
            vectors, row = (rows + (k.lanes - 1)) // k.lanes, k.argument(f, a, "key_row")
            keys = keys + first * row
            self.scoring.scores(f, a, w, (keys, first, n), vectors, full, (keys + n * row, row))
            f.call(self.weights, a, w, first, n, vectors)
            f.give(1)
        return f

    def tile(
        self, f: Function, a: Pointer, w: Pointer, tile: Tile, vectors: Value, full: Value
    ) -> tuple[Pointer, Value]:
        """S, modified and masked, and dP; the tile's keys as `Scoring.packed` gives them."""
        k = self.k
        keys, values, first, n = tile
        value_row = k.argument(f, a, "value_row")
        packed = self.scoring.scores(f, a, w, (keys, first, n), vectors, full, (values, value_row))
        derivative.look(k, f, w, vectors)
        rows, row = self.scoring.packed(f, a, w, "value", values, n, self.copy_values)
        f.call(self.d_weights, w, rows, row, n, vectors, rows, 0)
        return packed
