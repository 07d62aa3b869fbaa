"""What a training step asks of attention: the output, and the gradients of query, key and value.

Ours and PyTorch's are called with the same tensors in the same words, and followed by PyTorch's autograd.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

import sightline.torch
from benchmarks import check_gradients
from benchmarks.peers import Case, Prepared, Unsupported
from benchmarks.peers.pytorch import DTYPES, to_numpy

if TYPE_CHECKING:
    from collections.abc import Callable


def ours(case: Case, threads: int) -> Prepared:
    """Forward and backward."""
    return _step(sightline.torch.scaled_dot_product_attention, case, threads)


def theirs(case: Case, threads: int) -> Prepared:
    """Forward and backward of PyTorch's function, which takes its flash kernels on the CPU."""
    return _step(functional.scaled_dot_product_attention, case, threads)


def ours_forward(case: Case, threads: int) -> Prepared:
    """The first half of the step: the output, and what the gradients will need."""
    return _forward(sightline.torch.scaled_dot_product_attention, case, threads)


def theirs_forward(case: Case, threads: int) -> Prepared:
    """The same of PyTorch's function."""
    return _forward(functional.scaled_dot_product_attention, case, threads)


def _step(function: Callable[..., Any], case: Case, threads: int) -> Prepared:
    attention, tensors = _followed(function, case, threads)
    d_output = _tensor(check_gradients.d_output(case.shape, case.dtype), case.dtype)
    last: list[Any] = []

    def call() -> None:
        output = attention()
        last[:] = [output.detach(), *torch.autograd.grad(output, tensors, d_output)]

    return Prepared(call, lambda: to_numpy(last[0]), lambda: [to_numpy(x) for x in last[1:]])


def _forward(function: Callable[..., Any], case: Case, threads: int) -> Prepared:
    attention, _ = _followed(function, case, threads)
    last: list[Any] = []

    def call() -> None:
        last[:] = [attention()]

    return Prepared(call, lambda: to_numpy(last[0].detach()))


def _followed(
    function: Callable[..., Any], case: Case, threads: int
) -> tuple[Callable[[], Any], tuple[Any, ...]]:
    """The call, and the tensors that want gradients."""
    shape = case.shape
    if shape.needs_dense:
        raise Unsupported("a training step is measured without a mask")
    torch.set_num_threads(threads)
    sightline.set_num_threads(threads)
    query, key, value = (_tensor(x, case.dtype).requires_grad_() for x in (case.query, case.key, case.value))

    def call() -> Any:
        return function(query, key, value, is_causal=shape.causal, enable_gqa=shape.group > 1)

    return call, (query, key, value)


def _tensor(x: Any, dtype: str) -> Any:
    """Exact: it came from that type."""
    return torch.from_numpy(x.astype("float64")).to(DTYPES[dtype])
