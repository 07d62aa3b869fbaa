"""ONNX's Attention operator (opset 23 to 25) by way of our door: what its inputs and attributes are here.

| ONNX | here |
|---|---|
| 3-D inputs (B, L, H·D) with `q_num_heads`, `kv_num_heads` | (B, H, L, D), a view |
| `past_key`, `past_value` | in front of key and value; `query_offset` is their length |
| `nonpad_kv_seqlen` | `key_lengths`, and `query_offset` less Lq: the last query stands at the last key |
| `attn_mask`, bool or float | `mask` or `bias`, with False or −∞ for the keys that it is too short for |
| `left_window_size`, `right_window_size`, −1 for none | `window`, None for none |
| `softcap`, 0 for none | None for none |
| `softmax_precision` | nothing: here it is at least float32, and more would not show in the results |
| `qk_matmul_output_mode` 0, 1, 2, 3 | the reference's `scaled`, `capped`, `masked`, `weights` |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from sightline import reference

Array: TypeAlias = NDArray[Any]
Attend: TypeAlias = Callable[..., Array]
"""The door, or whatever has its arguments and gives the output in the inputs' type."""

INPUTS = ("Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen")
OUTPUTS = ("Y", "present_key", "present_value", "qk_matmul_output")
STEPS = ("scaled", "capped", "masked", "weights")  # by qk_matmul_output_mode


def run_node(node: onnx.NodeProto, arrays: list[Array], attend: Attend) -> list[Array]:
    """Run an Attention node on its present inputs, in order; its present outputs, in order."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    queue = iter(arrays)
    given = {name: next(queue) for name, use in zip(INPUTS, node.input, strict=False) if use}
    query = split_heads(given["Q"], attributes.get("q_num_heads", 1))
    key = append(given.get("past_key"), split_heads(given["K"], attributes.get("kv_num_heads", 1)))
    value = append(given.get("past_value"), split_heads(given["V"], attributes.get("kv_num_heads", 1)))
    options = options_of(given, attributes, query.shape[-2], key.shape[-2])

    output = attend(query, key, value, **options)
    results = {"Y": join_heads(output, given["Q"].ndim), "present_key": key, "present_value": value}
    if len(node.output) == len(OUTPUTS):
        steps = reference.attention(query, key, value, **options)
        step = STEPS[attributes.get("qk_matmul_output_mode", 0)]
        results["qk_matmul_output"] = getattr(steps, step).astype(query.dtype)
    return [results[name] for name, use in zip(OUTPUTS, node.output, strict=False) if use]


def options_of(
    given: dict[str, Array], attributes: dict[str, Any], queries: int, keys: int
) -> dict[str, Any]:
    """The door's options."""
    window = tuple(attributes.get(f"{side}_window_size", -1) for side in ("left", "right"))
    options: dict[str, Any] = {
        "causal": bool(attributes.get("is_causal", 0)),
        "window": tuple(None if size < 0 else size for size in window),
        "query_offset": given["past_key"].shape[-2] if "past_key" in given else 0,
        "scale": attributes.get("scale"),
        "softcap": attributes.get("softcap") or None,
    }
    if "nonpad_kv_seqlen" in given:
        options["key_lengths"] = given["nonpad_kv_seqlen"]
        options["query_offset"] = given["nonpad_kv_seqlen"] - queries
    if "attn_mask" in given:
        mask = given["attn_mask"]
        options["mask" if mask.dtype == bool else "bias"] = lengthened(mask, keys)
    return options


def split_heads(x: Array, heads: int) -> Array:
    """(B, L, H·D) as (B, H, L, D), as 4-D inputs are already."""
    if x.ndim == 4:
        return x
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def join_heads(x: Array, rank: int) -> Array:
    """(B, H, L, D) in the rank of the inputs."""
    return x if rank == 4 else x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


def append(past: Array | None, new: Array) -> Array:
    """The keys or values so far, then the new ones."""
    return new if past is None else np.concatenate([past, new], axis=2)


def lengthened(mask: Array, keys: int) -> Array:
    """Keys that the mask is too short for are hidden."""
    missing = np.full((*mask.shape[:-1], keys - mask.shape[-1]), False if mask.dtype == bool else -np.inf)
    return np.concatenate([mask, missing.astype(mask.dtype)], axis=-1)
