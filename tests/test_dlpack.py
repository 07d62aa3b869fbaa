"""The capsule reader, against NumPy's exporter and one written here from DLPack's published layout."""

from __future__ import annotations

import ctypes
import gc
import struct
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from sightline import arrays
from sightline.arrays import Spec

FLOAT, BFLOAT, BOOL = (2, 32), (4, 16), (6, 8)


class Exporter:
    """Lends `memory` as a DLPack capsule, packed byte by byte; `returned` counts the deleter's calls."""

    lent: dict[int, Exporter] = {}  # noqa: RUF012  # shared on purpose: the deleter finds its exporter here

    def __init__(
        self,
        memory: Any,
        shape: tuple[int, ...],
        strides: tuple[int, ...] | None,
        dtype: tuple[int, int],
        **special: Any,
    ) -> None:
        self.memory = memory
        self.shape, self.dtype, self.special = shape, dtype, special
        self.strides = strides
        self.returned = 0
        self.capsule: Any = None

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.special.get("device", 1), 0

    def _tensor(self) -> bytes:
        """DLTensor: data, device type and id, ndim, code, bits, lanes, shape, strides, byte offset."""
        rank = len(self.shape)
        self.shape_memory = (ctypes.c_int64 * max(rank, 1))(*self.shape)
        self.strides_memory = (ctypes.c_int64 * max(rank, 1))(*(self.strides or ()))
        code, bits = self.dtype
        strides = 0 if self.strides is None else ctypes.addressof(self.strides_memory)
        fields = (
            *(self.memory.ctypes.data, self.special.get("inner_device", 1), 0, rank),
            *(code, bits, self.special.get("lanes", 1)),
            *(ctypes.addressof(self.shape_memory), strides, self.special.get("offset", 0)),
        )
        return struct.pack("=QiiiBBHQQQ", *fields)

    def _lend(self, *, versioned: bool) -> object:
        deleter = ctypes.cast(return_loan, ctypes.c_void_p).value if self.special.get("deleter", True) else 0
        if versioned:
            version = self.special.get("version", (1, 0))
            packed = (
                struct.pack("=IIQQQ", *version, 0, deleter, self.special.get("flags", 0)) + self._tensor()
            )
        else:
            packed = self._tensor() + struct.pack("=QQ", 0, deleter)
        self.managed = ctypes.create_string_buffer(packed, len(packed))
        Exporter.lent[ctypes.addressof(self.managed)] = self
        name = b"dltensor_versioned" if versioned else b"dltensor"
        capsule = new_capsule(ctypes.addressof(self.managed), self.special.get("name", name), drop_capsule)
        self.capsule = capsule if self.special.get("keep_capsule") else None
        return capsule

    def __dlpack__(self, *, max_version: tuple[int, int] | None = None) -> object:
        return self._lend(versioned=max_version is not None and max_version[0] >= 1)


class OldExporter(Exporter):
    """From before DLPack had versions."""

    def __dlpack__(self, *, stream: None = None) -> object:  # type: ignore[override]
        return self._lend(versioned=False)


def _return_loan(managed: int) -> None:
    """The deleter."""
    Exporter.lent.pop(managed).returned += 1


def _drop_capsule(capsule: int) -> None:
    """The capsule's own destructor: frees what no consumer took over."""
    for name in (b"dltensor", b"dltensor_versioned"):
        if is_valid(capsule, name):
            _return_loan(get_pointer(capsule, name))


return_loan = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_return_loan)
drop_capsule = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_drop_capsule)

api = ctypes.pythonapi
new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, type(drop_capsule))(
    ("PyCapsule_New", api)
)
is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", api))
get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", api)
)

both = pytest.mark.parametrize("kind", [Exporter, OldExporter], ids=["versioned", "unversioned"])


class Wrapped:
    """A NumPy array with nothing but its DLPack methods left."""

    def __init__(self, x: Any) -> None:
        self.__dlpack__, self.__dlpack_device__ = x.__dlpack__, x.__dlpack_device__


@pytest.mark.parametrize(
    "x",
    [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        np.arange(24, dtype=np.float64).reshape(4, 6)[::-1, ::2],
        np.broadcast_to(np.arange(3, dtype=np.float16)[:, None], (3, 4)),
        np.zeros((3, 0), np.int64),
        np.array(2.0),
        np.array([[True, False]]),
        *(np.ones(3, dtype) for dtype in ("i1", "i2", "i4", "u1", "u2", "u4", "u8", "c8", "c16")),
    ],
    ids=lambda x: f"{x.dtype}-{x.shape}",
)
def test_numpys_own_exporter(x: Any) -> None:
    old = np.lib.NumpyVersion(np.__version__) < "2.1.0"  # before NumPy knew versions
    if not x.flags.writeable and old:
        pytest.skip("this NumPy lends no read-only memory")
    seen = arrays.view(Wrapped(x), "key")
    assert (seen.spec.shape, seen.spec.dtype) == (x.shape, x.dtype.name)
    assert (
        x.size == 0 or seen.spec.strides == x.strides
    )  # those of an empty array differ between NumPy's versions
    assert seen.address == arrays.view(x, "key").address
    assert seen.writable == (x.flags.writeable and not old)
    np.testing.assert_array_equal(arrays.to_numpy(seen), x)


@both
def test_bfloat16_which_numpy_neither_exports_nor_reads(kind: type[Exporter]) -> None:
    memory = np.arange(24).astype(ml_dtypes.bfloat16)
    seen = arrays.view(kind(memory, (3, 2), (8, -1), BFLOAT, offset=6), "key")
    assert seen.spec == Spec((3, 2), (16, -2), "bfloat16")
    assert seen.address == memory.ctypes.data + 6
    assert seen.writable == (kind is Exporter)  # the old form cannot say whether its memory may be written
    np.testing.assert_array_equal(arrays.to_numpy(seen).astype(int), [[3, 2], [11, 10], [19, 18]])


@both
def test_no_strides_mean_c_order(kind: type[Exporter]) -> None:
    x = kind(np.zeros(24, np.float32), (2, 3, 4), None, FLOAT)
    assert arrays.view(x, "key").spec == Spec((2, 3, 4), (48, 16, 4), "float32")
    assert arrays.view(kind(np.zeros(1, np.bool_), (), None, BOOL), "key").spec == Spec((), (), "bool")


@pytest.mark.parametrize(("flags", "writable"), [(0, True), (1, False), (2, True), (3, False)])
def test_the_read_only_flag(flags: int, writable: bool) -> None:
    x = Exporter(np.zeros(3, np.float32), (3,), (1,), FLOAT, flags=flags)
    assert arrays.view(x, "key").writable is writable


@both
def test_the_memory_goes_back_once_when_the_owner_dies(kind: type[Exporter]) -> None:
    x = kind(np.zeros(3, np.float32), (3,), (1,), FLOAT)
    seen = arrays.view(x, "key")
    owner = seen.owner
    del seen
    gc.collect()
    assert x.returned == 0
    del owner
    gc.collect()
    assert x.returned == 1
    assert x not in Exporter.lent.values()


@both
def test_the_capsule_is_marked_as_used_so_that_nobody_frees_the_memory_twice(kind: type[Exporter]) -> None:
    x = kind(np.zeros(3, np.float32), (3,), (1,), FLOAT, keep_capsule=True)
    seen = arrays.view(x, "key")
    assert '"used_dltensor' in repr(x.capsule)
    assert ("versioned" in repr(x.capsule)) == (kind is Exporter)
    x.capsule = None
    gc.collect()
    assert x.returned == 0
    del seen
    assert x.returned == 1


def test_settle_keeps_the_loan_for_as_long_as_the_array_lives() -> None:
    x = Exporter(np.arange(3, dtype=np.float32), (3,), (1,), FLOAT)
    settled: Any = arrays.settle(x, "key")
    part = settled[1:]
    del settled
    gc.collect()
    assert x.returned == 0
    np.testing.assert_array_equal(part, [1, 2])
    del part
    gc.collect()
    assert x.returned == 1


def test_an_exporter_without_a_deleter() -> None:
    x = Exporter(np.zeros(3, np.float32), (3,), (1,), FLOAT, deleter=False)
    seen = arrays.view(x, "key")
    assert seen.spec.shape == (3,)
    del seen
    assert x.returned == 0
    Exporter.lent.clear()


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "device": (
        {"device": 2},
        ValueError,
        "key is on CUDA, for which sightline has no kernel yet; expected the CPU",
    ),
    "unheard-of device": ({"device": 77}, ValueError, "key is on DLPack device type 77"),
    "device of the memory": ({"inner_device": 8}, ValueError, "key is on Metal"),
    "version": ({"version": (2, 1)}, TypeError, r"key speaks DLPack version 2\.1; expected 1\.x"),
    "lanes": (
        {"lanes": 4},
        TypeError,
        r"key has DLPack type \(code 2, 32 bits, 4 lanes\); expected one of int8",
    ),
    "type": ({"dtype": (9, 8)}, TypeError, r"key has DLPack type \(code 9, 8 bits, 1 lanes\)"),
    "used capsule": (
        {"name": b"used_dltensor"},
        TypeError,
        r"key\.__dlpack__\(\) returned <capsule.*used_dltensor",
    ),
}


@pytest.mark.parametrize(("special", "error", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_goes_back_at_once(
    special: dict[str, Any], error: type[Exception], message: str
) -> None:
    x = Exporter(np.zeros(3, np.float32), (3,), (1,), **{"dtype": FLOAT, **special})
    with pytest.raises(error, match=message):
        arrays.view(x, "key")
    gc.collect()
    lent = "device" not in special and "name" not in special  # never lent, or taken by somebody else before
    assert x.returned == lent
    Exporter.lent.clear()


@pytest.mark.parametrize("error", [BufferError, RuntimeError, ValueError, TypeError])
def test_an_exporter_that_refuses(error: type[Exception]) -> None:
    class Refuses(Exporter):
        def __dlpack__(self, **_: Any) -> object:
            raise error("not today")

    x = Refuses(np.zeros(3, np.float32), (3,), (1,), FLOAT)
    with pytest.raises(
        TypeError, match=r"key is a Refuses that does not lend.*not today; try np\.asarray\(key\)"
    ):
        arrays.view(x, "key")


def test_numpys_refusal_of_bfloat16_is_passed_on() -> None:
    with pytest.raises(TypeError, match="key is a Wrapped that does not lend its memory"):
        arrays.view(Wrapped(np.zeros(3, ml_dtypes.bfloat16)), "key")


def test_not_a_capsule() -> None:
    class Odd(Exporter):
        def __dlpack__(self, **_: Any) -> object:
            return 3

    with pytest.raises(TypeError, match=r"key\.__dlpack__\(\) returned 3; expected a fresh capsule"):
        arrays.view(Odd(np.zeros(1), (1,), (1,), FLOAT), "key")
