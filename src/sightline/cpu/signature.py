"""What a kernel is told of a call before there are addresses: what the plan and the shapes of arrays say."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sightline import arrays, operands
from sightline.cpu.arguments import BATCH_COLUMNS, SLOT, Block, float_bits
from sightline.kernel_key import SIZES

if TYPE_CHECKING:
    import ctypes

    from numpy.typing import NDArray

    from sightline.arrays import Spec
    from sightline.plan import Plan

LOG2_E = math.log2(math.e)
UNBOUNDED = 2**40  # further than any position
COLUMN = {
    "query_offset": BATCH_COLUMNS.index("position"),
    "key_lengths": BATCH_COLUMNS.index("length"),
}


def specs_of(plan: Plan, out: Spec | None) -> dict[str, Spec]:
    """Each operand as (*batch, heads, length, …); without `out`, the new contiguous array the door makes."""
    p = plan.problem
    specs = {"query": p.query, "key": p.key}
    if plan.kernel.value_dim:
        out = out or contiguous(p.output_shape, p.dtype)
        specs |= {"value": p.value, "out": operands.heads_first(out, p.layout)}
    specs.update({name: spec for name, spec in (("mask", p.mask), ("bias", p.bias)) if spec is not None})
    return specs


def contiguous(shape: tuple[int, ...], dtype: str) -> Spec:
    """A new array's form."""
    size, strides = SIZES[dtype], list[int]()
    for length in reversed(shape):
        strides.append(size)
        size *= max(length, 1)
    return arrays.Spec(shape, tuple(reversed(strides)), dtype)


def lists_of(plan: Plan) -> dict[str, NDArray[np.int64]]:
    """The heads and queries that the pass is about, where they are lists."""
    if plan.chosen is None:
        return {}
    chosen = {"heads": plan.chosen.heads, "chosen": plan.chosen.queries}
    return {name: np.array(numbers, np.int64) for name, numbers in chosen.items()}


def template(plan: Plan, specs: dict[str, Spec]) -> ctypes.Array[ctypes.c_int64]:
    """The kernel's arguments but for addresses."""
    p = plan.problem
    left, right = (UNBOUNDED if bound is None else bound for bound in p.band)
    values = {
        "items": plan.items,
        "slice_items": plan.slice_items,
        "spaces": plan.spaces,
        "space_rows": plan.space_rows,
        "space_heads": p.group if plan.folded else 1,
        "spaces_per_kv_head": 1 if plan.folded else p.group,
        "blocks": plan.blocks,
        "by_block": int(plan.by_block),
        "runs": plan.runs,
        "run_blocks": plan.run_blocks,
        "queries": plan.head_rows,
        "all_heads": p.heads,
        "all_queries": p.queries,
        "keys": p.keys,
        "left": left,
        "right": right,
        "scale": float_bits(p.scale),
        "exponent": float_bits(LOG2_E if plan.kernel.scaled else LOG2_E * p.scale),
        "softcap": float_bits(p.softcap or 0.0),
        "drop_limit": math.ceil(p.dropout_p * 2**32) - 1,
        "keep": float_bits(1 - p.dropout_p),
        "keep_scale": float_bits(1 / (1 - p.dropout_p) if p.dropout_p < 1 else 0.0),
    }
    for name, spec in specs.items():
        for part, stride in zip(("head", "row", "step"), spec.strides[-3:], strict=True):
            values[f"{name}_{part}"] = stride
    block = Block()
    for name, value in values.items():
        block[SLOT[name]] = value
    return block


def batches(plan: Plan, specs: dict[str, Spec], key_length: int) -> NDArray[np.int64]:
    """One row per sequence: where its part of each operand begins, in bytes; its first position; its keys."""
    p = plan.problem
    table = np.zeros((plan.sequences, len(BATCH_COLUMNS)), np.int64)
    if plan.sequences > 1:
        put_offsets(table, p.batch, specs)
    table[:, COLUMN["query_offset"]] = p.query_offset or 0
    table[:, COLUMN["key_lengths"]] = key_length
    return table


def put_offsets(table: NDArray[np.int64], batch: tuple[int, ...], specs: dict[str, Spec]) -> None:
    """Where each sequence's part of the operands begins."""
    index = np.indices(batch).reshape(len(batch), -1)
    for name, spec in specs.items():
        table[:, BATCH_COLUMNS.index(name)] = np.array(spec.strides[:-3], np.int64) @ index
