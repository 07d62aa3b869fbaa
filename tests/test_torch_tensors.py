"""PyTorch's CPU tensors are seen in place; those that are not plain numbers in memory are refused by name."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sightline import arrays
from sightline.arrays import Spec

if TYPE_CHECKING:
    from collections.abc import Callable

torch: Any = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")


def numbers(*shape: int, dtype: Any = torch.float32) -> Any:
    return torch.arange(int(np.prod(shape))).reshape(shape).to(dtype)


FORMS: dict[str, Callable[[], Any]] = {
    "contiguous": lambda: numbers(2, 3, 4),
    "transposed": lambda: numbers(2, 3, 4).transpose(0, 2),
    "sliced": lambda: numbers(4, 6)[1:, 1::2],
    "expanded": lambda: numbers(3, 1).expand(2, 3, 5),
    "no rows": lambda: numbers(3, 0, 4),
    "rank 0": lambda: numbers(1)[0],
    "bfloat16": lambda: numbers(4, 6, dtype=torch.bfloat16)[:, ::2],
    "float16": lambda: numbers(2, 3, dtype=torch.float16),
    "float64": lambda: numbers(2, 3, dtype=torch.float64),
    "bool": lambda: numbers(2, 3, dtype=torch.bool),
    "int64": lambda: numbers(2, 3, dtype=torch.int64),
    "detached": lambda: numbers(2, 3).requires_grad_().detach(),
    "frozen parameter": lambda: torch.nn.Parameter(numbers(2, 3), requires_grad=False),
}
forms = pytest.mark.parametrize("make", FORMS.values(), ids=FORMS.keys())


@forms
def test_a_tensor_is_seen_in_place(make: Callable[[], Any]) -> None:
    x = make()
    seen = arrays.view(x, "query")
    size = x.element_size()
    dtype = str(x.dtype).removeprefix("torch.")
    assert seen.spec == Spec(tuple(x.shape), tuple(s * size for s in x.stride()), dtype)
    assert type(seen.spec.shape) is tuple
    assert seen.address == x.data_ptr() == arrays.address(x)
    assert seen.writable
    np.testing.assert_array_equal(arrays.to_numpy(seen).astype(np.float64), x.double().numpy())
    assert seen.owner is x


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool])
def test_torchs_own_capsules(dtype: Any) -> None:
    x = numbers(4, 6, dtype=dtype)[1:, ::2]
    seen = arrays.view(Wrapped(x), "query")
    assert seen[:3] == arrays.view(x, "query")[:3]
    np.testing.assert_array_equal(arrays.to_numpy(seen).astype(np.float64), x.double().numpy())


class Wrapped:
    """A tensor with nothing but its DLPack methods left."""

    def __init__(self, x: Any) -> None:
        self.__dlpack__, self.__dlpack_device__ = x.__dlpack__, x.__dlpack_device__


def wrapping_subclass() -> Any:
    class Wrapper(torch.Tensor):  # type: ignore[misc]
        @classmethod
        def __torch_dispatch__(cls, *_: Any) -> None:
            raise AssertionError

    return torch.Tensor._make_wrapper_subclass(Wrapper, (2, 3), dtype=torch.float32)


def fake() -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.zeros(2, 3)


def quantized() -> Any:
    return torch._empty_affine_quantized([2], scale=0.1, zero_point=0, dtype=torch.quint8)


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "sparse": (
        lambda: numbers(2, 3).to_sparse(),
        TypeError,
        r"bias is a sparse_coo tensor; .*bias\.to_dense\(\)",
    ),
    "compressed": (lambda: numbers(2, 3).to_sparse_csr(), TypeError, "bias is a sparse_csr tensor"),
    "nested": (
        lambda: torch.nested.nested_tensor([numbers(2, 3), numbers(1, 3)]),
        TypeError,
        "bias is a nested",
    ),
    "jagged": (
        lambda: torch.nested.nested_tensor([numbers(2, 3), numbers(1, 3)], layout=torch.jagged),
        TypeError,
        r"bias is a nested tensor.*try bias\.to_padded_tensor\(0\.0\) with key_lengths=",
    ),
    "meta": (
        lambda: torch.zeros(2, device="meta"),
        TypeError,
        "bias is a meta tensor: it has a shape but no num",
    ),
    "complex": (lambda: torch.zeros(2, dtype=torch.complex64), TypeError, r"bias has dtype torch\.complex64"),
    "conjugate": (
        lambda: torch.zeros(2, dtype=torch.complex64).conj(),
        TypeError,
        "bias has dtype torch.complex64",
    ),
    "quantized": (quantized, TypeError, "bias has dtype torch.quint8"),
    "negated": (
        lambda: torch.zeros(2, dtype=torch.complex64).conj().imag,
        TypeError,
        r"bias is a lazily negated tensor.*bias\.resolve_neg\(\)",
    ),
    "fake": (fake, TypeError, "bias is a FakeTensor without memory"),
    "wrapper": (wrapping_subclass, TypeError, "bias is a Wrapper without memory of its own"),
    "implicit zeros": (
        lambda: torch._efficientzerotensor((2, 3)),
        TypeError,
        "bias is a Tensor without memory",
    ),
    "gradient": (
        lambda: numbers(2, 3).requires_grad_(),
        TypeError,
        r"bias takes part in differentiation.* alone: use torch\.no_grad\(\).*bias\.detach\(\)",
    ),
    "parameter": (lambda: torch.nn.Parameter(numbers(2, 3)), TypeError, "bias takes part in differentiation"),
}


def made(make: Callable[[], Any]) -> Any:
    """Some of these are announced by torch as experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


@pytest.mark.parametrize(("make", "error", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_plain_numbers_in_memory_is_refused(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    x = made(make)
    with pytest.raises(error, match=message):
        arrays.view(x, "bias")


@pytest.mark.parametrize("make", [make for make, _, _ in REFUSED.values()], ids=REFUSED.keys())
def test_no_refused_tensor_passes_for_one_seen_before(make: Callable[[], Any]) -> None:
    """On the hot path nothing is checked but the signature and the address: one of the two must tell."""
    x = made(make)
    try:
        described = arrays.signature(x)
        arrays.address(x)
    except TypeError:
        return
    assert described != arrays.signature(torch.empty_strided(x.shape, x.stride()))


def test_another_device_has_no_kernel_yet() -> None:
    from sightline.arrays import torch_tensors

    class OnDevice:
        """What the check reads of a CUDA tensor, where there is no such device."""

        is_nested, layout, device = False, torch.strided, torch.device("cuda:1")

    with pytest.raises(
        ValueError, match=r"value is on cuda:1, for which sightline has no kernel yet.*value\.cpu\(\)"
    ):
        torch_tensors.view(OnDevice(), "value")


def test_requires_grad_is_accepted_where_nothing_is_recorded() -> None:
    x = numbers(2, 3).requires_grad_()
    with torch.no_grad():
        assert arrays.view(x, "query").spec.shape == (2, 3)
    with torch.inference_mode():
        assert arrays.view(x, "query").spec.shape == (2, 3)


def test_the_signature_follows_grad_mode() -> None:
    """A call prepared under no_grad must not serve the same tensor once gradients are recorded."""
    x = numbers(2, 3).requires_grad_()
    recorded = arrays.signature(x)
    with torch.no_grad():
        silent = arrays.signature(x)
    assert recorded != silent
    assert silent == arrays.signature(x.detach())
    assert arrays.signature(torch.nn.Parameter(numbers(2, 3))) == recorded


def test_forward_mode_tangents_are_not_dropped() -> None:
    from torch.autograd import forward_ad

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with forward_ad.dual_level():
            plain = numbers(2, 3)
            dual = forward_ad.make_dual(plain, torch.ones(2, 3))
            assert arrays.view(plain, "query").spec.shape == (2, 3)
            assert arrays.signature(dual) != arrays.signature(plain)
            with pytest.raises(TypeError, match="query takes part in differentiation"):
                arrays.view(dual, "query")


def test_tensors_inside_vmap_are_refused() -> None:
    def call(x: Any) -> Any:
        with pytest.raises(TypeError, match=r"query is a Tensor without memory of its own .*vmap"):
            arrays.view(x, "query")
        with pytest.raises(TypeError, match="without memory of its own"):
            arrays.address(x)
        return x

    torch.vmap(call)(numbers(2, 3))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:1],
        lambda x: x.t().contiguous().t(),
        lambda x: x.double(),
        lambda x: x.view(torch.int32),
        lambda x: x.to("meta"),
        lambda x: x._neg_view(),
        lambda x: x.requires_grad_(),
    ],
    ids=["shape", "strides", "dtype", "dtype of the same size", "device", "negated", "gradient"],
)
def test_whatever_changes_the_view_or_its_refusal_changes_the_signature(change: Callable[[Any], Any]) -> None:
    assert hash(arrays.signature(numbers(2, 3))) == hash(arrays.signature(numbers(2, 3) + 1))
    assert arrays.signature(numbers(2, 3)) == arrays.signature(numbers(2, 3) + 1)
    assert arrays.signature(change(numbers(2, 3))) != arrays.signature(numbers(2, 3))


def test_arrays_and_tensors_have_different_signatures() -> None:
    assert arrays.signature(numbers(2, 3)) != arrays.signature(numbers(2, 3).numpy())


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int64", "bool"])
@pytest.mark.parametrize("parameter", [False, True])
def test_empty_like_is_a_plain_contiguous_tensor(dtype: str, parameter: bool) -> None:
    like = numbers(4, 6).t()
    like = torch.nn.Parameter(like) if parameter else like
    with torch.device("meta"):  # a default device set elsewhere is not ours
        new: Any = arrays.empty_like(like, (2, 3), dtype)
    assert type(new) is torch.Tensor
    assert (new.shape, new.dtype, new.device.type) == ((2, 3), getattr(torch, dtype), "cpu")
    assert new.is_contiguous()
    assert not new.requires_grad


def test_settle_and_give_back_leave_tensors_alone() -> None:
    x, y = numbers(2, 3), numbers(2, 3)
    assert arrays.settle(x, "query") is x
    assert arrays.give_back(x, y) is y


def test_subclasses_of_tensor_are_seen_too() -> None:
    class Named(torch.Tensor):  # type: ignore[misc]
        pass

    x = numbers(2, 3).as_subclass(Named)
    assert arrays.view(x, "query").address == x.data_ptr()
    assert arrays.settle(x, "query") is x
