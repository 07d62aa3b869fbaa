"""watch(): what it tells of a model's layers is what their weights say, and the model is left as it was."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

torch: Any = pytest.importorskip("torch")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported
transformers: Any = pytest.importorskip("transformers")

from torch.testing import assert_close  # noqa: E402

import sightline  # noqa: E402
import sightline.transformers  # noqa: E402
from sightline import Received, See  # noqa: E402
from sightline.watching.interface import observed  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

IDS = torch.randint(3, 99, (2, 11), generator=torch.Generator().manual_seed(1))
TO_THE_LEFT = torch.tensor([[1] * 11, [0] * 4 + [1] * 7])
TO_THE_RIGHT = torch.tensor([[1] * 11, [1] * 7 + [0] * 4])
SIZES: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
}
GROUPED = SIZES | {"num_key_value_heads": 2, "head_dim": 8}
SEE = See(entropy=True, distance=True, received=True, top_keys=3, rows=(0, 5, -1))


@pytest.fixture(autouse=True)
def with_gradients() -> Iterator[None]:
    """Whatever other tests have left."""
    with torch.enable_grad():
        yield


def bert() -> Any:
    return transformers.BertModel, transformers.BertConfig(**SIZES)


def llama() -> Any:
    return transformers.LlamaForCausalLM, transformers.LlamaConfig(**GROUPED)


def gemma2() -> Any:
    softcap = {"attn_logit_softcapping": 2.0, "sliding_window": 4, "query_pre_attn_scalar": 8}
    return transformers.Gemma2ForCausalLM, transformers.Gemma2Config(**GROUPED, **softcap)


def gpt_oss() -> Any:
    more = {"num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 4}
    return transformers.GptOssForCausalLM, transformers.GptOssConfig(**GROUPED, **more)


def t5() -> Any:
    sizes = {
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 1,
    }
    return transformers.T5ForConditionalGeneration, transformers.T5Config(vocab_size=99, **sizes)


def build(make: Any, how: str = "eager") -> Any:
    """The model with weights that are large enough for sharp attention."""
    architecture, config = make()
    model = architecture._from_config(config, attn_implementation=how).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=0.1, std=0.3, generator=generator)
    return model


def weights(model: Any, **inputs: Any) -> tuple[Any, ...]:
    """What output_attentions gives, in the order in which the layers run."""
    out = model(**inputs, output_attentions=True)
    if hasattr(out, "cross_attentions") and out.cross_attentions:
        pairs = zip(out.decoder_attentions, out.cross_attentions, strict=True)
        return (*out.encoder_attentions, *(x for pair in pairs for x in pair))
    return tuple(out.attentions)


def assert_told(seen: Any, w: Any, real: Any = None) -> None:
    """`seen` says what the weights w (B, H, Lq, Lk) are; `real` (B, Lq) marks the rows that see anything."""
    real = torch.ones(w.shape[0], w.shape[2], dtype=torch.bool) if real is None else real.bool()
    rows = real[:, None].expand(w.shape[:3])
    close = {"atol": 2e-5, "rtol": 1e-4}
    assert_close(seen.entropy[rows], torch.special.entr(w).sum(-1)[rows], **close)
    top = w.sort(dim=-1, descending=True, stable=True)
    assert_close(seen.top_keys.weights[rows], top.values[..., :3][rows], **close)
    sharp = rows & (top.values[..., 0] > top.values[..., 1] + 1e-4)
    assert sharp.any()
    assert torch.equal(seen.top_keys.indices[..., 0][sharp], top.indices[..., 0][sharp])
    if real.all():
        assert_close(seen.received, w.sum(-2), **close)
        assert_close(seen.rows, w[..., [0, 5, -1], :], **close)
        places = torch.arange(w.shape[2])[:, None], torch.arange(w.shape[3])
        assert_close(seen.distance, (w * (places[0] - places[1]).abs()).sum(-1), **close)


MODELS = {
    "bert": (bert, None),
    "bert, padded": (bert, TO_THE_RIGHT),
    "llama": (llama, None),
    "llama, padded": (llama, TO_THE_LEFT),
    "gemma2": (gemma2, None),
    "gemma2, padded": (gemma2, TO_THE_LEFT),
    "gpt_oss": (gpt_oss, None),
}


@pytest.mark.parametrize(("make", "mask"), MODELS.values(), ids=MODELS.keys())
def test_what_is_seen_is_what_the_weights_say(make: Any, mask: Any) -> None:
    model = build(make)
    inputs = {"input_ids": IDS} if mask is None else {"input_ids": IDS, "attention_mask": mask}
    with sightline.watch(model, SEE) as seen:
        model(**inputs)
    theirs = weights(model, **inputs)
    assert len(seen.layers) == len(seen.names) == len(theirs) == 2
    decoder = mask is TO_THE_LEFT  # its first places see nothing: zeros here, anything there
    for found, w in zip(seen.layers, theirs, strict=True):
        assert_told(found, w, mask if decoder else None)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, "sdpa") for name in ("bert", "bert, padded", "llama", "llama, padded")),
        *((name, "sightline") for name in ("llama, padded", "gemma2, padded", "gpt_oss")),
    ],
)
def test_the_implementation_makes_no_difference(name: str, how: str) -> None:
    sightline.transformers.register()
    make, mask = MODELS[name]
    inputs = {"input_ids": IDS, "attention_mask": mask}
    with sightline.watch(build(make, how), SEE) as seen:
        build(make, how)(**inputs)
        assert seen.calls == []  # another model with the same weights
    model = build(make, how)
    with sightline.watch(model, SEE) as seen:
        model(**inputs)
    real = None if mask is None else mask
    for found, w in zip(seen.layers, weights(build(make), **inputs), strict=True):
        assert_told(found, w, real)


def test_two_stacks_and_what_crosses_between() -> None:
    model = build(t5)
    inputs = {"input_ids": IDS, "attention_mask": TO_THE_RIGHT, "decoder_input_ids": IDS[:, :6]}
    with sightline.watch(model, SEE) as seen:
        model(**inputs)
    assert [name.split(".")[-1] for name in seen.names] == [
        *["SelfAttention"] * 2,
        *["SelfAttention", "EncDecAttention"] * 2,
    ]
    assert seen.names[3] == "decoder.block.0.layer.1.EncDecAttention"
    for found, w in zip(seen.layers, weights(model, **inputs), strict=True):
        assert_told(found, w)


def test_each_step_of_a_generation_is_a_call() -> None:
    model = build(llama, "sdpa")
    see = See(received=Received(per_group=True), top_keys=1)
    with sightline.watch(model, see) as seen, torch.no_grad():
        tokens = model.generate(
            IDS, attention_mask=TO_THE_LEFT, max_new_tokens=4, do_sample=False, eos_token_id=None
        )
    assert [call.lengths for call in seen.calls] == [[(n, 11 + i)] * 2 for i, n in enumerate((11, 1, 1, 1))]
    assert all(call.names == [f"model.layers.{i}.self_attn" for i in range(2)] for call in seen.calls)
    mask = torch.cat([TO_THE_LEFT, torch.ones(2, 3, dtype=torch.int64)], 1)
    w = weights(build(llama), input_ids=tokens[:, :14], attention_mask=mask)[1]
    for i, call in enumerate(seen.calls[1:]):
        row = w[:, :, 11 + i, : 12 + i]
        assert_close(call.layers[1].received, row.reshape(2, 2, 2, -1).mean(2), atol=2e-5, rtol=1e-4)
    with pytest.raises(ValueError, match=r"the model was called 4 times; expected once; try calls\[0\]"):
        _ = seen.layers


def test_some_layers_and_some_heads() -> None:
    model = build(bert)
    name = "encoder.layer.1.attention.self"
    for layers in ((1,), (name,), (1, name)):
        with sightline.watch(model, See(entropy=True, received=True, heads=(3, 0)), layers=layers) as seen:
            model(IDS)
        assert (seen.names, seen.calls[0].numbers) == ([name], [1])
        entropy = torch.special.entr(weights(model, input_ids=IDS)[1]).sum(-1)
        assert_close(seen.layers[0].entropy, entropy[:, [3, 0]], atol=2e-5, rtol=1e-4)
    assert [picture.heads for picture in seen.pictures()] == [("3", "0")]


def test_the_model_computes_what_it_does() -> None:
    model = build(llama)
    quiet = model(IDS, labels=IDS)
    quiet.loss.backward()
    want = model.model.embed_tokens.weight.grad.clone()
    model.zero_grad()
    with sightline.watch(model, ("lse",)) as seen:
        loud = model(IDS, labels=IDS)
        loud.loss.backward()
    assert torch.equal(loud.logits, quiet.logits)
    assert torch.equal(model.model.embed_tokens.weight.grad, want)
    assert not seen.layers[0].lse.requires_grad
    assert len(seen.calls) == 1


def test_what_checkpointing_computes_again_is_not_seen_again() -> None:
    model = build(llama).train()
    model.activation_checkpointing_enable()
    with sightline.watch(model, ("lse",)) as seen:
        model(IDS, labels=IDS).loss.backward()
    assert len(seen.calls) == 1
    assert len(seen.layers) == 2


def hooks(model: Any) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_everything_is_as_it_was() -> None:
    interface = transformers.modeling_utils.AttentionInterface
    before = interface.get_interface, torch.nn.functional.scaled_dot_product_attention
    fast = torch.backends.mha.get_fastpath_enabled()
    model = build(bert)
    with sightline.watch(model, ("lse",)):
        assert interface.get_interface is not before[0]
        assert hooks(model) > 20
    with pytest.raises(IndexError), sightline.watch(model, ("lse",)) as seen:
        model(torch.tensor([[1000]]))
    assert seen.calls == []
    with pytest.raises(KeyboardInterrupt), sightline.watch(model, ("lse",)), sightline.watch(model, ("lse",)):
        raise KeyboardInterrupt
    assert hooks(model) == 0
    assert (interface.get_interface, torch.nn.functional.scaled_dot_product_attention) == before
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_an_error_ends_one_call_and_not_the_watching() -> None:
    model = build(bert)
    with sightline.watch(model, ("lse",)) as seen:
        with pytest.raises(IndexError):
            model(torch.tensor([[1000]]))
        model(IDS)
        model(IDS)
    assert [len(call.layers) for call in seen.calls] == [2, 2]


def test_eager_without_a_mask_sees_every_key() -> None:
    module, x = SimpleNamespace(is_causal=True), torch.ones(1, 2, 3, 4)
    causal = [observed(module, x, x, x, None, eager=eager).options["causal"] for eager in (True, False)]
    assert causal == [False, True]


def test_watching_twice_and_a_part() -> None:
    model = build(bert)
    with (
        sightline.watch(model, ("lse",)) as whole,
        sightline.watch(model.encoder.layer[1], ("entropy",)) as part,
    ):
        model(IDS)
    assert len(whole.layers) == 2
    assert part.names == ["attention.self"]
    assert part.layers[0].lse is None


def test_other_threads_are_not_watched() -> None:
    model = build(bert)
    with sightline.watch(model, ("lse",)) as seen:
        thread = threading.Thread(target=lambda: model(IDS))
        thread.start()
        thread.join()
        assert seen.calls == []
        model(IDS[:, :5])
    assert seen.calls[0].lengths == [(5, 5)] * 2


def test_threads_that_watch_one_model() -> None:
    model, found = build(bert), {}
    barrier = threading.Barrier(3)

    def watched(length: int) -> None:
        with torch.no_grad(), sightline.watch(model, ("lse",)) as seen:
            barrier.wait()
            for _ in range(5):
                model(IDS[:, :length])
            barrier.wait()
        found[length] = seen

    threads = [threading.Thread(target=watched, args=(length,)) for length in (4, 7, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for length, seen in found.items():
        assert [call.lengths for call in seen.calls] == [[(length, length)] * 2] * 5
    assert len(found) == 3
    assert hooks(model) == 0


def test_memory_grows_with_the_length() -> None:
    """What is kept of 500 tokens: far less than one layer's weights."""
    model = build(bert, "sdpa")
    with sightline.watch(model, See(entropy=True, received=True, top_keys=2)) as seen, torch.no_grad():
        model(IDS.repeat(1, 40)[:1])
    kept = [x for layer in seen.layers for x in (layer.entropy, layer.received, *(layer.top_keys or ()))]
    assert sum(x.untyped_storage().nbytes() for x in kept) == 2 * 4 * 440 * (4 + 4 + 2 * (8 + 4))


def test_an_attention_of_another_kind_is_refused() -> None:
    def louder(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value * 1.1)
        return out.transpose(1, 2), None

    transformers.AttentionInterface.register("louder", louder)
    try:
        model = build(bert)
        model.set_attn_implementation("louder")
        refused = pytest.raises(NotImplementedError, match="output of BertSelfAttention is not softmax")
        with refused, sightline.watch(model, ("lse",)):
            model(IDS)
    finally:
        del transformers.AttentionInterface._global_mapping["louder"]


@pytest.mark.parametrize(
    ("model", "options", "error", "text"),
    [
        (3, {}, TypeError, "model is a int; expected a torch.nn.Module"),
        (torch.nn.Linear(3, 3), {"layers": "0"}, TypeError, r"layers is '0'; expected a sequence"),
        (torch.nn.Linear(3, 3), {"layers": (-1,)}, ValueError, "layers has -1; expected numbers from 0"),
        (torch.nn.Linear(3, 3), {"layers": ("x",)}, ValueError, "layers has 'x', no name in"),
        (torch.nn.Linear(3, 3), {"see": ("weights",)}, ValueError, "see has 'weights'"),
        (torch.nn.Linear(3, 3), {}, ValueError, "the model ran, and no attention was seen"),
    ],
)
def test_mistakes(model: Any, options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text), sightline.watch(model, **options):
        model(torch.ones(1, 3))


def test_a_layer_that_is_not_there() -> None:
    model = build(bert)
    refused = pytest.raises(ValueError, match="layers has 7; no attention of that number")
    with refused, sightline.watch(model, ("lse",), layers=(0, 7)):
        model(IDS)


def test_compiled_models_are_refused() -> None:
    model = torch.compile(torch.nn.Linear(3, 3), backend="eager")
    with pytest.raises(TypeError, match=r"model is compiled.*try model\._orig_mod"), sightline.watch(model):
        pass
