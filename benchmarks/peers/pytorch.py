"""PyTorch's `scaled_dot_product_attention`, which takes its flash kernel on the CPU for all of these."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.peers import Case, Prepared, Unsupported

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def sdpa(case: Case, threads: int) -> Prepared:
    """As it comes; a window or a mask as a boolean tensor."""
    shape = case.shape
    return _attention(case, threads, torch.from_numpy(shape.allowed()) if shape.needs_dense else None)


def sdpa_additive(case: Case, threads: int) -> Prepared:
    """A window or a mask as numbers to add, which PyTorch runs faster than a boolean one."""
    shape = case.shape
    if not shape.needs_dense:
        raise Unsupported("the shape has no mask")
    allowed = torch.from_numpy(shape.allowed())
    return _attention(
        case, threads, torch.zeros(allowed.shape, dtype=DTYPES[case.dtype]).masked_fill_(~allowed, -math.inf)
    )


def sdpa_folded(case: Case, threads: int) -> Prepared:
    """One query per sequence, grouped heads: the group's heads become query rows, so keys are read once."""
    shape = case.shape
    if shape.queries != 1 or shape.group == 1 or shape.needs_dense or shape.causal:
        raise Unsupported("the shape is no grouped decode")
    query, key, value = inputs(case, threads)
    rows = query.view(shape.batch, shape.kv_heads, shape.group, shape.dim)
    last: list[Any] = []

    def call() -> None:
        last[:] = [functional.scaled_dot_product_attention(rows, key, value)]

    return Prepared(call, lambda: to_numpy(last[0]).reshape(shape.batch, shape.heads, 1, shape.dim))


def _attention(case: Case, threads: int, mask: Any) -> Prepared:
    query, key, value = inputs(case, threads)
    causal = case.shape.causal and mask is None
    grouped = case.shape.group > 1
    last: list[Any] = []

    def call() -> None:
        last[:] = [
            functional.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, is_causal=causal, enable_gqa=grouped
            )
        ]

    return Prepared(call, lambda: to_numpy(last[0]))


def inputs(case: Case, threads: int) -> list[Any]:
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)  # as a server would, outside of the timing
    wide = (array.astype(np.float64) for array in (case.query, case.key, case.value))
    return [
        torch.from_numpy(array).to(DTYPES[case.dtype]) for array in wide
    ]  # exact: it came from that dtype


def to_numpy(output: Any) -> np.ndarray:
    return np.asarray(output.double().numpy())
