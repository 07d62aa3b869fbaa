"""What sightline sees of NumPy arrays and of Python buffers: form, address and owner, and clear refusals."""

from __future__ import annotations

import array
import ctypes
import sys
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

from sightline import arrays
from sightline.arrays import NoSignatureError, Spec, View, numpy_arrays

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[Any]


def numbers(*shape: int, dtype: Any = np.float32) -> Array:
    return np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)


def as_buffer(x: Any) -> Any:
    """The same memory with nothing but the buffer protocol left."""
    return memoryview(x)


def read_only(x: Array) -> Array:
    x = x.view()
    x.flags.writeable = False
    return x


FORMS = {
    "C order": numbers(2, 3, 4),
    "Fortran order": np.asfortranarray(numbers(2, 3, 4)),
    "negative strides": numbers(4, 6)[::-1, ::-2],
    "zero strides": np.broadcast_to(numbers(3, 1), (2, 3, 5)),
    "not contiguous": numbers(4, 6)[1:, 1::2],
    "read-only": read_only(numbers(2, 3)),
    "no rows": numbers(3, 0, 4),
    "rank 0": np.array(3.0),
    "unaligned": np.frombuffer(bytearray(33), np.uint8)[1:].view(np.float32),
    "float64": numbers(2, 3, dtype=np.float64),
    "float16": numbers(2, 3, dtype=np.float16),
    "bfloat16": numbers(4, 6, dtype=ml_dtypes.bfloat16)[::-1, ::2],
    "bool": numbers(2, 3, dtype=np.bool_),
    "int64": numbers(2, 3, dtype=np.int64),
    "matrix": numbers(2, 3).view(np.matrix),
}
forms = pytest.mark.parametrize("x", FORMS.values(), ids=FORMS.keys())


@forms
def test_a_numpy_array_is_seen_as_numpy_describes_it(x: Array) -> None:
    seen = arrays.view(x, "query")
    assert seen.spec == Spec(x.shape, x.strides, x.dtype.name)
    assert seen.address == x.__array_interface__["data"][0]
    assert seen.writable == x.flags.writeable
    assert seen.owner is x


@forms
def test_to_numpy_shows_the_same_memory_with_the_same_strides(x: Array) -> None:
    back = arrays.to_numpy(arrays.view(x, "query"))
    assert (back.shape, back.strides, back.dtype) == (x.shape, x.strides, x.dtype)
    assert back.flags.writeable == x.flags.writeable
    assert back.size == 0 or back.__array_interface__["data"] == x.__array_interface__["data"]
    np.testing.assert_array_equal(back, np.asarray(x))


def test_to_numpy_keeps_the_owner_alive() -> None:
    class Owner:
        def __init__(self) -> None:
            self.memory = numbers(3)

    gone: list[str] = []
    Owner.__del__ = lambda self: gone.append("owner")  # type: ignore[attr-defined]
    owner = Owner()
    look = arrays.to_numpy(arrays.view(owner.memory, "query")._replace(owner=owner))
    del owner
    assert not gone
    np.testing.assert_array_equal(look, [0, 1, 2])
    del look
    assert gone == ["owner"]


def test_to_numpy_reads_what_a_changed_spec_says() -> None:
    """A View with another Spec is how a layout is read or a dimension is broadcast."""
    seen = arrays.view(numbers(2, 3), "query")
    changed = seen._replace(spec=Spec((4, 3, 2), (0, 4, 12), "float32"))
    np.testing.assert_array_equal(arrays.to_numpy(changed), np.broadcast_to(numbers(2, 3).T, (4, 3, 2)))


NOT_NUMBERS = {
    "big-endian": (np.zeros(3, ">f4"), r"bias has byte order '>'.*expected native float32: try bias\.astype"),
    "object": (np.array([1.0, None]), r"bias holds object.*np\.asarray\(bias, dtype=np\.float32\)"),
    "string": (np.array(["a"]), "bias holds <U1, which is not a number"),
    "structured": (np.zeros(2, [("a", "f4")]), "bias holds .*'a'.*not a number"),
    "time": (np.zeros(2, "M8[s]"), "bias holds datetime64.*not a number"),
    "masked": (
        np.ma.masked_array(np.zeros(3), [False, True, False]),
        r"bias is a NumPy masked array.*bias\.data.*mask=",
    ),
    "list": ([[1.0]], r"bias is a list; expected a NumPy array.*try np\.asarray\(bias, dtype=np\.float32\)"),
    "tuple": ((1.0, 2.0), r"bias is a tuple; .*np\.asarray"),
    "None": (None, "bias is a NoneType, which does not show its memory; expected a NumPy array"),
    "float": (1.5, "bias is a float, which does not show its memory"),
    "str": ("q.npy", "bias is a str, which does not show its memory"),
    "big-endian buffer": (as_buffer(np.zeros(3, ">f8")), "bias has byte order '>'"),
    "buffer of objects": ((ctypes.py_object * 2)(), "bias holds object, which is not a number"),
    "unreadable buffer": ((ctypes.CFUNCTYPE(None) * 2)(), "bias is a buffer whose format NumPy cannot read"),
}


@pytest.mark.parametrize(("x", "message"), NOT_NUMBERS.values(), ids=NOT_NUMBERS.keys())
def test_what_holds_no_native_numbers_is_refused_by_name(x: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        arrays.view(x, "bias")


@forms
def test_address_is_that_of_the_view(x: Array) -> None:
    assert arrays.address(x) == arrays.view(x, "query").address
    assert numpy_arrays._documented_address(x) == arrays.view(x, "query").address


def test_the_direct_address_is_used_only_where_it_agrees_with_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert numpy_arrays._fastest_address() is numpy_arrays._direct_address  # CPython, as in every test run
    monkeypatch.setattr(numpy_arrays, "_direct_address", lambda _: 0)
    assert numpy_arrays._fastest_address() is numpy_arrays._documented_address


def test_the_direct_address_is_never_tried_outside_cpython(monkeypatch: pytest.MonkeyPatch) -> None:
    """There, id() need not be an address, and reading it could crash."""
    monkeypatch.setattr(sys.implementation, "name", "other")

    def crash(_: object) -> int:
        raise AssertionError

    monkeypatch.setattr(numpy_arrays, "_direct_address", crash)
    assert numpy_arrays._fastest_address() is numpy_arrays._documented_address


def test_equal_forms_have_equal_signatures() -> None:
    assert arrays.signature(numbers(2, 3)) == arrays.signature(np.ones((2, 3), np.float32))
    assert hash(arrays.signature(numbers(2, 3))) == hash(arrays.signature(np.ones((2, 3), np.float32)))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:1],
        lambda x: x[::-1],
        np.asfortranarray,
        lambda x: x.astype(np.float64),
        lambda x: x.view(np.int32),
        lambda x: x.byteswap().view(x.dtype.newbyteorder()),
        read_only,
        lambda x: np.ma.masked_array(x, x > 2),
    ],
    ids=[
        "shape",
        "negative stride",
        "order",
        "dtype",
        "dtype of the same size",
        "byte order",
        "read-only",
        "masked",
    ],
)
def test_whatever_changes_the_view_or_its_refusal_changes_the_signature(
    change: Callable[[Array], Array],
) -> None:
    x = numbers(2, 3)
    assert arrays.signature(change(x)) != arrays.signature(x)


@pytest.mark.parametrize("code", ["f", "d", "e", "?", "i"])
def test_buffers_are_read_in_place(code: str) -> None:
    memory = numbers(2, 3, dtype=np.dtype(code))
    seen = arrays.view(as_buffer(memory), "value")
    width = np.dtype(code).itemsize
    assert seen.spec == Spec((2, 3), (3 * width, width), np.dtype(code).name)
    assert seen.address == memory.__array_interface__["data"][0]
    assert seen.writable
    np.testing.assert_array_equal(arrays.to_numpy(seen), memory)


def test_other_buffers() -> None:
    assert arrays.view(array.array("d", [1, 2]), "value").spec == Spec((2,), (8,), "float64")
    assert arrays.view(((ctypes.c_float * 3) * 2)(), "value").spec == Spec((2, 3), (12, 4), "float32")
    assert not arrays.view(b"\0\0", "value").writable
    words = memoryview(bytearray(24)).cast("f", (2, 3))
    assert arrays.view(words, "value").spec == Spec((2, 3), (12, 4), "float32")
    assert arrays.view(as_buffer(numbers(4, 6)[::-1, ::2]), "value").spec.strides == (-24, 8)


@pytest.mark.parametrize("foreign", [as_buffer(numbers(2, 3)), [1.0], None], ids=["buffer", "list", "None"])
@pytest.mark.parametrize("function", [arrays.signature, arrays.address])
def test_foreign_objects_have_no_signature(function: Callable[[object], object], foreign: object) -> None:
    with pytest.raises(NoSignatureError, match=type(foreign).__name__):
        function(foreign)


def test_settle_turns_a_buffer_into_an_array_over_the_same_memory() -> None:
    x = as_buffer(numbers(2, 3))
    settled = arrays.settle(x, "value")
    assert isinstance(settled, np.ndarray)
    x[1, 2] = 7.0
    assert settled[1, 2] == 7
    assert arrays.signature(settled) == arrays.signature(numbers(2, 3))
    with pytest.raises(TypeError, match="value is a list"):
        arrays.settle([1.0], "value")


def test_settle_leaves_arrays_alone() -> None:
    x = numbers(2, 3)
    assert arrays.settle(x, "value") is x


@pytest.mark.parametrize(
    "like", [numbers(2)[::-1], read_only(numbers(2)).view(np.matrix), as_buffer(numbers(2, 3))]
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int64", "bool"])
def test_empty_like_is_new_plain_memory_in_c_order(like: object, dtype: str) -> None:
    new = arrays.empty_like(like, (2, 0, 3), dtype)
    assert type(new) is np.ndarray
    assert new.shape == (2, 0, 3)
    assert arrays.view(new, "out").spec.dtype == dtype
    new = arrays.empty_like(like, (2, 3), dtype)
    assert isinstance(new, np.ndarray)
    assert new.flags.c_contiguous
    assert new.flags.writeable
    assert new.flags.owndata


def test_other_ml_dtypes_are_named_too() -> None:
    x = np.zeros(3, ml_dtypes.float8_e4m3fn)
    assert arrays.to_numpy(arrays.view(x, "query")).dtype == x.dtype
    assert arrays.view(x, "query").spec.dtype == "float8_e4m3fn"


class Namespace:
    """An array library after the array API standard, as JAX is: NumPy's arrays, wrapped."""

    class Array:
        """Knows how it came to be."""

        def __init__(self, x: Any, how: str) -> None:
            self.x, self.how = x, how

        def __array_namespace__(self) -> type[Namespace]:
            return Namespace

    @staticmethod
    def from_dlpack(x: Any) -> Namespace.Array:
        return Namespace.Array(np.from_dlpack(x), "from_dlpack")

    @staticmethod
    def asarray(x: Any) -> Namespace.Array:
        return Namespace.Array(x, "asarray")


@pytest.mark.parametrize(("dtype", "how"), [("float32", "from_dlpack"), ("bfloat16", "asarray")])
def test_give_back_goes_through_the_callers_own_library(dtype: str, how: str) -> None:
    caller = Namespace.Array(numbers(1), "caller")
    result = arrays.empty_like(caller, (2, 3), dtype)
    assert isinstance(result, np.ndarray)
    back = arrays.give_back(caller, result)
    assert isinstance(back, Namespace.Array)
    assert back.how == how
    assert np.shares_memory(back.x, result)


@pytest.mark.parametrize("caller", [numbers(1), as_buffer(numbers(2, 3))], ids=["array", "buffer"])
def test_give_back_leaves_numpys_result_to_callers_without_a_library(caller: object) -> None:
    result = numbers(2, 3)
    assert arrays.give_back(caller, result) is result


def test_specs_and_views_are_plain_records() -> None:
    seen = arrays.view(numbers(2, 3), "query")
    assert isinstance(seen, View)
    assert {seen.spec: "kernel"}[Spec((2, 3), (12, 4), "float32")] == "kernel"
