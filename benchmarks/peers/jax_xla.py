"""JAX's `dot_product_attention`, compiled by XLA for the CPU, in its own layout (B, L, H, D)."""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import Case, Prepared, Unsupported


def attention(case: Case, threads: int) -> Prepared:
    """Compiled before the clock starts; XLA takes its thread count from the cores it may use."""
    if len(os.sched_getaffinity(0)) != threads:
        raise Unsupported("XLA runs one thread per core, and that is another number here")
    shape = case.shape
    query, key, value = (
        jax.device_put(jnp.asarray(array.transpose(0, 2, 1, 3)))
        for array in (case.query, case.key, case.value)
    )
    mask = jnp.asarray(shape.allowed())[None, None] if shape.needs_dense else None
    causal = shape.causal and mask is None

    def program(query: Any, key: Any, value: Any) -> Any:
        return jax.nn.dot_product_attention(
            query, key, value, mask=mask, is_causal=causal, implementation="xla"
        )

    compiled = jax.jit(program).lower(query, key, value).compile()
    last: list[Any] = []

    def call() -> None:
        last[:] = [compiled(query, key, value).block_until_ready()]

    return Prepared(call, lambda: np.asarray(last[0].astype("float32"), np.float64).transpose(0, 2, 1, 3))
