"""PyTorch's tracers and transforms know the operator: torch.func, torch.compile, torch.export, fake tensors."""

from __future__ import annotations

from typing import Any

import pytest

torch: Any = pytest.importorskip("torch")

from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap  # noqa: E402
from torch.testing import assert_close  # noqa: E402

import sightline  # noqa: E402
import sightline.torch  # noqa: E402
from sightline.torch import attention, dense  # noqa: E402
from sightline.torch.attention import as_call  # noqa: E402
from tensors import OPTIONS, randn, three  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # inside of PyTorch

options_of = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())


def in_full(query: Any, key: Any, value: Any, **options: Any) -> Any:
    """The same in plain PyTorch operations."""
    return dense.attention(as_call(query, key, value, **options))[0]


def loss(function: Any) -> Any:
    return lambda *arrays, **options: function(*arrays, **options).square().sum()


# ── torch.func ──


@options_of
def test_grad(options: dict[str, Any]) -> None:
    arrays = three()
    want = grad(loss(in_full), (0, 1, 2))(*arrays, **options)
    assert_close(grad(loss(attention), (0, 1, 2))(*arrays, **options), want)
    assert_close(grad(loss(sightline.attention), (0, 1, 2))(*arrays, **options), want)


@options_of
def test_grad_of_grad(options: dict[str, Any]) -> None:
    query, key, value = three()

    def twice(function: Any) -> Any:
        return grad(lambda q: grad(loss(function))(q, key, value, **options).square().sum())(query)

    assert_close(twice(attention), twice(in_full))


def test_jacobians() -> None:
    arrays = three()
    want = jacrev(in_full, (0, 1, 2))(*arrays)
    assert_close(jacrev(attention, (0, 1, 2))(*arrays), want)
    assert_close(jacfwd(attention, (0, 1, 2))(*arrays), want)
    assert_close(jvp(attention, arrays, arrays)[1], jvp(in_full, arrays, arrays)[1])
    output, pull = vjp(attention, *arrays)
    assert_close(pull(output), vjp(in_full, *arrays)[1](output))


def test_hessian() -> None:
    query, key, value = (x[0, 0] for x in three())
    want = hessian(lambda q: loss(in_full)(q, key, value))(query)
    assert_close(hessian(lambda q: loss(attention)(q, key, value))(query), want)
    assert_close(jacrev(jacrev(lambda q: loss(attention)(q, key, value)))(query), want)


def stacked(*, rank: int, mask: bool = False, sinks: bool = False, lengths: bool = False) -> dict[str, Any]:
    """Three of every array, to be mapped over."""
    query, key, value = (torch.stack([x, -x, 2 * x]) for x in three())
    if rank < 4:
        query, key, value = (x[(slice(None), *[0] * (4 - rank))] for x in (query, key, value))
    named = {"query": query, "key": key, "value": value}
    if mask:
        named |= {"mask": randn(3, 3, 5) > 0, "bias": randn(3, 5)}
    if sinks:
        named |= {"sinks": randn(3, 4), "alibi_slopes": randn(3, 4)}
    if lengths:
        named |= {"key_lengths": torch.tensor([[5, 1], [0, 2], [3, 3]])}
    return named


MAPPED = {
    "rank 4": stacked(rank=4),
    "rank 3": stacked(rank=3),
    "rank 2": stacked(rank=2),
    "mask and bias": stacked(rank=4, mask=True),
    "mask and bias of rank 3": stacked(rank=3, mask=True),
    "mask and bias of rank 2": stacked(rank=2, mask=True),
    "sinks": stacked(rank=4, sinks=True),
    "lengths": stacked(rank=4, lengths=True),
}


@pytest.mark.parametrize("named", MAPPED.values(), ids=MAPPED.keys())
def test_vmap(named: dict[str, Any]) -> None:
    def call(arrays: dict[str, Any]) -> Any:
        output, seen = attention(**arrays, see=sightline.See(lse=True, entropy=True, top_keys=2))
        return output, seen.lse, seen.entropy, *seen.top_keys

    one_by_one = [call({name: x[i] for name, x in named.items()}) for i in range(3)]
    want = tuple(torch.stack(each) for each in zip(*one_by_one, strict=True))
    assert_close(vmap(call)(named), want, rtol=0, atol=0)
    for shared in ("query", "key"):
        fixed = {shared: named[shared][0]}
        rest = {name: x for name, x in named.items() if name != shared}
        one_by_one = [call({name: x[i] for name, x in rest.items()} | fixed) for i in range(3)]
        want = tuple(torch.stack(each) for each in zip(*one_by_one, strict=True))
        assert_close(vmap(lambda arrays, fixed=fixed: call(arrays | fixed))(rest), want, rtol=0, atol=0)


@pytest.mark.parametrize("named", MAPPED.values(), ids=MAPPED.keys())
def test_gradients_of_each(named: dict[str, Any]) -> None:
    names = [name for name, x in named.items() if x.is_floating_point()]
    rest = {name: x for name, x in named.items() if name not in names}

    def gradients(function: Any) -> Any:
        def of_one(rest: dict[str, Any], *arrays: Any) -> Any:
            return function(**dict(zip(names, arrays, strict=True)), **rest).square().sum()

        every = tuple(range(1, len(names) + 1))
        return grad(of_one, argnums=every)

    arrays = [named[name] for name in names]
    one_by_one = [
        gradients(attention)({name: x[i] for name, x in rest.items()}, *(x[i] for x in arrays))
        for i in range(3)
    ]
    want = tuple(torch.stack(each) for each in zip(*one_by_one, strict=True))
    assert_close(vmap(gradients(attention))(rest, *arrays), want)


def test_gradients_through_vmap_and_other_axes() -> None:
    query, key, value = three()
    queries = torch.stack([query, -query], dim=2)

    def mapped(function: Any) -> Any:
        def total(key: Any, bias: Any) -> Any:
            one = vmap(lambda q: function(q, key, value, bias=bias), in_dims=2, out_dims=1)
            return one(queries).square().sum()

        return total

    arguments = (key, randn(3, 5))
    assert_close(grad(mapped(attention), (0, 1))(*arguments), grad(mapped(in_full), (0, 1))(*arguments))
    each = vmap(grad(loss(lambda b, q: attention(q, key, value, bias=b))), (None, 2))(arguments[1], queries)
    want = [
        grad(loss(lambda b, q: attention(q, key, value, bias=b)))(arguments[1], q) for q in (query, -query)
    ]
    assert_close(each, torch.stack(want))


# ── torch.compile ──


def compiled(function: Any, **options: Any) -> Any:
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend="aot_eager", **options)


@options_of
def test_compiled(options: dict[str, Any]) -> None:
    def twice(query: Any, key: Any, value: Any) -> Any:
        output, seen = attention(2 * query, key, value, **options, see=("lse",))
        return output + 1, seen.lse

    compiled_twice = compiled(twice)
    with torch.no_grad():
        assert_close(compiled_twice(*three()), twice(*three()), rtol=0, atol=0)
    ours, theirs = three(grad=True), three(grad=True)
    compiled_twice(*ours)[0].square().sum().backward()
    twice(*theirs)[0].square().sum().backward()
    for x, y in zip(ours, theirs, strict=True):
        assert torch.equal(x.grad, y.grad)


REQUESTS = {
    "two names": ("lse", "entropy"),
    "all": sightline.See(
        lse=True,
        max_score=True,
        distance=True,
        received=sightline.Received(slice(-3, None), "sum", normalize=True, per_group=True),
        top_keys=3,
        pooled=(2, 3),
        rows=(0, -1),
        diagonals=True,
    ),
    "two heads": sightline.See(lse=True, received=True, rows=(), heads=(3, 1)),
    "largest": sightline.See(received=sightline.Received(reduce="max")),
}


@pytest.mark.parametrize("layout", ["BHLD", "BLHD"])
@pytest.mark.parametrize("see", REQUESTS.values(), ids=REQUESTS.keys())
def test_what_is_seen_under_compile_and_on_meta_tensors(see: Any, layout: str) -> None:
    arrays = [x.transpose(1, 2).contiguous() if layout == "BLHD" else x for x in three()]

    def call(*arrays: Any) -> list[Any]:
        output, seen = attention(*arrays, see=see, layout=layout)
        found = [output, seen.lse, seen.max_score, seen.entropy, seen.distance, seen.received, seen.pooled]
        return [x for x in (*found, seen.rows, seen.diagonals, *(seen.top_keys or ())) if x is not None]

    want = call(*arrays)
    assert len(want) > 1
    assert_close(compiled(call)(*arrays), want, rtol=0, atol=0)
    forms = call(*(x.to("meta") for x in arrays))
    assert [(x.shape, x.dtype, x.stride()) for x in forms] == [(x.shape, x.dtype, x.stride()) for x in want]


def test_compiled_for_many_lengths() -> None:
    def last(query: Any, key: Any, value: Any) -> Any:
        offset = key.shape[-2] - query.shape[-2]
        return attention(query, key, value, causal=True, query_offset=offset, window=(3, 0))

    traced = 0

    def counting(module: Any, _: Any) -> Any:
        nonlocal traced
        traced += 1
        return module.forward

    torch._dynamo.reset()
    one = torch.compile(last, fullgraph=True, backend=counting, dynamic=True)
    for rows, keys in ((6, 13), (7, 9), (10, 11), (12, 30)):
        arrays = randn(2, 4, rows, 4), randn(2, 2, keys, 4), randn(2, 2, keys, 3)
        assert_close(one(*arrays), last(*arrays), rtol=0, atol=0)
    assert traced == 1


def test_compiled_by_inductor() -> None:
    torch._dynamo.reset()
    one = torch.compile(lambda *arrays: attention(*arrays, causal=True, query_offset=1), fullgraph=True)
    assert_close(one(*three()), attention(*three(), causal=True, query_offset=1), rtol=0, atol=0)


def test_torchs_function_compiled() -> None:
    arrays = randn(2, 4, 6, 8), randn(2, 2, 9, 8), randn(2, 2, 9, 8)

    def call(query: Any, key: Any, value: Any, mask: Any) -> Any:
        return sightline.torch.scaled_dot_product_attention(query, key, value, mask, enable_gqa=True)

    for mask in (None, randn(6, 9) > 0, randn(6, 9)):
        assert_close(compiled(call)(*arrays, mask), call(*arrays, mask), rtol=0, atol=0)


def test_patched_around_compiled_code() -> None:
    def call(x: Any) -> Any:
        return torch.nn.functional.scaled_dot_product_attention(2 * x, x, x)

    x = randn(2, 4, 70, 8, dtype=torch.float32)
    one = compiled(call)
    theirs = one(x)
    with sightline.torch.patched():
        ours = one(x)
        assert torch.equal(ours, call(x))
    assert not torch.equal(ours, theirs)
    assert torch.equal(one(x), theirs)


def test_compiled_under_autocast() -> None:
    arrays = three(torch.float32)

    def call(*arrays: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return attention(*arrays)

    assert call(*arrays).dtype == torch.bfloat16
    assert_close(compiled(call)(*arrays), call(*arrays), rtol=0, atol=0)


# ── Others that trace ──


def test_exported() -> None:
    class Model(torch.nn.Module):  # type: ignore[misc]
        def forward(self, query: Any, key: Any, value: Any) -> Any:
            return attention(query, key, value, causal=True, query_offset=2)

    rows = torch.export.Dim("rows", min=2, max=64)
    program = torch.export.export(Model(), three(), dynamic_shapes=({2: rows}, None, None))
    assert "torch.ops.sightline.attention.default" in program.graph_module.code
    query, key, value = three()
    for given in (query, torch.cat([query, -query], 2)):
        assert torch.equal(program.module()(given, key, value), Model()(given, key, value))


def test_fake_tensors() -> None:
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    with FakeTensorMode() as mode:
        for function in (attention, sightline.attention):
            output = function(*(mode.from_tensor(x) for x in three()))
            assert isinstance(output, FakeTensor)
            assert output.shape == (2, 4, 3, 3)
    with pytest.raises(ValueError, match="expected one rank for all three"):
        attention(torch.empty(3, 4, device="meta"), *(x.to("meta") for x in three()[1:]))


def test_make_fx() -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    def call(query: Any, key: Any, value: Any) -> Any:
        return attention(query, key, value)

    traced = make_fx(call, tracing_mode="symbolic")(*three())
    assert "torch.ops.sightline.attention" in traced.code
    assert torch.equal(traced(*three()), attention(*three()))


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", ["plain", "everything"])
def test_opcheck(name: str, grad: bool) -> None:
    """PyTorch's own tests of an operator: schema, autograd, fake kernel, tracing with symbolic shapes."""
    call = as_call(*three(grad=grad), **OPTIONS[name])
    torch.library.opcheck(torch.ops.sightline.attention.default, tuple(call))
