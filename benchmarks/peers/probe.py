"""No peer: a float32 matrix product timed beside every cell, which shows when the machine was disturbed."""

from __future__ import annotations

import numpy as np

from benchmarks.peers import Case, Prepared

SIZE = 1024
FLOPS = 2.0 * SIZE**3


def matmul(case: Case, threads: int) -> Prepared:
    """NumPy's own product; its BLAS has its thread count from the environment."""
    del threads
    random = np.random.default_rng(0)
    left, right = random.standard_normal((2, SIZE, SIZE), np.float32)
    product = np.empty_like(left)
    return Prepared(lambda: np.matmul(left, right, out=product), lambda: np.zeros(case.query.shape))
