"""Sightline itself, as a user calls it: NumPy arrays in, a new NumPy array out."""

from __future__ import annotations

import numpy as np

import sightline
from benchmarks.peers import Case, Prepared


def high(case: Case, threads: int) -> Prepared:
    """The same with `precision="high"`."""
    return attention(case, threads, precision="high")


def attention(case: Case, threads: int, precision: str = "highest") -> Prepared:
    """`sightline.attention`, causal and window by their names, a boolean mask where there is one."""
    sightline.set_num_threads(threads)
    shape = case.shape
    mask = shape.dense_mask() if shape.mask else None
    last: list[np.ndarray] = []

    def call() -> None:
        last[:] = [
            sightline.attention(
                case.query,
                case.key,
                case.value,
                mask=mask,
                causal=shape.causal,
                window=shape.window,
                precision=precision,
            )
        ]

    return Prepared(call, lambda: last[0].astype(np.float64))
