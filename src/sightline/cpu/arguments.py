"""What a kernel is told at run time: an array of 64-bit slots, named here for its writers and its readers."""

from __future__ import annotations

import ctypes
import struct

# The first slot is shared by all threads of a call: the next work item that nobody has taken yet.
_NAMES = (
    "next_item",
    "items",  # work items in all
    "slice_items",  # items a thread takes before it returns to Python, where Ctrl-C is heard
    # Addresses of the operands, filled in at every call, and of the table with a row per sequence (BATCH_COLUMNS).
    *("query", "key", "value", "mask", "bias", "sinks", "slopes", "out", "batches"),
    # Where the statistics of each query go, contiguous (sequence, head, query); shift and log_sum come back in.
    *("lse", "max_score", "entropy", "distance", "shift", "log_sum"),
    # What the second pass makes, in the order of its items; bytes from one item's part to the next one's.
    *("received", "visible", "pooled", "diagonals", "top_weights", "top_indices", "weight_rows"),
    *("received_item", "visible_item", "diagonals_item", "pooled_space", "pooled_row"),
    *("pool_rows", "pool_columns", "top_keys"),
    *("strip", "top"),  # bytes from the workspace's start to parts whose size only the call knows
    # Lists of heads and queries (int64), and which of the listed queries count for `received`.
    *("heads", "chosen", "counts"),
    *("runs", "run_blocks"),
    # Of the backward program: what comes in beside (d_lse may be 0: none), and what is made.
    *("d_out", "d_lse", "d_query", "d_key", "d_value", "dot", "lean"),
    *("units", "ranges", "range_keys"),  # of a key head: blocks of rows, and runs of keys
    # Of the bias: bytes of a part with numbers of its own, of a row, and the heads that read each part.
    *("d_bias", "own_bytes", "d_bias_row", "repeats", "repeat_count"),
    # Where the keys of a block are shared among pieces: how many, keys of one; for each block, how many pieces are
    # done, and a shelf for the states of its periods; bytes of a shelf, and of a state.
    *("pieces", "piece_keys", "finished", "shelves", "shelf_bytes", "state_bytes"),
    # Sizes. A "space" is a run of query rows that share a key head: one head's queries, or a group's.
    *("spaces", "space_rows", "space_heads", "spaces_per_kv_head", "blocks", "queries", "keys", "by_block"),
    *("all_heads", "all_queries"),  # of the problem; `spaces` and `queries` may be of lists
    # Strides in bytes: from head to head, row to row, element to element.
    *("query_head", "query_row", "query_step", "key_head", "key_row", "key_step"),
    *("value_head", "value_row", "value_step", "out_head", "out_row", "out_step"),
    *("d_out_head", "d_out_row", "d_out_step", "d_query_head", "d_query_row", "d_query_step"),
    *("d_key_head", "d_key_row", "d_value_head", "d_value_row"),
    *("mask_head", "mask_row", "mask_step", "bias_head", "bias_row", "bias_step"),
    # The band of keys around a query's position: left ≤ keys before it, right ≤ keys after it.
    *("left", "right"),
    # Numbers, as the bits of a float64. exponent: what a score is multiplied by inside 2^x.
    *("scale", "exponent", "softcap"),
    # Of dropout: the seed's 64 bits, the largest hash that drops a weight; then numbers, 1 − p and 1 / (1 − p).
    *("seed", "drop_limit", "keep", "keep_scale"),
)
SLOT = {name: index for index, name in enumerate(_NAMES)}
SLOTS = len(_NAMES)

# One row per sequence: byte offsets of its part of each operand, its queries' first position, its keys.
BATCH_COLUMNS = (
    *("query", "key", "value", "out", "mask", "bias", "position", "length"),
    *("d_out", "d_query", "d_key", "d_value"),
)

Block = ctypes.c_int64 * SLOTS
_addresses = struct.Struct("=8q")
_FIRST_ADDRESS = 8 * SLOT["query"]
_key_strides = struct.Struct("=6q")
_FIRST_KEY_STRIDE = 8 * SLOT["key_head"]


def put_addresses(block: ctypes.Array[ctypes.c_int64], *addresses: int) -> None:
    """Fill in the slots from query to out, all at once: one by one they would take six times as long."""
    _addresses.pack_into(block, _FIRST_ADDRESS, *addresses)


def put_keys(block: ctypes.Array[ctypes.c_int64], keys: int, *strides: int) -> None:
    """Fill in how many keys there are, and the strides of keys and values."""
    block[SLOT["keys"]] = keys
    _key_strides.pack_into(block, _FIRST_KEY_STRIDE, *strides)


def float_bits(number: float) -> int:
    """A float64 as the integer with the same bits."""
    return int(struct.unpack("<q", struct.pack("<d", number))[0])
