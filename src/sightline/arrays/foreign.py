"""Everything else that lends its memory: DLPack exporters (JAX, CuPy's host arrays, …) and Python buffers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from sightline.arrays import dlpack, numpy_arrays
from sightline.arrays.spec import NoSignatureError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sightline.arrays.spec import View


def view(x: object, name: str) -> View:
    """Look at the memory of any object that offers a way to."""
    if hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__"):
        return dlpack.view(x, name)
    try:
        buffer = memoryview(x)  # type: ignore[arg-type]  # whether it is a buffer is the question
    except TypeError:
        raise TypeError(_advice(x, name)) from None
    try:
        array = np.asarray(buffer)
    except ValueError as error:
        raise TypeError(
            f"{name} is a buffer whose format NumPy cannot read ({error}); "
            f"expected numbers: format 'f', 'd' or 'e', say."
        ) from error
    return numpy_arrays.view(array, name)


def _advice(x: object, name: str) -> str:
    kind = type(x).__name__
    expected = "expected a NumPy array, a PyTorch CPU tensor, or an object with DLPack or the buffer protocol"
    if isinstance(x, list | tuple):
        dtype = "bool" if name == "mask" else "np.float32"
        return f"{name} is a {kind}; {expected}: try np.asarray({name}, dtype={dtype})."
    return f"{name} is a {kind}, which does not show its memory; {expected}: try np.asarray({name})."


def signature(x: object) -> NoReturn:
    """There is none: nothing about such an object is cheap or sure to stay."""
    raise NoSignatureError(f"a {type(x).__name__} has no cheap signature")


address = signature


def empty(_like: object, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """NumPy memory: what the kernel writes, before `give_back` hands it to the caller's own library."""
    return np.empty(shape, numpy_arrays.dtype_named(dtype))


def workers() -> None:
    """No framework's threads are known but PyTorch's."""


def give_back(like: Any, result: object) -> object:
    """Hand a NumPy result to the array library of `like`, if it names one (`__array_namespace__`)."""
    if not isinstance(result, np.ndarray) or not hasattr(like, "__array_namespace__"):
        return result
    namespace = like.__array_namespace__()
    try:
        return namespace.from_dlpack(result)
    except (AttributeError, BufferError, TypeError, ValueError, RuntimeError, NotImplementedError):
        return namespace.asarray(result)  # bfloat16, above all: NumPy does not export it, JAX reads it here
