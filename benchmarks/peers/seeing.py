"""Sightline with a question: the output, and what was asked, in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import sightline
from benchmarks.check_seen import check
from benchmarks.peers import Case, Prepared

if TYPE_CHECKING:
    from sightline import See


def ours(see: See | None, case: Case, threads: int) -> Prepared:
    """`sightline.attention` with `see`; what was seen is checked when the output is asked for."""
    sightline.set_num_threads(threads)
    last: list[Any] = []

    def call() -> Any:
        last[:] = [sightline.attention(case.query, case.key, case.value, causal=case.shape.causal, see=see)]
        return last[0]

    def output() -> np.ndarray:
        if see is None:
            return np.asarray(last[0].astype(np.float64))
        check(case, see, last[0][1])
        return np.asarray(last[0][0].astype(np.float64))

    return Prepared(call, output)
