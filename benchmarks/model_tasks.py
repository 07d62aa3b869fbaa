"""What models are given to do, and when two answers are the same: MiniLM encodes, a small Llama writes.

Nothing is fetched: MiniLM's weights come as a package, and the Llama has random ones.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported

CLOSE = 1e-5  # embeddings of length 1, largest difference in float32
MOST_ERROR = 1.2  # times PyTorch's, in half precision


@dataclass(frozen=True)
class Task:
    """A model, and what it does again and again."""

    name: str
    dtype: str
    unit: str
    units: int
    """of `run`: sentences or tokens"""
    model: Any
    start: Callable[[], Any]
    """makes what `run` goes on from; not timed"""
    run: Callable[[Any], Any]
    """gives the answer"""
    differ: Callable[[Any, Any], tuple[bool, str]]
    """of PyTorch's answer and ours: whether that is too much, and how they differ"""


def encoding(dtype: str, batch: int, tokens: int, reader: Callable[[], Any]) -> Task:
    """Sentence embeddings: the mean of the last layer's tokens, of length 1."""
    import torch

    ids = torch.randint(1000, 30000, (batch, tokens), generator=torch.Generator().manual_seed(1))
    model = reader().to(getattr(torch, dtype))

    def embed(with_model: Any) -> Any:
        with torch.no_grad():
            last = with_model(ids).last_hidden_state
        return torch.nn.functional.normalize(last.mean(1).double(), dim=-1)

    def differ(theirs: Any, ours: Any) -> tuple[bool, str]:
        if dtype == "float32":
            most = float((ours - theirs).abs().max())
            return most > CLOSE, f"embeddings differ by at most {most:.1e}"
        exact = embed(reader())
        error, known = (float((x - exact).norm() / exact.norm()) for x in (ours, theirs))
        return error > MOST_ERROR * known, f"error {error:.2e}, {error / known:.2f}× torch's"

    name = f"encode {batch} x {tokens}"
    return Task(name, dtype, "sentences", batch, model, lambda: None, lambda _: embed(model), differ)


def minilm() -> Any:
    """The real model; ImportError says what to install."""
    from sightline.watching.minilm import load

    return load().model


LLAMA = {
    "hidden_size": 2048,
    "intermediate_size": 4096,
    "num_hidden_layers": 4,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 2048,
    "max_position_embeddings": 4096,
}


def writing(dtype: str, prompt: int, tokens: int, sizes: dict[str, int] | None = None) -> Task:
    """The likeliest token again and again, after a prompt, with a cache of keys and values."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**(sizes or LLAMA), eos_token_id=None, bos_token_id=1, pad_token_id=0)
    torch.manual_seed(0)
    model = LlamaForCausalLM._from_config(config, attn_implementation="sdpa").eval().to(getattr(torch, dtype))
    ids = torch.randint(3, config.vocab_size, (1, prompt), generator=torch.Generator().manual_seed(1))

    def start() -> Any:
        with torch.no_grad():
            return model(ids, use_cache=True, logits_to_keep=1)

    def run(read: Any) -> list[int]:
        found = []
        with torch.no_grad():
            for _ in range(tokens):
                last = read.logits[:, -1].argmax(-1, keepdim=True)
                found.append(int(last))
                read = model(last, past_key_values=read.past_key_values, use_cache=True)
        return found

    def differ(theirs: list[int], ours: list[int]) -> tuple[bool, str]:
        same = next((i for i, pair in enumerate(zip(theirs, ours, strict=True)) if len({*pair}) > 1), tokens)
        return dtype == "float32" and same < tokens, f"the first {same} of {tokens} tokens are the same"

    return Task(f"decode {tokens} after {prompt}", dtype, "tokens", tokens, model, start, run, differ)
