"""What an array is to us: a shape, byte strides, a type name and an address, whoever owns the memory.

Each kind of array has a file with the same functions; here the right file is found. A call goes

    view(x)                      the first time: everything about x, checked; errors name the argument
    signature(x), address(x)     when a signature was seen before: about 0.5 µs, no checks needed
    settle(x)                    for objects that have no signature: a NumPy look at the same memory
    empty_like(x), give_back(x)  memory for the result, and the result as the caller's kind of array
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sightline.arrays import foreign, numpy_arrays
from sightline.arrays.numpy_arrays import to_numpy
from sightline.arrays.spec import FollowedError, NoSignatureError, Spec, View, Workers

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = [
    "FollowedError",
    "NoSignatureError",
    "Spec",
    "View",
    "Workers",
    "address",
    "empty_like",
    "give_back",
    "settle",
    "signature",
    "to_numpy",
    "view",
    "workers",
]


class Kind(Protocol):
    """What a file about one kind of array offers."""

    def view(self, x: Any, name: str, /) -> View:
        """Look at `x` without copying, or raise an error that names the argument."""

    def signature(self, x: Any, /) -> Hashable:
        """Describe `x` cheaply: equal signatures, equal Views but for address and owner (or equal errors)."""

    def address(self, x: Any, /) -> int:
        """Where the element at index 0 in every dimension lies."""

    def empty(self, like: Any, shape: tuple[int, ...], dtype: str, /) -> object:
        """A new C-contiguous array of this kind."""

    def workers(self) -> Workers | None:
        """The threads that its framework computes with; None: they are not to be had."""


_kinds: dict[type, Kind] = {np.ndarray: numpy_arrays}


def _recognise(x: object) -> Kind:
    """The kind of an object whose class is not in the table: a subclass, foreign, or the first tensor."""
    if isinstance(x, np.ndarray):
        return numpy_arrays
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, getattr(torch, "Tensor", ())):
        from sightline.arrays import torch_tensors

        _kinds.update(dict.fromkeys(torch_tensors.TYPES, torch_tensors))
        return torch_tensors
    return foreign


def view(x: object, name: str) -> View:
    """Look at the memory of `x` without copying it.

    Args:
        x: A NumPy array, a PyTorch CPU tensor, or anything on the CPU with DLPack or the buffer protocol.
        name: The argument's name, for the error messages.

    Raises:
        TypeError: `x` is not an array, or not one whose numbers can be read where they lie. FollowedError: or
            not without its framework.
        ValueError: `x` is on a device that has no kernel.
    """
    return (_kinds.get(type(x)) or _recognise(x)).view(x, name)


def signature(x: object) -> Hashable:
    """A cheap description of `x`: objects with equal signatures have equal Views, address and owner aside.

    Raises:
        NoSignatureError: `x` is neither a NumPy array nor a tensor; `settle` turns it into one.
    """
    return (_kinds.get(type(x)) or _recognise(x)).signature(x)


def address(x: object) -> int:
    """The address in `x`'s View, for an object whose signature is that of one that `view` accepted."""
    return (_kinds.get(type(x)) or _recognise(x)).address(x)


def settle(x: object, name: str) -> object:
    """`x` itself if it has a signature, else a NumPy array over (and keeping alive) the same memory."""
    if (_kinds.get(type(x)) or _recognise(x)) is not foreign:
        return x
    return to_numpy(foreign.view(x, name))


def empty_like(x: object, shape: tuple[int, ...], dtype: str) -> object:
    """A new C-contiguous array of `x`'s kind: a tensor for a tensor, else NumPy's (see `give_back`)."""
    return (_kinds.get(type(x)) or _recognise(x)).empty(x, shape, dtype)


def give_back(x: object, result: object) -> object:
    """A result of `empty_like(x, …)`, once written, as the kind of array that `x` is."""
    return result if (_kinds.get(type(x)) or _recognise(x)) is not foreign else foreign.give_back(x, result)


def workers(x: object) -> Workers | None:
    """The threads that calls on arrays like `x` are to run on; None: our own."""
    return (_kinds.get(type(x)) or _recognise(x)).workers()
