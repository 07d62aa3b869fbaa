"""watch() on PyTorch's own modules, and on any that calls its function: names, numbers and pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

torch: Any = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.attention.bias import causal_lower_right, causal_upper_left  # noqa: E402
from torch.testing import assert_close  # noqa: E402

import sightline  # noqa: E402
from sightline import See  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

QUERY = torch.randn(2, 4, 7, 8, generator=torch.Generator().manual_seed(0))
KEY = torch.randn(2, 2, 9, 8, generator=torch.Generator().manual_seed(1))
LOWER = torch.ones(7, 9, dtype=torch.bool).tril(2)


class Calls(nn.Module):  # type: ignore[misc]
    """One call of PyTorch's function, with these arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.args, self.kwargs = args, kwargs

    def forward(self, query: Any, key: Any) -> Any:
        return nn.functional.scaled_dot_product_attention(query, key, key, *self.args, **self.kwargs)


def weights(bias: Any = None, *, scale: float = 8**-0.5) -> Any:
    scores = QUERY @ KEY.repeat_interleave(2, 1).mT * scale
    return (scores if bias is None else scores + bias).softmax(-1)


def hidden(mask: Any) -> Any:
    return torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)


BIAS = torch.randn(2, 1, 7, 9, generator=torch.Generator().manual_seed(2))
CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any], Any]] = {
    "grouped": ((), {}, weights()),
    "causal": ((None, 0.0, True), {}, weights(hidden(LOWER.tril(0)))),
    "mask": ((LOWER,), {}, weights(hidden(LOWER))),
    "bias and scale": ((BIAS,), {"scale": 0.5}, weights(BIAS, scale=0.5)),
    "lower right": ((causal_lower_right(7, 9),), {}, weights(hidden(LOWER))),
    "upper left": ((causal_upper_left(7, 9),), {}, weights(hidden(LOWER.tril(0)))),
    "dropout": ((None, 0.5), {}, weights()),
}


@pytest.mark.parametrize(("args", "options", "w"), CALLS.values(), ids=CALLS.keys())
def test_arguments_arrive(args: Any, options: dict[str, Any], w: Any) -> None:
    model = Calls(*args, **options, enable_gqa=True)
    with sightline.watch(model, See(rows=tuple(range(7)), received=True)) as seen:
        model(QUERY, KEY)
    assert_close(seen.layers[0].rows, w, atol=1e-6, rtol=1e-5)
    assert_close(seen.layers[0].received, w.sum(-2), atol=1e-5, rtol=1e-5)
    assert seen.names == [""]


def test_without_heads() -> None:
    with sightline.watch(model := Calls(), ("entropy",)) as seen:
        model(QUERY[0, 0], KEY[0, 0])
    assert seen.layers[0].entropy.shape == (7,)
    assert seen.calls[0].lengths == [(7, 9)]


def test_transformer_encoder() -> None:
    layer = nn.TransformerEncoderLayer(32, 4, 48, batch_first=True)
    model = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).eval()
    x = torch.randn(2, 10, 32, generator=torch.Generator().manual_seed(3))
    padding = torch.arange(10) >= torch.tensor([[10], [6]])
    caught: list[Any] = []
    taken = [each.register_forward_pre_hook(lambda _m, args: caught.append(args[0])) for each in model.layers]
    with torch.no_grad(), sightline.watch(model, ("received",)) as seen:
        model(x, src_key_padding_mask=padding)
    for hook in taken:
        hook.remove()
    assert seen.names == [f"layers.{i}.self_attn" for i in range(3)]
    for found, given, module in zip(seen.layers, caught, model.layers, strict=True):
        _, w = module.self_attn(given, given, given, key_padding_mask=padding, average_attn_weights=False)
        assert_close(found.received, w.sum(-2), atol=1e-5, rtol=1e-4)


def test_what_a_model_writes_out_itself_is_not_seen() -> None:
    model, x = nn.MultiheadAttention(8, 2), torch.ones(3, 1, 8)
    with pytest.raises(ValueError, match="no attention was seen"), sightline.watch(model, ("lse",)):
        model(x, x, x, need_weights=True)
    with sightline.watch(model, ("lse",)) as seen:
        model(x, x, x, need_weights=False)
    assert len(seen.layers) == 1


def test_patched_within_and_around() -> None:
    model = Calls(enable_gqa=True)
    with sightline.torch.patched(), sightline.watch(model, ("lse",)) as first:
        model(QUERY, KEY)
        with sightline.watch(model, ("lse",)) as second, sightline.torch.patched():
            model(QUERY, KEY)
    assert len(first.calls) == 2
    assert_close(second.layers[0].lse, first.calls[0].layers[0].lse)


class Tokenizer:
    """What we need of one."""

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [f"<{number}>" for number in ids]


class Text(nn.Module):  # type: ignore[misc]
    """Reads ids; queries are the last of the keys that it has met."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attend = nn.Embedding(50, 16), Calls()
        self.met = torch.zeros(1, 1, 0, 16)

    def forward(self, input_ids: Any) -> Any:
        new = self.embed(input_ids)[:, None]
        self.met = torch.cat([self.met, new], 2).detach()
        return self.attend(new, self.met)


def test_labels_from_a_tokenizer_follow_a_cache() -> None:
    model = Text()
    with sightline.watch(model) as seen:
        model(input_ids=torch.tensor([[3, 1, 4]]))
        model(torch.tensor([[1]]))
    first, second = (seen.pictures(tokens=Tokenizer(), call=i)[0] for i in (0, -1))
    assert first.key_tokens == first.query_tokens == ("<3>", "<1>", "<4>")
    assert second.key_tokens == ("<3>", "<1>", "<4>", "<1>")
    assert (second.queries, second.query_tokens) == (1, None)
    (told,) = seen.pictures(tokens=list("abcd"), call=1, query_offset=3)
    assert (told.query_tokens, told.offset) == (("d",), 3)
    with pytest.raises(ValueError, match="tokens has 2 labels; expected 3, one for each key"):
        seen.pictures(tokens=["a", "b"], call=0)


def test_pictures_of_all_layers_or_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("jinja2", "rich", "matplotlib"):
        pytest.importorskip(package)
    model = nn.Sequential(Text(), Text())
    model.forward = lambda ids: (model[0](ids), model[1](ids))
    with sightline.watch(model) as seen:
        model(torch.tensor([[3, 1, 4, 1]]))
    seen.plot(tmp_path / "seen.html", tokens=Tokenizer(), title="two")
    page = (tmp_path / "seen.html").read_text("utf-8")
    assert "two, layer 0: 0.attend" in page
    assert "two, layer 1: 1.attend" in page
    for place, name in ((None, "the terminal"), (tmp_path / "seen.png", "a PNG")):
        with pytest.raises(ValueError, match=f"2 layers, and {name} shows one; try layer=0"):
            seen.plot(place)
    seen.plot(tmp_path / "seen.png", layer=1)
    assert (tmp_path / "seen.png").read_bytes()[:4] == b"\x89PNG"
    seen.plot(layer=1, tokens=Tokenizer())
    assert "<3>" in capsys.readouterr().out
    with pytest.raises(ValueError, match="layer is 2; 2 were watched, counted from 0"):
        seen.plot(layer=2)
    with pytest.raises(ValueError, match="call is 1; the model was called 1 times"):
        seen.plot(call=1)


def test_before_anything_ran() -> None:
    with sightline.watch(nn.Linear(2, 2), ("lse",)) as seen:
        assert seen.calls == []
        with pytest.raises(ValueError, match="called 0 times; expected once; call the model inside"):
            _ = seen.layers
