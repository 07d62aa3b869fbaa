"""PyTorch's CPU tensors; imported only once one arrives, so that `import torch` here is never the first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import forward_ad

from sightline.arrays.spec import FollowedError, NoSignatureError, Spec, View, Workers

if TYPE_CHECKING:
    from collections.abc import Hashable

TYPES = (torch.Tensor, torch.nn.Parameter)
"""The classes met in nearly every call; subclasses are recognised more slowly."""

_NAMES = {
    getattr(torch, name): name
    for name in (
        *("float64", "float32", "float16", "bfloat16", "bool"),
        *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
    )
    if hasattr(torch, name)
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


def view(x: Any, name: str) -> View:
    """Look at a tensor's memory without copying it."""
    _refuse(x, name)
    dtype, size = _NAMES[x.dtype], x.element_size()
    spec = Spec(tuple(x.shape), tuple(stride * size for stride in x.stride()), dtype)
    return View(spec, _data_pointer(x, name), writable=True, owner=x)


def _refuse(x: Any, name: str) -> None:
    """Raise for a tensor that is not plain numbers in this machine's memory."""
    if x.is_nested or x.layout is not torch.strided:
        form = "nested" if x.is_nested else str(x.layout).removeprefix("torch.")
        raise TypeError(
            f"{name} is a {form} tensor; expected a dense one (strided layout): "
            f"try {name}.{'to_padded_tensor(0.0) with key_lengths=' if x.is_nested else 'to_dense()'}."
        )
    if x.device.type == "meta":
        raise TypeError(
            f"{name} is a meta tensor: it has a shape but no numbers; expected a tensor on the CPU."
        )
    if x.device.type != "cpu":
        raise ValueError(
            f"{name} is on {x.device}, for which sightline has no kernel yet; expected the CPU: "
            f"try {name}.cpu()."
        )
    if x.dtype not in _NAMES:
        raise TypeError(
            f"{name} has dtype {x.dtype}, which sightline cannot read; expected one of "
            f"{', '.join(_DTYPES)}: try {name}.float()."
        )
    if x.is_neg():
        raise TypeError(
            f"{name} is a lazily negated tensor (its memory holds the opposite signs, as in z.conj().imag); "
            f"expected its numbers in memory: try {name}.resolve_neg()."
        )
    if _differentiated(x):
        raise FollowedError(
            f"{name} takes part in differentiation, which only sightline.attention goes along with; "
            f"expected its numbers alone: use torch.no_grad() around the call, or pass {name}.detach().",
            "torch",
        )
    if followed(x):
        raise FollowedError(_stands_for_others(x, name), "torch")


def _stands_for_others(x: Any, name: str) -> str:
    return (
        f"{name} is a {type(x).__name__} without memory of its own (tracing, vmap and other torch.func "
        f"transforms, classes that wrap a tensor), which only sightline.attention goes along with; "
        f"expected a plain CPU tensor: call this outside of these."
    )


def _differentiated(x: Any) -> bool:
    """Whether autograd expects a gradient (backward mode) or carries a tangent (forward mode) through `x`."""
    if x.requires_grad and torch.is_grad_enabled():
        return True
    # The level is -1 outside forward_ad.dual_level(): unpack_dual alone would cost a microsecond to say so.
    if getattr(forward_ad, "_current_level", 0) < 0:
        return False
    return forward_ad.unpack_dual(x).tangent is not None


transformed = torch._C._functorch.is_functorch_wrapped_tensor
_NO_DISPATCH = torch.Tensor.__torch_dispatch__


def followed(x: Any) -> bool:
    """Whether more than the numbers of `x` matters: to autograd, torch.func, a tracer, or its own class."""
    if _differentiated(x) or transformed(x):
        return True
    return type(x) not in TYPES and type(x).__torch_dispatch__ is not _NO_DISPATCH


def signature(x: Any) -> Hashable:
    """What decides how `x` is seen and whether it is refused, less its address."""
    try:
        return x.shape, x.stride(), x.dtype, x.device, x.is_neg(), followed(x)
    except RuntimeError as error:  # some layouts have no shape or strides
        raise NoSignatureError(str(error)) from error


def address(x: Any) -> int:
    """Where the tensor's numbers begin."""
    return _data_pointer(x, "a tensor")


def _data_pointer(x: Any, name: str) -> int:
    """The data pointer, or a TypeError for tensors that stand for others: fake, functional, under vmap."""
    try:
        pointer: int = x.data_ptr()
    except RuntimeError:
        pointer = 0
    if pointer == 0 and x.numel() > 0:
        raise TypeError(_stands_for_others(x, name))
    return pointer


def empty(like: Any, shape: tuple[int, ...], dtype: str) -> object:
    """A new contiguous tensor; unlike torch.empty, new_empty does not follow the default device."""
    return like.new_empty(shape, dtype=_DTYPES[dtype])


_CORE = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
_WORKERS = Workers(torch.get_num_threads, str(_CORE))


def workers() -> Workers:
    """PyTorch's threads, which go on spinning after each of its operations."""
    return _WORKERS
