"""A thread's working memory for one block of rows: where each part lies. Plain numbers, no code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.kernel_key import BIAS_TILES, MATRIX_KEYS, PERIOD_TILES, register_tile

if TYPE_CHECKING:
    from sightline.cpu.isa import Isa
    from sightline.kernel_key import KernelKey

MASK_WORD = 32  # keys per word of a packed mask
STATISTICS = ("best", "mass", "heat", "reach")
# What blocks of a run, which take turns, need not have for themselves.
SHARED = frozenset((
    *("scores", "weight_tiles", "nothing", "ones", "bias", "words", "keys", "values", "patch", "output_rows"),
    *("top", "fade", "tile_sum", "tile_heat", "tile_reach", "climbed", "waiting", "period", "shrink"),
    *("last_keys", "outs", "d_scores", "steepness", "weight_rows", "d_score_rows", "d_score_tiles"),
    *("d_key_sums", "d_value_sums"),
))  # fmt: skip
FLOAT_BYTES = 4
TILE_ROWS = 16
TILE_BYTES = 1024  # of a matrix unit's registers: 16 rows of 64 bytes
ROW_NUMBERS = 10  # what is remembered of a block's rows (rows.Rows), and where the shared parts begin


def rows_of(value_dim: int, see: tuple[str, ...]) -> int:
    """Rows of numbers that a state takes (see `state`): O, m, l, and statistics."""
    return value_dim + 2 + (len(STATISTICS) + 1 if see else 0)


class Workspace:
    """The parts, in order; `offset` tells where one begins, `bytes` how much there is in all.

    | part | what | shape |
    |---|---|---|
    | query, output | Qᵀ and Oᵀ of the block | dimension × row |
    | scores | Sᵀ of a tile; then, in place, Pᵀ | key × row |
    | bias | Bᵀ of a tile | key × row |
    | keys, values | a tile of K and V as packed rows, where they need converting | key × dimension |
    | words | the tile's mask, 32 keys to a word | word × row |
    | output_rows, recent_rows | O, and a tile's part of it, in rows, for few queries | row × dimension |
    | kept_output, kept_sum, … | the state that is kept of the periods before this one | as those |
    | high, top, sum, fade | softmax state: running maximum m, tile's largest score, l, exp(m_old − m) | row |
    | seen_sum | l of weights that are not rounded, where l is of rounded ones | row |
    | origin | position of the sequence's first query | one |
    | position, slope, sink, first, end | what differs from row to row | row |
    | *_rows | addresses of the block's rows in the operands (see_rows: their number among all rows) | row |
    | row_low, row_high | the two words of a row's key, for dropout | row |
    | best, mass, heat, reach, see_* | statistics | row |
    | counted | 1 for the rows that count for what keys receive, else 0 | row |
    | received_at, visible_at, diagonals_at, pooled_at | where an item's own sums lie | address (per row) |
    | d_out, d_query, kept_d_query | dOᵀ and dQᵀ of the block; dQᵀ of the tiles before | dimension × row |
    | d_scores | dPᵀ of a tile; then, in place, dSᵀ | key × row |
    | steepness | the softcap's derivative at each score | key × row |
    | outs, d_outs, queries | O, dO and Q of the block as packed rows | row × dimension |
    | *.pairs | what has a second form, in pairs of bfloat16 | pairs of rows, or of keys |
    | dot, delta, lse, shift, lift | Σ_d dO·O; dot − dlse; what makes a weight of a score | row |
    | d_bias, d_bias_begin | dS of a run of keys, summed; the first of them | key × row; one |
    | lean, top_seen | dS times distance, summed; a score that was seen | row |
    | nothing, ones | a tile of zeros; one whose first row is ones | row × row |
    | query_tiles, weight_tiles, … | Qᵀ, Pᵀ, dOᵀ, dSᵀ in terms of bfloat16, as a matrix unit reads them | tile |
    | query_pairs, weight_rows, … | Q, dO, Pᵀ and dSᵀ in terms, for sums over queries | tile |
    | d_key_sums, d_value_sums | what a run of blocks adds to dK and dV of a tile of keys | key × column |
    | last_keys | the last keys in tiles, where the others are read in place | tile |
    | climbed | m_old − m, where it rises | row |
    | tile_sum, tile_heat, tile_reach | Σ p, Σ p · x and Σ p · distance over a tile | row |
    | rows | what is known of all the rows together, and where the parts begin that blocks share | 8 |
    | unfit | NaN for rows that the unit cannot do, else 0 | row |
    | period | what is known of the period that is at work (packs) | 8 |
    | shrink | what values shrink by when done with care | 1 |
    | waiting | keys whose weights wait, and the address of their values | 2 |
    | patch | a square of lanes × lanes on its way through a transpose | lane × lane |
    """

    def __init__(self, key: KernelKey, isa: Isa) -> None:
        lanes, rows, row_bytes = isa.lanes(key.element_bytes), key.block_rows, key.row_bytes
        tile = key.tile_keys + register_tile(isa).keys  # the last register tile of keys may stick out
        parts = {
            "query": (key.dim + (MATRIX_KEYS if key.terms else lanes)) * row_bytes,
            "output": (key.value_dim + (MATRIX_KEYS if key.terms else lanes)) * row_bytes
            if not key.gradients
            else 0,
            **dict.fromkeys(
                ("output_rows", "recent_rows"),
                key.few * (-(-key.value_dim // lanes) * lanes) * key.element_bytes if not key.terms else 0,
            ),
            "scores": tile * row_bytes,
            "kept_output": key.value_dim * row_bytes if not key.gradients else 0,
            "bias": (tile + lanes) * row_bytes if key.bias else 0,
            "keys": key.tile_keys * key.dim * key.element_bytes if key.stage_key or key.terms else 0,
            "values": key.tile_keys * key.value_dim * key.element_bytes
            if key.stage_value or key.copies_with_care
            else 0,
            "words": -(-key.tile_keys // MASK_WORD) * rows * 4 if key.mask else 0,
            **dict.fromkeys(
                (*STATISTICS, *(f"kept_{name}" for name in STATISTICS)), row_bytes if key.see else 0
            ),
            **dict.fromkeys((f"see_{name}" for name in key.see), row_bytes),
            **dict.fromkeys(("high", "top", "sum", "fade", "position", "slope", "sink"), row_bytes),
            **dict.fromkeys(("first", "end", "kept_sum", "kept_high"), row_bytes),
            **dict.fromkeys(("seen_sum", "kept_seen_sum"), row_bytes if key.see and key.in_halves else 0),
            "origin": 8,
            **dict.fromkeys(("query_rows", "out_rows", "mask_rows", "bias_rows", "see_rows"), rows * 8),
            **dict.fromkeys(("row_low", "row_high"), rows * 4 if key.dropout else 0),
            "counted": row_bytes,
            **dict.fromkeys(("received_at", "visible_at", "diagonals_at"), 8),
            "pooled_at": rows * 8,
            "patch": lanes * lanes * 8,
            **(_of_gradients(key, lanes, tile) if key.gradients else {}),
            **(_of_tiles(key) if key.terms else {}),
        }
        shared = SHARED | {"query"} if key.queries_in_rows else SHARED
        self.shared = shared & parts.keys() if key.terms else frozenset[str]()
        own = {name: size for name, size in parts.items() if name not in self.shared}
        together = {name: parts[name] for name in parts if name in self.shared}
        (own_places, self.bytes), (places, self.shared_bytes) = _laid_out(own), _laid_out(together)
        self._offsets = own_places | places

    def offset(self, part: str) -> int:
        """Bytes from the workspace's start, or from where the parts that blocks share begin."""
        return self._offsets[part]


def _laid_out(sizes: dict[str, int]) -> tuple[dict[str, int], int]:
    """Parts one after another: bytes to each, and in all."""
    places, end = {}, 0
    for name, size in sizes.items():
        places[name] = end
        # Buffers a multiple of 4096 bytes apart would make loads of one wait for stores to the other.
        end += -(-size // 64) * 64 + (64 if size > 4096 else 0)
    return places, end


def _of_tiles(key: KernelKey) -> dict[str, int]:
    """What products on a matrix unit need beside."""
    vectors, weights = key.block_rows // 16, "d_score_tiles" if key.gradients else "weight_tiles"
    steps = {"query_tiles": -(-key.dim // MATRIX_KEYS), weights: key.group_keys // MATRIX_KEYS}
    return {
        "nothing": TILE_BYTES,
        "last_keys": 2 * -(-key.dim // MATRIX_KEYS) * TILE_BYTES if key.keys_in_place else 0,
        "ones": TILE_BYTES if key.in_halves else 0,
        **{name: count * vectors * key.terms * TILE_BYTES for name, count in steps.items()},
        "rows": 8 * ROW_NUMBERS,
        **(_of_gradients_in_tiles(key) if key.gradients else {}),
        "unfit": key.row_bytes,
        "waiting": 16,
        "shrink": 8,
        "period": 64 + PERIOD_TILES * key.tile_keys // MATRIX_KEYS,
        "tile_sum": key.row_bytes,
        **dict.fromkeys(("tile_heat", "tile_reach", "climbed"), key.row_bytes if key.see else 0),
    }


def _of_gradients(key: KernelKey, lanes: int, tile: int) -> dict[str, int]:
    """What the backward program has beside."""
    packed = {
        "queries": -(-key.dim // lanes) * lanes * key.row_bytes,
        **dict.fromkeys(("outs", "d_outs"), -(-key.value_dim // lanes) * lanes * key.row_bytes),
    }
    pairs = {
        **{f"{name}.pairs": size // 2 for name, size in packed.items()},
        **dict.fromkeys(("scores.pairs", "d_scores.pairs"), tile * key.row_bytes // 2),
        "keys.pairs": -(-key.tile_keys // 2) * key.dim * 4,
        "keys.wide": key.tile_keys * key.dim * 4,
    }
    return {
        "d_bias": BIAS_TILES * key.tile_keys * key.row_bytes if "bias" in key.gradients else 0,
        "d_bias_begin": 8,
        "d_out": (key.value_dim + (MATRIX_KEYS if key.terms else lanes)) * key.row_bytes,
        **dict.fromkeys(("d_query", "kept_d_query"), (key.dim + lanes) * key.row_bytes),
        "d_scores": tile * key.row_bytes,
        "steepness": tile * key.row_bytes if key.softcap else 0,
        **dict.fromkeys(("dot", "delta", "lse", "shift", "lift", "lean", "top_seen"), key.row_bytes),
        **dict.fromkeys(("d_out_rows", "d_query_rows", "d_bias_rows"), key.block_rows * 8),
        **packed,
        **(pairs if key.paired else {}),
    }


def _of_gradients_in_tiles(key: KernelKey) -> dict[str, int]:
    """What the backward program has beside for products on a matrix unit."""
    steps, tile = key.block_rows // MATRIX_KEYS, key.terms * TILE_BYTES
    wide = {"key": -(-key.dim // TILE_ROWS), "value": -(-key.value_dim // TILE_ROWS)}
    return {
        "d_out_tiles": -(-key.value_dim // MATRIX_KEYS) * (key.block_rows // TILE_ROWS) * tile,
        "query_pairs": steps * wide["key"] * tile,
        "d_out_pairs": steps * wide["value"] * tile,
        **dict.fromkeys(("weight_rows", "d_score_rows"), -(-key.tile_keys // TILE_ROWS) * steps * tile),
        **{
            f"d_{name}_sums": key.tile_keys * columns * TILE_ROWS * FLOAT_BYTES
            for name, columns in wide.items()
        },
    }


# ---- what a run of blocks has together, before the working memory of each ----


def padded_bytes(columns: int) -> int:
    """A row of so many numbers that waits to be packed, as float32."""
    return -(-columns // MATRIX_KEYS) * MATRIX_KEYS * FLOAT_BYTES


def pack_bytes(key: KernelKey) -> dict[str, int]:
    """What MATRIX_KEYS keys take as tiles, and so many values."""
    rows = {"key": 2 * -(-key.dim // MATRIX_KEYS), "value": 2 * -(-key.value_dim // MATRIX_KEYS)}
    columns = {"key": -(-key.dim // TILE_ROWS), "value": -(-key.value_dim // TILE_ROWS)}
    tiles = {"key": rows["key"], "value": columns["value"]}
    if key.gradients:
        tiles = {"key": rows["key"], "key_columns": columns["key"], "value": rows["value"]}
    return {name: count * key.terms * TILE_BYTES for name, count in tiles.items()}


def run_offsets(key: KernelKey, isa: Isa) -> dict[str, int]:
    """Bytes from the start of a run's working memory: to its parts, and to its blocks' at `blocks`."""
    groups = (key.tile_keys if key.by_single_tiles else key.period_keys) // MATRIX_KEYS
    parts = {
        "config": 64,
        "waiting": MATRIX_KEYS * padded_bytes(max(key.dim, key.value_dim)),
        **{name: groups * size for name, size in pack_bytes(key).items()},
        "shared": Workspace(key, isa).shared_bytes,
    }
    places, end = _laid_out(parts)
    return places | {"blocks": end}


def run_bytes(key: KernelKey, isa: Isa, blocks: int) -> int:
    """All that a thread needs for runs of so many blocks."""
    own = Workspace(key, isa).bytes
    return run_offsets(key, isa)["blocks"] + blocks * own if key.terms else own
