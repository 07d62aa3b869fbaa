"""NumPy arrays, and NumPy's look at any View."""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.arrays.spec import Spec, View

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from numpy.typing import NDArray

    Array = NDArray[Any]


@functools.cache
def dtype_named(name: str) -> np.dtype[Any]:
    """NumPy's dtype for a Spec's type name; ml_dtypes is loaded only when one of its types is met."""
    try:
        dtype: np.dtype[Any] = np.dtype(name)
    except TypeError:
        import ml_dtypes

        dtype = np.dtype(getattr(ml_dtypes, name))
    return dtype


def view(x: Array, name: str) -> View:
    """Look at a NumPy array without copying it."""
    masked = sys.modules.get("numpy.ma")  # to import it for this takes 15 ms
    if masked is not None and isinstance(x, masked.MaskedArray):
        raise TypeError(
            f"{name} is a NumPy masked array, whose mask would be lost; expected a plain array: "
            f"pass {name}.data, and say what may be attended in mask=."
        )
    dtype = _good.get(x.dtype) or _checked(x.dtype, name)
    return View(Spec(x.shape, x.strides, dtype), address(x), x.flags.writeable, x)


_good: dict[np.dtype[Any], str] = {}
"""The types met so far that can be read, and their names: NumPy takes 1.5 µs to make a name."""


def _checked(dtype: np.dtype[Any], name: str) -> str:
    """The type's name; raise for the types that are not native numbers."""
    extension = dtype.kind == "V" and dtype.type is not np.void  # bfloat16 and its like, from ml_dtypes
    if dtype.kind not in "biufc" and not extension:
        raise TypeError(
            f"{name} holds {dtype}, which is not a number; expected a numeric or boolean array: "
            f"try np.asarray({name}, dtype=np.float32)."
        )
    if not dtype.isnative:
        raise TypeError(
            f"{name} has byte order {dtype.byteorder!r} ({dtype.str}), foreign to this machine; expected "
            f"native {dtype.name}: try {name}.astype({name}.dtype.newbyteorder('='))."
        )
    return _good.setdefault(dtype, dtype.name)


def signature(x: Array) -> Hashable:
    """What View says about `x`, less the address; the type tells a masked array from a plain one.

    The dtype itself and not its name, which takes longer.
    """
    return type(x), x.shape, x.strides, x.dtype, x.flags.writeable


def _documented_address(x: Array) -> int:
    """The data pointer as NumPy publishes it: always right, and 0.8 µs."""
    pointer: int = x.__array_interface__["data"][0]
    return pointer


_WORD = ctypes.sizeof(ctypes.c_size_t)
# All of memory as words, counted from where the first word after an object's head would be if it lay at 0.
_words_after_head = ctypes.cast(object.__basicsize__, ctypes.POINTER(ctypes.c_size_t))


def _direct_address(x: Array) -> int:
    """The data pointer in the array object, where NumPy's C interface fixes it: first after the head."""
    pointer: int = _words_after_head[id(x) // _WORD]
    return pointer


def _fastest_address() -> Callable[[Array], int]:
    """The direct way (a tenth of the time) where it holds, which is tried on an array rather than assumed."""
    probe = np.zeros(2)[1:]
    holds = sys.implementation.name == "cpython" and _direct_address(probe) == _documented_address(probe)
    return _direct_address if holds else _documented_address


address = _fastest_address()


def empty(_like: Array, shape: tuple[int, ...], dtype: str) -> Array:
    """A new C-contiguous NumPy array."""
    return np.empty(shape, dtype_named(dtype))


def workers() -> None:
    """NumPy has no threads of its own."""


class _Look:
    """What NumPy needs to see a View as an array of raw bytes; the array keeps it, and it keeps the owner.

    Raw bytes, because types from outside NumPy (bfloat16) have no type string of their own.
    """

    __slots__ = ("__array_interface__", "owner")

    def __init__(self, seen: View, itemsize: int) -> None:
        self.__array_interface__ = {
            "version": 3,
            "shape": seen.spec.shape,
            "strides": seen.spec.strides,
            "typestr": f"|V{itemsize}",
            "data": (seen.address, not seen.writable),
        }
        self.owner = seen.owner


def to_numpy(seen: View) -> Array:
    """The memory of a View as a NumPy array, without a copy."""
    dtype = dtype_named(seen.spec.dtype)
    return np.asarray(_Look(seen, dtype.itemsize)).view(dtype)
