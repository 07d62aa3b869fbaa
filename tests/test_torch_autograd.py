"""Gradients through sightline.torch: of any order, through every option, whoever asks for them."""

from __future__ import annotations

from typing import Any

import pytest

torch: Any = pytest.importorskip("torch")

from torch.autograd import forward_ad, gradcheck, gradgradcheck  # noqa: E402
from torch.testing import assert_close  # noqa: E402

import sightline  # noqa: E402
import sightline.torch  # noqa: E402
from sightline.torch import attention, dense  # noqa: E402
from sightline.torch.attention import as_call  # noqa: E402
from tensors import OPTIONS, randn, three  # noqa: E402

DIFFERENTIABLE = ("bias", "sinks", "alibi_slopes")
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # inside of PyTorch
options_of = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())


def both(arrays: Any, options: dict[str, Any]) -> tuple[Any, list[Any]]:
    """The call as a function (output, lse) of all its tensors that have gradients, and those."""
    names = [name for name in DIFFERENTIABLE if name in options]
    tensors = [*arrays, *(options[name].clone().requires_grad_() for name in names)]

    def call(query: Any, key: Any, value: Any, *rest: Any) -> tuple[Any, Any]:
        named = options | dict(zip(names, rest, strict=True))
        output, seen = attention(query, key, value, **named, see=("lse",))
        return output, torch.where(seen.lse.isfinite(), seen.lse, 0.0)  # gradcheck takes no −∞

    return call, tensors


@options_of
def test_gradients(options: dict[str, Any]) -> None:
    call, tensors = both(three(grad=True), options)
    assert gradcheck(call, tensors)


@options_of
def test_gradients_of_gradients(options: dict[str, Any]) -> None:
    call, tensors = both(three(grad=True), options)
    assert gradgradcheck(call, tensors, fast_mode=True)


def forms() -> dict[str, tuple[Any, Any, Any, dict[str, Any]]]:
    query, key, value = three()
    return {
        "rank 2": (query[0, 0], key[0, 0], value[0, 0], {}),
        "rank 3": (query[0], key[0], value[0], {}),
        "rows first": (*(x.transpose(1, 2).contiguous() for x in (query, key, value)), {"layout": "BLHD"}),
        "transposed": (*(x.mT.contiguous().mT for x in (query, key, value)), {}),
        "keys for all sequences": (query, key[:1], value[:1], {}),
        "queries for all sequences": (query[:1], key, value, {}),
        "no queries": (query[:, :, :0], key, value, {}),
        "no keys": (query, key[:, :, :0], value[:, :, :0], {}),
    }


@pytest.mark.parametrize("name", forms())
def test_forms_of_arrays(name: str) -> None:
    *arrays, options = forms()[name]
    call, tensors = both([x.detach().requires_grad_() for x in arrays], options)
    assert gradcheck(call, tensors)
    assert gradgradcheck(call, tensors, fast_mode=True)


KINDS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# A backward kernel takes long to compile: an option has one type, and the next one another.
IN_TURN = [
    pytest.param(options, dtype, id=f"{name}-{dtype}")
    for number, (name, options) in enumerate(OPTIONS.items())
    for dtype in (KINDS if name == "everything" else [KINDS[number % len(KINDS)]])
]


@pytest.mark.parametrize(("options", "dtype"), IN_TURN)
def test_gradients_are_those_of_attention_vjp(options: dict[str, Any], dtype: Any) -> None:
    call, tensors = both([x.requires_grad_() for x in three(dtype)], options)
    d_output = randn(2, 4, 3, 3, dtype=dtype)
    d_lse = randn(2, 4, 3, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    output, lse = call(*tensors)
    found = torch.autograd.grad((output, lse), tensors, (d_output, d_lse))

    names = ["query", "key", "value", *(name for name in DIFFERENTIABLE if name in options)]
    plain: Any = [x.detach() for x in tensors]
    _, seen = sightline.attention(*plain[:3], **options, see=("lse",))
    d_lse = torch.where(seen.lse.isfinite(), d_lse, 0.0)
    by_kernel = [name for name in names if name != "bias"]
    rest: Any = {"grad_lse": d_lse, "wanted": by_kernel, **options}
    want = sightline.attention_vjp(plain[0], plain[1], plain[2], output.detach(), seen.lse, d_output, **rest)
    for name, x, gradient in zip(names, tensors, found, strict=True):
        assert gradient.dtype == x.dtype
        if name in by_kernel:
            assert torch.equal(gradient, getattr(want, name)), name


def test_only_what_is_wanted_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    from sightline.torch import gradients

    asked: list[Any] = []
    real = sightline.attention_vjp

    def counting(*args: Any, **kwargs: Any) -> Any:
        asked.append(kwargs["wanted"])
        return real(*args, **kwargs)

    monkeypatch.setattr(gradients, "attention_vjp", counting)
    query, key, value = three()
    bias = randn(3, 5)
    attention(query, key.requires_grad_(), value, bias=bias).sum().backward()
    attention(query, key.detach(), value, bias=bias.requires_grad_()).sum().backward()
    assert asked == [["key"], ["bias"]]


def test_the_door_hands_over_what_autograd_follows() -> None:
    query, key, value = three(grad=True)
    output, seen = sightline.attention(query, key, value, causal=True, query_offset=0, see=("lse",))
    plain = [x.detach() for x in (query, key, value)]
    want, want_seen = sightline.attention(*plain, causal=True, query_offset=0, see=("lse",))
    assert torch.equal(output, want)
    assert torch.equal(seen.lse, want_seen.lse)
    assert output.requires_grad
    assert seen.lse.requires_grad
    with torch.no_grad():
        assert not sightline.attention(query, key, value).requires_grad


def test_the_third_derivative() -> None:
    def third(function: Any) -> Any:
        query, key, value = three(grad=True)
        found = function(query, key, value)
        for last in (False, False, True):
            (found,) = torch.autograd.grad(found.square().sum(), query, create_graph=not last)
        return found

    assert_close(third(attention), third(lambda *a: dense.attention(as_call(*a))[0]))


def test_forward_derivatives() -> None:
    query, key, value = three()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(query, torch.ones_like(query))
        output, seen = attention(dual, key, value, see=("lse",))
        tangent = forward_ad.unpack_dual(output).tangent
        assert forward_ad.unpack_dual(seen.lse).tangent is not None
        assert_close(forward_ad.unpack_dual(sightline.attention(dual, key, value)).tangent, tangent)
        with pytest.raises(
            NotImplementedError, match="see asks for entropy in a call with forward derivatives"
        ):
            attention(dual, key, value, see=("entropy",))
        with pytest.raises(RuntimeError, match="out is given in a call with forward derivatives"):
            attention(dual, key, value, out=torch.empty_like(output))
    step = 1e-6
    around = [attention(query + s, key, value) for s in (step, -step)]
    assert_close(tangent, (around[0] - around[1]) / (2 * step), atol=1e-8, rtol=1e-6)


def test_statistics_are_there_and_have_no_gradient() -> None:
    query, key, value = three(grad=True)
    request = sightline.See(entropy=True, received=True, top_keys=2, heads=(1, 3))
    output, seen = attention(query, key, value, see=request)
    _, want = attention(*(x.detach() for x in (query, key, value)), see=request)
    assert torch.equal(seen.entropy, want.entropy)
    assert torch.equal(seen.received, want.received)
    assert torch.equal(seen.top_keys.indices, want.top_keys.indices)
    assert torch.equal(seen.top_keys.weights, want.top_keys.weights)
    assert seen.lse is None
    output.sum().backward()
    assert query.grad is not None
    output, seen = attention(query, key, value, see=("entropy",))
    with pytest.raises(
        NotImplementedError, match=r"a gradient of a statistic .* try seen\.entropy\.detach\(\)"
    ):
        (output.sum() + seen.entropy.sum()).backward()


def test_autocast_casts_as_it_does_for_theirs() -> None:
    query, key, value = three(torch.float32, grad=True)
    key, value = (x.detach().repeat_interleave(2, 1).requires_grad_() for x in (key, value))
    with torch.autocast("cpu", torch.bfloat16):
        output = attention(query, key, value)
        mixed = sightline.torch.scaled_dot_product_attention(query, key.bfloat16(), value)
        theirs = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        wide = attention(query.double(), key.double(), value.double())
    assert output.dtype == mixed.dtype == theirs.dtype == torch.bfloat16
    assert wide.dtype == torch.float64
    assert torch.equal(output, attention(*(x.bfloat16() for x in (query, key, value))))
    output.float().sum().backward()
    assert query.grad.dtype == torch.float32


def test_inference_mode() -> None:
    query, key, value = three(grad=True)
    with torch.inference_mode():
        output = attention(query, key, value)
    assert output.is_inference()
    assert torch.equal(output.clone(), attention(query, key, value))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(reentrant: bool) -> None:
    from torch.utils.checkpoint import checkpoint

    found = []
    for keep in (False, True):
        arrays = three(grad=True)
        again = checkpoint(attention, *arrays, use_reentrant=reentrant)
        output = attention(*arrays) if keep else again
        output.square().sum().backward()
        found.append([x.grad for x in arrays])
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


def test_out() -> None:
    query, key, value = three(grad=True)
    out = torch.empty(2, 4, 3, 3, dtype=torch.float64)
    with pytest.raises(RuntimeError, match=r"out is given, and a gradient is asked for; .* try out=None"):
        attention(query, key, value, out=out)
    with torch.no_grad():
        assert attention(query, key, value, out=out) is out
    assert torch.equal(out, attention(query, key, value))


MISTAKES: dict[str, tuple[type[Exception], str, dict[str, Any]]] = {
    "alignment": (ValueError, "has two readings", {"causal": True}),
    "key lengths": (
        ValueError,
        r"key_lengths\[1\] is 9; expected an int from 0 to 5",
        {"key_lengths": [1, 9]},
    ),
    "an array of another kind": (
        TypeError,
        "bias is a ndarray beside tensors",
        {"bias": torch.zeros(5).numpy()},
    ),
    "a name": (TypeError, "unexpected keyword argument 'causl'", {"causl": True}),
    "see": (ValueError, "see has 'entropie'; expected names among", {"see": ("entropie",)}),
    "score_mod": (NotImplementedError, "score_mod= is not there yet", {"score_mod": abs}),
}


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(("error", "text", "options"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes(error: type[Exception], text: str, options: dict[str, Any], grad: bool) -> None:
    if "bias" in options and not grad:
        pytest.skip("the door takes arrays of all kinds")
    with pytest.raises(error, match=text):
        attention(*three(grad=grad), **options)


def test_a_subclass_without_a_life_of_its_own() -> None:
    class Tagged(torch.Tensor):  # type: ignore[misc]
        pass

    query, key, value = three()
    want = attention(query, key, value)
    tagged = query.as_subclass(Tagged)
    assert torch.equal(attention(tagged, key, value).as_subclass(torch.Tensor), want)
    output = attention(tagged, key.requires_grad_(), value)
    output.sum().backward()
    assert torch.equal(output.detach().as_subclass(torch.Tensor), want)
    assert key.grad is not None
