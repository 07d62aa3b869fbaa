"""patched(): whoever calls PyTorch's function gets ours, here and for now only."""

from __future__ import annotations

import sys
import threading
import types
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.nn.functional import scaled_dot_product_attention as by_name  # noqa: E402
from torch.testing import assert_close  # noqa: E402

import sightline.torch  # noqa: E402
from sightline.torch import patch  # noqa: E402

ORIGINAL = by_name


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which threads came to our function."""
    calls: list[str] = []
    real = sightline.torch.scaled_dot_product_attention

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(threading.current_thread().name)
        return real(*args, **kwargs)

    monkeypatch.setattr(patch, "scaled_dot_product_attention", counting)
    return calls


def call() -> Any:
    x = torch.ones(1, 2, 3, 4)
    return functional.scaled_dot_product_attention(x, x, x)


def test_it_is_ours_within_and_theirs_after(counted: list[str]) -> None:
    call()
    assert counted == []
    with sightline.torch.patched():
        call()
        nn.functional.scaled_dot_product_attention(*[torch.ones(2, 3, 4)] * 3, is_causal=True)
        torch._C._nn.scaled_dot_product_attention(*[torch.ones(2, 3, 4)] * 3)
        assert len(counted) == 3
    call()
    assert len(counted) == 3
    assert functional.scaled_dot_product_attention is ORIGINAL
    assert torch._C._nn.scaled_dot_product_attention is ORIGINAL


def test_names_taken_before_are_reached(counted: list[str]) -> None:
    theirs = types.ModuleType("theirs")
    vars(theirs).update(sdpa=ORIGINAL, __name__="theirs")
    sys.modules["theirs"] = theirs
    try:
        with sightline.torch.patched():
            x = torch.ones(1, 2, 3, 4)
            by_name(x, x, x)
            assert len(counted) == 1
            theirs.sdpa(x, x, x)
            assert len(counted) == 2
    finally:
        del sys.modules["theirs"]
    assert theirs.sdpa is ORIGINAL
    assert by_name is ORIGINAL


def test_nested_and_left_by_an_error(counted: list[str]) -> None:
    def fail() -> None:
        with sightline.torch.patched():
            raise KeyError

    with sightline.torch.patched():
        with sightline.torch.patched():
            call()
        call()
        with pytest.raises(KeyError):
            fail()
        call()
    assert len(counted) == 3
    with pytest.raises(KeyError):
        fail()
    assert functional.scaled_dot_product_attention is ORIGINAL
    call()
    assert len(counted) == 3


def test_as_a_decorator(counted: list[str]) -> None:
    sightline.torch.patched()(call)()
    assert len(counted) == 1


def test_other_threads_keep_theirs(counted: list[str]) -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        call()
        with sightline.torch.patched():
            inside.set()
            leave.wait(20)
            call()

    thread = threading.Thread(target=other, name="other")
    with sightline.torch.patched():
        thread.start()
        assert inside.wait(20)
        call()
    call()  # the other is still inside
    assert counted == ["MainThread"]
    leave.set()
    thread.join()
    assert counted == ["MainThread", "other"]
    assert functional.scaled_dot_product_attention is ORIGINAL


MODELS = {
    "attention": lambda: (nn.MultiheadAttention(32, 4, batch_first=True), 3, {"need_weights": False}),
    "encoder": lambda: (
        nn.TransformerEncoder(
            nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2, enable_nested_tensor=False
        ),
        1,
        {},
    ),
    "padded encoder": lambda: (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2),
        1,
        {"src_key_padding_mask": torch.arange(9).expand(2, 9) >= torch.tensor([[9], [5]])},
    ),
    "transformer": lambda: (nn.Transformer(32, 4, 1, 1, 64, batch_first=True), 2, {}),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_models_of_torch(make: Any, counted: list[str]) -> None:
    torch.manual_seed(0)
    model, arguments, options = make()
    model.eval()
    x = torch.randn(2, 9, 32)
    with torch.no_grad():
        want = model(*[x] * arguments, **options)
        with sightline.torch.patched():
            got = model(*[x] * arguments, **options)
    assert counted
    assert torch.backends.mha.get_fastpath_enabled()
    got, want = (y[0] if isinstance(y, tuple) else y for y in (got, want))
    if "src_key_padding_mask" in options:  # what stands at padded places is nobody's business
        real = ~options["src_key_padding_mask"]
        got, want = got[real], want[real]
    assert_close(got, want, atol=2e-6, rtol=1e-5)


def test_what_we_cannot_take_is_an_error_within() -> None:
    x = torch.nested.nested_tensor([torch.ones(2, 4), torch.ones(3, 4)], layout=torch.jagged)
    with (
        sightline.torch.patched(),
        pytest.raises(RuntimeError, match=r"a nested tensor was given, .* expected dense"),
    ):
        functional.scaled_dot_product_attention(x, x, x)


def test_dropout_is_ours() -> None:
    """In a module that trains: seeds are drawn from PyTorch's generator."""
    x, module = torch.randn(2, 30, 16), torch.nn.MultiheadAttention(16, 2, dropout=0.5, batch_first=True)
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        with sightline.torch.patched():
            found.append(module(x, x, x, need_weights=False)[0])
    torch.manual_seed(0)
    theirs = module(x, x, x, need_weights=False)[0]
    assert torch.equal(found[0], found[1])
    assert all(not torch.allclose(found[0], other) for other in (found[2], theirs, module.eval()(x, x, x)[0]))
