"""Reads DLPack capsules through ctypes: NumPy's own reader refuses bfloat16, and we need only the address.

The layout of the structures is that of DLPack's C header (https://dmlc.github.io/dlpack/latest/c_api.html):
version 1, and the form without a version that came before it.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, PYFUNCTYPE, Structure, c_char_p, c_int, c_void_p, py_object, pythonapi
from typing import Any

from sightline.arrays.spec import Spec, View

CPU = 1
READ_ONLY = 1
VERSION = (1, 0)

_DEVICES = {
    2: "CUDA",
    3: "pinned CUDA host memory",
    4: "OpenCL",
    7: "Vulkan",
    8: "Metal",
    10: "ROCm",
    13: "CUDA managed",
}
_DTYPES = {
    **{(0, bits): f"int{bits}" for bits in (8, 16, 32, 64)},
    **{(1, bits): f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{(2, bits): f"float{bits}" for bits in (16, 32, 64)},
    (4, 16): "bfloat16",
    **{(5, bits): f"complex{bits}" for bits in (64, 128)},
    (6, 8): "bool",
}


class _Tensor(Structure):
    """DLTensor: strides are in elements, and NULL for C order."""

    _fields_ = (
        ("data", c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", POINTER(ctypes.c_int64)),
        ("strides", POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(Structure):
    """DLManagedTensor, in capsules named "dltensor"."""

    _fields_ = (("tensor", _Tensor), ("context", c_void_p), ("deleter", c_void_p))
    flags = READ_ONLY  # it has no field for that, and JAX lends memory this way that must never be written


class _ManagedVersioned(Structure):
    """DLManagedTensorVersioned, in capsules named "dltensor_versioned"."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", c_void_p),
        ("deleter", c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


# A capsule keeps the pointer to its name, so these bytes must live as long as the module.
_FORMS: tuple[tuple[bytes, bytes, type[Any]], ...] = (
    (b"dltensor_versioned", b"used_dltensor_versioned", _ManagedVersioned),
    (b"dltensor", b"used_dltensor", _Managed),
)

_is_valid = PYFUNCTYPE(c_int, py_object, c_char_p)(("PyCapsule_IsValid", pythonapi))
_get_pointer = PYFUNCTYPE(c_void_p, py_object, c_char_p)(("PyCapsule_GetPointer", pythonapi))
_set_name = PYFUNCTYPE(c_int, py_object, c_char_p)(("PyCapsule_SetName", pythonapi))
# Called with the interpreter's lock held, as NumPy does: exporters written in Python or Cython expect it.
_Deleter = PYFUNCTYPE(None, c_void_p)


class Loan:
    """Memory lent through a capsule: when this dies, the exporter's deleter runs, once."""

    __slots__ = ("_deleter", "_managed")

    def __init__(self, managed: int, deleter: int | None) -> None:
        self._managed = managed
        self._deleter = _Deleter(deleter) if deleter else None

    def __del__(self) -> None:
        if self._deleter is not None:
            self._deleter(self._managed)


def view(x: Any, name: str) -> View:
    """Look at the memory that `x` exports, which stays on loan for as long as the View's owner lives."""
    _refuse_device(int(x.__dlpack_device__()[0]), name)
    capsule = _capsule(x, name)
    for label, used, form in _FORMS:
        if _is_valid(capsule, label):
            pointer = _get_pointer(capsule, label)
            managed = form.from_address(pointer)
            _refuse(managed, name)
            spec, address = (
                _spec(managed.tensor, name),
                (managed.tensor.data or 0) + managed.tensor.byte_offset,
            )
            # Last, when nothing can fail any more: until it is renamed, the capsule frees its memory itself.
            _set_name(capsule, used)
            return View(spec, address, not managed.flags & READ_ONLY, Loan(pointer, managed.deleter))
    raise TypeError(
        f"{name}.__dlpack__() returned {capsule!r}; expected a fresh capsule named "
        f"{' or '.join(label.decode() for label, _, _ in _FORMS)}: try np.asarray({name})."
    )


def _capsule(x: Any, name: str) -> object:
    """Ask for a versioned capsule, or for the older form where the exporter does not know versions."""
    try:
        try:
            return x.__dlpack__(max_version=VERSION)
        except TypeError:
            return x.__dlpack__()
    except (BufferError, TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise TypeError(
            f"{name} is a {type(x).__name__} that does not lend its memory: its __dlpack__ says: {error}; "
            f"try np.asarray({name})."
        ) from error


def _refuse_device(device: int, name: str) -> None:
    if device != CPU:
        place = _DEVICES.get(device, f"DLPack device type {device}")
        raise ValueError(
            f"{name} is on {place}, for which sightline has no kernel yet; expected the CPU: "
            f"copy it there first."
        )


def _refuse(managed: Any, name: str) -> None:
    """Raise for a structure whose remaining fields cannot be trusted."""
    if isinstance(managed, _ManagedVersioned) and managed.major != VERSION[0]:
        raise TypeError(
            f"{name} speaks DLPack version {managed.major}.{managed.minor}; expected {VERSION[0]}.x: "
            f"try np.asarray({name})."
        )
    _refuse_device(managed.tensor.device_type, name)


def _spec(tensor: Any, name: str) -> Spec:
    """The form of a DLTensor, strides turned from elements to bytes."""
    dtype = _DTYPES.get((tensor.code, tensor.bits))
    if dtype is None or tensor.lanes != 1:
        raise TypeError(
            f"{name} has DLPack type (code {tensor.code}, {tensor.bits} bits, {tensor.lanes} lanes); "
            f"expected one of {', '.join(_DTYPES.values())}: convert it first."
        )
    shape = tuple(tensor.shape[: tensor.ndim]) if tensor.ndim else ()
    if not tensor.ndim or tensor.strides:
        steps = tuple(tensor.strides[: tensor.ndim]) if tensor.ndim else ()
    else:
        steps = _c_order(shape)
    return Spec(shape, tuple(step * (tensor.bits // 8) for step in steps), dtype)


def _c_order(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides in elements of an array without gaps, last dimension fastest."""
    steps: list[int] = []
    step = 1
    for length in reversed(shape):
        steps.append(step)
        step *= length
    return tuple(reversed(steps))
