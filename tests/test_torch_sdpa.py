"""sightline.torch.scaled_dot_product_attention is PyTorch's function: its samples, its masks, its mistakes."""

from __future__ import annotations

import inspect
import itertools
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

torch: Any = pytest.importorskip("torch")

from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.nn.attention.bias import causal_lower_right, causal_upper_left  # noqa: E402
from torch.testing import assert_close  # noqa: E402

from sightline.torch import quick, sdpa_rules  # noqa: E402
from sightline.torch import scaled_dot_product_attention as ours  # noqa: E402

theirs = torch.nn.functional.scaled_dot_product_attention

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
HALF = {torch.bfloat16: {"atol": 5e-2, "rtol": 5e-2}, torch.float16: {"atol": 1e-2, "rtol": 1e-2}}
"""PyTorch's own bounds for its fused kernel against its composed one (test_transformers.py)."""


def bounds(dtype: Any) -> dict[str, float]:
    return HALF.get(dtype, {"atol": 1e-5, "rtol": 5e-6})


def randn(*shape: int, seed: int = 0, dtype: Any = torch.float32) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=dtype)


def composed(query: Any, key: Any, value: Any, attn_mask: Any = None, **options: Any) -> Any:
    """PyTorch's composed function in float64 (its fused kernel reads past unequal lengths)."""
    wide = (x.double() for x in (query, key, value))
    if attn_mask is not None and attn_mask.dtype != torch.bool:
        attn_mask = attn_mask.double()
    with sdpa_kernel([SDPBackend.MATH]):
        return theirs(*wide, attn_mask, **options).to(query.dtype)


def fused(query: Any, key: Any, value: Any, attn_mask: Any = None, **options: Any) -> Any:
    """PyTorch's fused kernel, which it takes for four axes of equal sizes."""
    lead = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])
    query, key, value = (x.expand(*lead, *x.shape[-2:]) for x in (query, key, value))
    if query.dim() == 4:
        return theirs(query, key, value, attn_mask, **options)
    return theirs(query[None], key[None], value[None], attn_mask, **options)[0]


def op_info() -> Any:
    from torch.testing._internal.common_methods_invocations import op_db

    return next(op for op in op_db if op.name == "nn.functional.scaled_dot_product_attention")


@dtypes
@pytest.mark.filterwarnings("ignore")  # of PyTorch's test machinery
def test_opinfo_samples(dtype: Any) -> None:
    samples = list(op_info().sample_inputs("cpu", dtype))
    assert len(samples) > 20
    dropped = [sample for sample in samples if sample.kwargs.get("dropout_p")]
    assert 0 < len(dropped) < len(samples) / 2
    for sample in samples:
        arrays = (sample.input, *sample.args)
        torch.manual_seed(0)
        got = ours(*arrays, **sample.kwargs)
        if sample not in dropped:
            assert_close(got, theirs(*arrays, **sample.kwargs), **bounds(dtype))
        elif dtype == torch.float64:
            torch.manual_seed(0)
            assert_close(got, with_dropout(*arrays, **sample.kwargs))


def with_dropout(query: Any, key: Any, value: Any, *, dropout_p: float, **options: Any) -> Any:
    """PyTorch's weights, less what we drop, times the values."""
    eye = torch.eye(key.shape[-2], dtype=key.dtype).expand(*key.shape[:-1], -1)
    weights = composed(query, key, eye, **options)
    kept = ours(query, key, eye, dropout_p=dropout_p, **options) != 0
    assert 0 < kept.double().mean() < 1
    if options.get("enable_gqa"):
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    return (weights * kept / (1 - dropout_p)) @ value


def gradients(function: Any, tensors: list[Any]) -> list[Any]:
    """Of a weighted sum of what the function gives, with respect to those that want one."""
    output = function()
    weights = randn(*output.shape, seed=7).to(output.dtype)
    wanted = [x for x in tensors if isinstance(x, torch.Tensor) and x.requires_grad]
    assert wanted
    return [x.double() for x in torch.autograd.grad(output, wanted, weights)]


def largest_score(sample: Any) -> float:
    """|q · k|·scale at most."""
    query, key = (x.detach().double() for x in (sample.input, sample.args[0]))
    scale = sample.kwargs.get("scale") or query.shape[-1] ** -0.5
    return float(query.norm(dim=-1).max() * key.norm(dim=-1).max() * abs(scale))


@dtypes
@pytest.mark.filterwarnings("ignore")  # of PyTorch's test machinery
def test_opinfo_gradients(dtype: Any) -> None:
    torch.manual_seed(0)
    for sample in op_info().sample_inputs("cpu", dtype, requires_grad=True):
        if sample.kwargs.get("dropout_p"):
            continue
        tensors = [sample.input, *sample.args, sample.kwargs.get("attn_mask")]
        mine = gradients(lambda s=sample: ours(s.input, *s.args, **s.kwargs), tensors)
        want = gradients(lambda s=sample: composed(s.input, *s.args, **s.kwargs), tensors)
        others = [
            gradients(lambda s=sample, f=f: f(s.input, *s.args, **s.kwargs), tensors) for f in (theirs, fused)
        ]
        for x, y, *z in zip(
            mine, want, *others, strict=True
        ):  # scores of 100 and more: no bound of its own fits
            allowed = 2 * max((other - y).abs().max() for other in z)
            two_roundoffs = torch.finfo(dtype).eps * 2 * y.abs().max()  # theirs has no fused kernel for some
            # Weights are made of lse, and are off by its rounding; where one key has all of the weight, theirs are
            # not, or are by luck.
            of_lse = torch.finfo(dtype).eps / 2 * largest_score(sample) * y.abs().max()
            assert (x - y).abs().max() <= max(allowed, two_roundoffs, of_lse, bounds(dtype)["atol"])


@pytest.mark.parametrize(
    ("length", "heads", "size", "causal"),
    [*itertools.product((267, 1030), (1, 3), (8, 16), (False, True))],
)
@dtypes
def test_split_projections(dtype: Any, length: int, heads: int, size: int, causal: bool) -> None:
    packed = randn(2, length, 3 * heads * size, dtype=dtype)
    query, key, value = (
        x.view(2, length, heads, size).transpose(1, 2) for x in packed.split(heads * size, dim=2)
    )
    got = ours(query, key, value, is_causal=causal)
    assert_close(got, composed(query, key, value, is_causal=causal), **bounds(dtype))


@dtypes
def test_gradients_of_split_projections(dtype: Any) -> None:
    packed = randn(2, 267, 3 * 3 * 8, dtype=dtype).requires_grad_()

    def attend(function: Any) -> Any:
        query, key, value = (x.view(2, 267, 3, 8).transpose(1, 2) for x in packed.split(24, dim=2))
        return function(query, key, value, is_causal=True)

    mine, want = (gradients(lambda f=f: attend(f), [packed]) for f in (ours, composed))
    assert_close(mine, want, **bounds(dtype))


MASKS = [
    *itertools.product((40, 1), (70, 1)),
    *itertools.product((3, 1), (40, 1), (70, 1)),
    *itertools.product((2, 1), (3, 1), (40, 1), (70, 1)),
]


@pytest.mark.parametrize("shape", MASKS, ids=lambda shape: "x".join(map(str, shape)))
@dtypes
def test_masks(dtype: Any, shape: tuple[int, ...]) -> None:
    query, (key, value) = randn(2, 3, 40, 8, dtype=dtype), randn(2, 2, 3, 70, 8, dtype=dtype)
    for mask in (randn(*shape) > 0, randn(*shape, dtype=dtype), randn(*shape)):
        got = ours(query, key, value, mask)
        assert_close(got, composed(query, key, value, mask), **bounds(dtype))


@pytest.mark.parametrize("shape", MASKS[::5], ids=lambda shape: "x".join(map(str, shape)))
@dtypes
def test_gradients_with_masks(dtype: Any, shape: tuple[int, ...]) -> None:
    query, (key, value) = randn(2, 3, 40, 8, dtype=dtype), randn(2, 2, 3, 70, 8, dtype=dtype)
    tensors = [x.detach().requires_grad_() for x in (query, key, value)]
    for mask in (randn(*shape) > 0, randn(*shape, dtype=dtype).requires_grad_(), randn(*shape)):
        mine, want = (
            gradients(lambda f=f, mask=mask: f(*tensors, mask), [*tensors, mask]) for f in (ours, composed)
        )
        assert_close(mine, want, **bounds(dtype))


SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    "no heads": ((5, 8), (7, 8), (7, 8)),
    "one batch": ((4, 5, 8), (4, 7, 8), (4, 7, 8)),
    "two batches": ((2, 3, 4, 5, 8), (2, 3, 4, 7, 8), (2, 3, 4, 7, 8)),
    "query of lower rank": ((5, 8), (4, 7, 8), (4, 7, 8)),
    "keys of lower rank": ((2, 4, 5, 8), (7, 8), (7, 8)),
    "values of lower rank": ((2, 4, 5, 8), (2, 4, 7, 8), (4, 7, 8)),
    "values of higher rank": ((4, 5, 8), (4, 7, 8), (2, 4, 7, 8)),
    "one key head": ((2, 4, 5, 8), (2, 1, 7, 8), (2, 1, 7, 8)),
    "one key head for values' four": ((2, 4, 5, 8), (2, 1, 7, 8), (2, 4, 7, 8)),
    "one query head": ((2, 1, 5, 8), (2, 4, 7, 8), (2, 4, 7, 8)),
    "one sequence of queries": ((1, 4, 5, 8), (3, 4, 7, 8), (3, 4, 7, 8)),
    "one sequence of values": ((3, 4, 5, 8), (3, 4, 7, 8), (1, 4, 7, 8)),
    "wider values": ((2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 16)),
    "no queries": ((2, 4, 0, 8), (2, 4, 7, 8), (2, 4, 7, 8)),
    "no keys": ((2, 4, 5, 8), (2, 4, 0, 8), (2, 4, 0, 8)),
    "no sequences": ((0, 4, 5, 8), (0, 4, 7, 8), (0, 4, 7, 8)),
    "no heads at all": ((2, 0, 5, 8), (2, 1, 7, 8), (2, 1, 7, 8)),
}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES.keys())
def test_shapes(shapes: tuple[tuple[int, ...], ...], causal: bool) -> None:
    query, key, value = (randn(*shape, seed=i) for i, shape in enumerate(shapes))
    want = composed(query, key, value, is_causal=causal)
    assert_close(ours(query, key, value, is_causal=causal), want, **bounds(torch.float32))
    tensors = [x.requires_grad_() for x in (query, key, value)]
    mine, want = (gradients(lambda f=f: f(*tensors, is_causal=causal), tensors) for f in (ours, composed))
    assert_close(mine, want, **bounds(torch.float32))


GROUPED: dict[str, tuple[tuple[int, ...], ...]] = {
    "4 of 2": ((2, 4, 5, 8), (2, 2, 7, 8), (2, 2, 7, 8)),
    "without a batch": ((4, 5, 8), (2, 7, 8), (2, 7, 8)),
    "two batches": ((2, 3, 4, 5, 8), (2, 3, 2, 7, 8), (2, 3, 2, 7, 8)),
    "shared keys": ((2, 4, 5, 8), (1, 2, 7, 8), (1, 2, 7, 8)),
    "more value heads": ((2, 4, 5, 8), (2, 2, 7, 8), (2, 4, 7, 8)),
    "fewer value heads": ((2, 4, 5, 8), (2, 4, 7, 8), (2, 1, 7, 8)),
}


@pytest.mark.parametrize("shapes", GROUPED.values(), ids=GROUPED.keys())
def test_grouped_heads(shapes: tuple[tuple[int, ...], ...]) -> None:
    query, key, value = (randn(*shape, seed=i) for i, shape in enumerate(shapes))
    want = composed(query, key, value, enable_gqa=True)
    assert_close(ours(query, key, value, enable_gqa=True), want, **bounds(torch.float32))
    tensors = [x.requires_grad_() for x in (query, key, value)]
    mine, want = (gradients(lambda f=f: f(*tensors, enable_gqa=True), tensors) for f in (ours, composed))
    assert_close(mine, want, **bounds(torch.float32))


@pytest.mark.parametrize("scale", [None, 0.5, 0.0, -2.0, torch.tensor(0.25)])
def test_scales(scale: Any) -> None:
    query, key, value = randn(3, 2, 4, 9, 8)
    want = composed(query, key, value, scale=scale)
    assert_close(ours(query, key, value, scale=scale), want, **bounds(torch.float32))


@pytest.mark.parametrize("make", [causal_upper_left, causal_lower_right])
@pytest.mark.filterwarnings("ignore:Lower right causal bias will produce NaNs")  # theirs; ours are zeros
@pytest.mark.parametrize("lengths", [(5, 9), (9, 5), (6, 6)])
def test_torchs_causal_masks(make: Any, lengths: tuple[int, int]) -> None:
    query, (key, value) = randn(2, 4, lengths[0], 8), randn(2, 2, 4, lengths[1], 8)
    mask = make(*lengths)
    dense = torch.ones(lengths, dtype=torch.bool).tril(
        0 if make is causal_upper_left else lengths[1] - lengths[0]
    )
    want = composed(query, key, value, dense)
    assert_close(ours(query, key, value, mask), want, **bounds(torch.float32))
    with pytest.raises(RuntimeError, match="a causal mask for 5 queries and 2 keys; expected"):
        ours(query, key, value, causal_upper_left(5, 2))
    with pytest.raises(RuntimeError, match="expected is_causal=False"):
        ours(query, key, value, mask, is_causal=True)


@dtypes
def test_rows_that_see_nothing_are_zero_as_theirs(dtype: Any) -> None:
    query, key, value = randn(3, 2, 4, 9, 8, dtype=dtype)
    mask = torch.ones(9, 9, dtype=torch.bool)
    mask[2] = False
    added = torch.zeros(9, 9, dtype=dtype).masked_fill(~mask, -torch.inf)
    for given in (mask, added):
        got = ours(query, key, value, given)
        assert (got[..., 2, :] == 0).all()
        assert (theirs(query, key, value, given)[..., 2, :] == 0).all()
        assert_close(got, composed(query, key, value, given), **bounds(dtype))


def test_the_output_lies_in_memory_as_theirs() -> None:
    heads_first, rows_first = randn(3, 2, 4, 9, 8), randn(3, 2, 9, 4, 8).transpose(2, 3)
    for query, key, value in (heads_first, rows_first):
        for mask in (None, randn(9, 9) > 0):
            got, want = ours(query, key, value, mask), theirs(query, key, value, mask)
            assert got.stride() == want.stride()
            assert_close(got, want)


def test_a_subclass_is_asked_first() -> None:
    class Tagged(torch.Tensor):  # type: ignore[misc]
        calls = 0

        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            cls.calls += func is ours
            return super().__torch_function__(func, types, args, kwargs or {})

    query, key, value = randn(3, 2, 4, 9, 8)
    got = ours(query.as_subclass(Tagged), key, value, is_causal=True)
    assert type(got) is Tagged
    assert Tagged.calls == 1
    assert_close(got.as_subclass(torch.Tensor), ours(query, key, value, is_causal=True), rtol=0, atol=0)


def test_the_signature_is_theirs() -> None:
    text = theirs.__doc__.partition(" ->")[0]
    listed = re.findall(r"(\w+)(?:=([\w.]+))?[,)]", text.partition("(")[2] + ")")
    mine = inspect.signature(ours).parameters.values()
    assert [(p.name, "" if p.default is p.empty else str(p.default)) for p in mine] == listed


# What both refuse: with one kind of error, and beginning alike. An empty text: theirs is about its own workings.
Q, K = randn(2, 4, 3, 8), randn(2, 4, 6, 8)
BOOL = torch.ones(3, 6, dtype=torch.bool)
MISUSE: dict[str, tuple[type[Exception], str, Callable[[Any], Any]]] = {
    "mask of ints": (
        RuntimeError,
        "Expected attn_mask dtype to be bool or float or to match query dtype, but got attn_mask.dtype: ",
        lambda f: f(Q, K, K, BOOL.long()),
    ),
    "mask of doubles": (
        RuntimeError,
        "Expected attn_mask dtype to be bool or float or to match query dtype, but got attn_mask.dtype: ",
        lambda f: f(Q, K, K, BOOL.double()),
    ),
    "mask too short": (RuntimeError, "", lambda f: f(Q, K, K, BOOL[:, :5])),
    "mask of another batch": (RuntimeError, "", lambda f: f(Q, K, K, BOOL.expand(3, 1, 3, 6))),
    "mask of too many axes": (RuntimeError, "", lambda f: f(Q, K, K, BOOL.expand(1, 2, 4, 3, 6))),
    "dtypes": (
        RuntimeError,
        "Expected query, key, and value to have the same dtype, but got query.dtype: ",
        lambda f: f(Q, K.double(), K),
    ),
    "devices": (
        RuntimeError,
        "Expected query, key, and value to have the same device type, but got query.device: cpu "
        "key.device: meta",
        lambda f: f(Q, K.to("meta"), K),
    ),
    "ints": (RuntimeError, "expected scalar type Float but found ", lambda f: f(Q.int(), K.int(), K.int())),
    "complex numbers": (RuntimeError, "", lambda f: f(*[Q.to(torch.complex64)] * 3)),
    "vectors": (RuntimeError, "Expected query, key, and value to all be ", lambda f: f(*[Q[0, 0, 0]] * 3)),
    "a vector": (
        RuntimeError,
        "Expected query, key, and value to all be ",
        lambda f: f(Q[0, 0, 0], K[0, 0], K[0, 0]),
    ),
    "heads": (
        RuntimeError,
        "The size of tensor a (4) must match the size of tensor b (2) at non-singleton dimension 1",
        lambda f: f(Q, K[:, :2], K[:, :2]),
    ),
    "batches": (
        RuntimeError,
        "The size of tensor a (2) must match the size of tensor b (3) at non-singleton dimension 0",
        lambda f: f(Q, K[:1].expand(3, -1, -1, -1), K[:1].expand(3, -1, -1, -1)),
    ),
    "sizes": (RuntimeError, "", lambda f: f(Q, K[..., :7], K[..., :7])),
    "groups": (
        RuntimeError,
        "Number of heads in key and value must divide the number of heads in ",
        lambda f: f(Q, K[:, :3], K[:, :3], enable_gqa=True),
    ),
    "groups without heads": (
        IndexError,
        "Dimension out of range",
        lambda f: f(Q[0, 0], K[0, 0], K[0, 0], enable_gqa=True),
    ),
    "dropout": (
        RuntimeError,
        "dropout probability has to be between 0 and 1, but got 1.5",
        lambda f: f(Q, K, K, dropout_p=1.5),
    ),
    "negative dropout": (RuntimeError, "", lambda f: f(Q, K, K, dropout_p=-0.5)),
    "too many": (TypeError, "", lambda f: f(Q, K, K, None, 0.0, False, 0.5)),
    "no value": (
        TypeError,
        "scaled_dot_product_attention(): argument 'value' (position 3) must be Tensor, not NoneType",
        lambda f: f(Q, K, None),
    ),
    "a list": (
        TypeError,
        "scaled_dot_product_attention(): argument 'attn_mask' (position 4) must be Tensor, not list",
        lambda f: f(Q, K, K, [[True]]),
    ),
    "a number for a switch": (
        TypeError,
        "scaled_dot_product_attention(): argument 'is_causal' must be bool, not int",
        lambda f: f(Q, K, K, is_causal=1),
    ),
    "sparse": (RuntimeError, "", lambda f: f(Q.to_sparse(), K, K)),
    "nested": (
        RuntimeError,
        "",
        lambda f: f(torch.nested.nested_tensor([Q[0], K[0]]), K, K),
    ),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(("error", "text", "call"), MISUSE.values(), ids=MISUSE.keys())
def test_misuse_is_refused_as_theirs(error: type[Exception], text: str, call: Callable[[Any], Any]) -> None:
    for function in (theirs, ours):
        with pytest.raises(error, match=f"^{re.escape(text)}"):
            call(function)


# What PyTorch documents as an error, or computes from memory that is not there.
REFUSED: dict[str, tuple[str, Callable[[], Any]]] = {
    "two masks": (
        "Explicit attn_mask should not be set when is_causal=True",
        partial(ours, Q, K, K, BOOL, is_causal=True),
    ),
    "fewer values": (
        "key and value must have the same length, but got 6 and 5",
        partial(ours, Q, K, K[:, :, :5]),
    ),
    "no size": ("query has dim 0 .* expected at least 1", partial(ours, Q[..., :0], K[..., :0], K[..., :0])),
    "endless scale": ("scale is inf; expected a finite number", partial(ours, Q, K, K, scale=float("inf"))),
    "no key heads": ("must divide", partial(ours, Q, K[:, :0], K[:, :0], enable_gqa=True)),
}


@pytest.mark.parametrize(("text", "call"), REFUSED.values(), ids=REFUSED.keys())
def test_what_theirs_lets_pass_is_refused(text: str, call: Callable[[], Any]) -> None:
    with pytest.raises(RuntimeError, match=text):
        call()


def test_another_device_is_named() -> None:
    class Elsewhere(torch.Tensor):  # type: ignore[misc]
        device = torch.device("cuda:0")
        __torch_function__ = torch._C._disabled_torch_function_impl

    x = Q.as_subclass(Elsewhere)
    with pytest.raises(
        NotImplementedError, match=r"query is on cuda:0, .* no kernel yet; .*try query\.cpu\(\)"
    ):
        ours(x, x, x)


# ── Calls made before take a shorter way, with the same answer ──


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each call that took the long way."""
    calls: list[int] = []
    real = sdpa_rules.paired

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(sdpa_rules, "paired", counting)
    monkeypatch.setattr(quick, "_known", {})
    return calls


REPEATED: dict[str, tuple[Callable[[], tuple[Any, ...]], dict[str, Any]]] = {
    "plain": (lambda: (Q, K, K), {}),
    "causal, scaled": (lambda: (Q, K, K), {"is_causal": True, "scale": 0.3}),
    "a mask": (lambda: (Q, K, K, BOOL.tril(2)), {}),
    "a mask of floats": (lambda: (Q, K, K, randn(3, 6)), {}),
    "rows first": (lambda: (Q.mT.contiguous().mT, *[randn(2, 6, 4, 8).transpose(1, 2)] * 2), {}),
    "rows before heads": (lambda: (randn(2, 3, 4, 8).transpose(1, 2), K, K), {}),
    "groups": (lambda: (Q, K[:, :2], K[:, :2]), {"enable_gqa": True}),
    "wider values": (lambda: (Q, K, randn(2, 4, 6, 16)), {}),
    "one sequence for all": (lambda: (Q, K[:1], K[:1]), {}),
    "more threads": (lambda: tuple(randn(3, 2, 8, 300, 32)), {}),
    "bfloat16": (lambda: (Q.bfloat16(), K.bfloat16(), K.bfloat16()), {}),
}


@pytest.mark.parametrize(("make", "options"), REPEATED.values(), ids=REPEATED.keys())
def test_a_repeated_call_has_the_same_answer(
    make: Callable[[], tuple[Any, ...]], options: dict[str, Any], slow: list[int]
) -> None:
    arrays = make()
    first = ours(*arrays, **options)
    again = ours(*arrays, **options)
    other = ours(2 * arrays[0], *arrays[1:], **options)
    assert len(slow) == 1
    assert torch.equal(again, first)
    assert again.stride() == first.stride()
    quick._known.clear()
    assert torch.equal(other, ours(2 * arrays[0], *arrays[1:], **options))


def test_what_only_looks_like_a_repeated_call(slow: list[int]) -> None:
    ours(Q, K, K, is_causal=True)
    with pytest.raises(TypeError, match="must be bool"):
        ours(Q, K, K, is_causal=1)  # type: ignore[arg-type]
    zeros = torch._efficientzerotensor(K.shape)
    with pytest.raises(RuntimeError, match="without memory"):
        ours(Q, zeros, zeros, is_causal=True)
    negated = torch.complex(K, K).conj().imag
    with pytest.raises(RuntimeError, match="lazily negated"):
        ours(Q, negated, negated, is_causal=True)
    with pytest.raises(RuntimeError, match="same dtype"):
        ours(Q, K.double(), K, is_causal=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(Q, K, K, is_causal=True).dtype == torch.bfloat16
    assert ours(Q.clone().requires_grad_(), K, K, is_causal=True).requires_grad
    assert ours(Q.to("meta"), K.to("meta"), K.to("meta"), is_causal=True).is_meta
    mapped = torch.func.vmap(lambda q: ours(q, K, K, is_causal=True))(torch.stack([Q, -Q]))
    assert torch.equal(mapped[0], ours(Q, K, K, is_causal=True))
    assert len(slow) > 2
