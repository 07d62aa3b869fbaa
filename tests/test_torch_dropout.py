"""Dropout under PyTorch: where seeds come from, and that every transform has the same weights dropped.

What a given seed drops, with gradients of any order and every transform, is in "everything" of `tensors.OPTIONS`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch")

from torch.func import grad, vmap  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import sightline  # noqa: E402
import sightline.torch  # noqa: E402
from sightline.torch import attention  # noqa: E402
from tensors import three  # noqa: E402

drop = partial(attention, dropout_p=0.4)


def seeded(seed: int, function: Any, *arrays: Any) -> tuple[Any, ...]:
    """What it gives, and the gradients of a loss of it."""
    torch.manual_seed(seed)
    output = function(*arrays)
    return output, *torch.autograd.grad(output.square().sum(), arrays)


def same(x: tuple[Any, ...], y: tuple[Any, ...]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(x, y, strict=True))


def test_a_seed_is_drawn_from_pytorchs_generator() -> None:
    arrays = three(grad=True)
    first, again, other = (seeded(seed, drop, *arrays) for seed in (1, 1, 2))
    assert same(first, again)
    assert not torch.equal(first[0], other[0])
    torch.manual_seed(1)
    assert torch.equal(drop(*three()), first[0])  # where nobody follows the tensors, too
    assert not torch.equal(drop(*three()), first[0])
    torch.manual_seed(1)
    number = torch.randint(0, 2**63 - 1, ())
    for seed in (number, int(number)):
        assert torch.equal(sightline.attention(*three(), dropout_p=0.4, seed=seed), first[0])
        assert torch.equal(drop(*arrays, seed=seed), first[0])


def test_what_drops_nothing_draws_nothing() -> None:
    before = torch.get_rng_state()
    for arrays in (three(), three(grad=True)):
        attention(*arrays, dropout_p=0.0)
        drop(*arrays, seed=3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint_drops_the_same_again(reentrant: bool) -> None:
    arrays = three(grad=True)

    def again(*given: Any) -> Any:
        return checkpoint(drop, *given, use_reentrant=reentrant)

    torch.manual_seed(0)
    again(*arrays).square().sum().backward()
    assert same(tuple(x.grad for x in arrays), seeded(0, drop, *arrays)[1:])


def test_compiled_code_drops_others_at_each_run() -> None:
    torch._dynamo.reset()
    arrays = three(grad=True)
    compiled = torch.compile(
        lambda *given: drop(2 * given[0], *given[1:]), fullgraph=True, backend="aot_eager"
    )
    first = seeded(0, compiled, *arrays)
    assert same(first, seeded(0, lambda *given: drop(2 * given[0], *given[1:]), *arrays))
    assert not torch.equal(compiled(*arrays), first[0])
    sdpa = partial(sightline.torch.scaled_dot_product_attention, dropout_p=0.4, enable_gqa=True)
    compiled = torch.compile(sdpa, fullgraph=True, backend="aot_eager")
    assert same(seeded(0, compiled, *arrays), seeded(0, sdpa, *arrays))


def test_vmap() -> None:
    """A seed says the same of every entry, as in a loop; a drawn one is what `randomness` says."""
    query, key, value = three()
    queries = query.expand(3, *query.shape)
    each = vmap(partial(drop, seed=5), in_dims=(0, None, None))(queries, key, value)
    want = drop(query, key, value, seed=5)
    assert all(torch.equal(x, want) for x in each)
    for randomness in ("same", "different"):
        first, second, _ = vmap(drop, (0, None, None), randomness=randomness)(queries, key, value)
        assert torch.equal(first, second) == (randomness == "same")
    with pytest.raises(RuntimeError, match="randomness"):
        vmap(drop, (0, None, None))(queries, key, value)

    def loss(q: Any) -> Any:
        return drop(q, key, value, seed=5).square().sum()

    assert torch.equal(vmap(grad(loss))(queries)[1], grad(loss)(query))


@pytest.mark.parametrize("needs_grad", [False, True])
def test_refusals(needs_grad: bool) -> None:
    arrays = three(grad=needs_grad)
    with pytest.raises(ValueError, match=r"dropout_p is 1\.5; expected a number from 0 to 1"):
        attention(*arrays, dropout_p=1.5)
    with pytest.raises(ValueError, match=r"seed is None; .* or sightline\.torch\.attention, which draws one"):
        sightline.attention(*arrays, dropout_p=0.1)
    with pytest.raises(TypeError, match="seed is tensor"):
        drop(*arrays, seed=torch.zeros(2))
