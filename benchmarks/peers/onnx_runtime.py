"""ONNX Runtime on one-node models: its own MultiHeadAttention, and the standard Attention operator.

Inputs and output are bound once, so that a call copies nothing. ONNX Runtime's CPU provider has no bfloat16
kernel for either, and wants masks as numbers to add.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from benchmarks.peers import Case, Prepared, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable

_ELEMENT = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}


def multi_head(case: Case, threads: int) -> Prepared:
    """`com.microsoft.MultiHeadAttention` in its own layout, (B, L, H·D)."""
    shape = case.shape
    if shape.group > 1:
        raise Unsupported("MultiHeadAttention has no grouped heads")

    def packed(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array.transpose(0, 2, 1, 3)).reshape(shape.batch, array.shape[2], -1)

    def unpacked(output: np.ndarray) -> np.ndarray:
        return output.reshape(shape.batch, shape.queries, shape.heads, shape.dim).transpose(0, 2, 1, 3)

    feeds = {"q": packed(case.query), "k": packed(case.key), "v": packed(case.value)}
    names = ["q", "k", "v"]
    if shape.needs_dense:
        feeds["mask"] = _additive(case)[None, None]
        names += ["", "", "mask"]
    node = helper.make_node(
        "MultiHeadAttention",
        names,
        ["y"],
        domain="com.microsoft",
        num_heads=shape.heads,
        unidirectional=int(shape.causal and not shape.needs_dense),
    )
    return _bound(case, threads, node, feeds, unpacked)


def standard(case: Case, threads: int) -> Prepared:
    """The ONNX operator `Attention` (opset 23) on 4-D inputs."""
    shape = case.shape
    feeds = {"q": case.query, "k": case.key, "v": case.value}
    if shape.needs_dense:
        feeds["mask"] = _additive(case)
    causal = int(shape.causal and not shape.needs_dense)
    node = helper.make_node("Attention", list(feeds), ["y"], is_causal=causal)
    return _bound(case, threads, node, feeds, lambda output: output)


def _additive(case: Case) -> np.ndarray:
    return np.where(case.shape.allowed(), 0.0, -np.inf).astype(case.query.dtype)


def _bound(
    case: Case,
    threads: int,
    node: Any,
    feeds: dict[str, np.ndarray],
    shaped: Callable[[np.ndarray], np.ndarray],
) -> Prepared:
    element = _ELEMENT[case.dtype]
    inputs = [
        helper.make_tensor_value_info(name, element, list(array.shape)) for name, array in feeds.items()
    ]
    output = helper.make_tensor_value_info("y", element, list(feeds["q"].shape))
    session = _session(helper.make_graph([node], "attention", inputs, [output]), threads)
    binding = session.io_binding()
    values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in feeds.items()}
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    result = ort.OrtValue.ortvalue_from_shape_and_type(list(feeds["q"].shape), case.query.dtype)
    binding.bind_ortvalue_output("y", result)

    def call(keep: object = (values, feeds)) -> None:  # `keep`: the binding does not own what it points to
        session.run_with_iobinding(binding)

    return Prepared(call, lambda: shaped(result.numpy().astype(np.float64)))


def _session(graph: Any, threads: int) -> Any:
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=11)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
