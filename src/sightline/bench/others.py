"""Who can make the same call here: each as its documentation says, its inputs ready before the clock starts.

An entry prepares a call: it gives a function that makes it, and one that gives the last result as float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.attention import attention
from sightline.cpu.threads import set_num_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from sightline.bench.shapes import Array, Shape

OURS = "sightline"


@dataclass(frozen=True, slots=True)
class Ready:
    """A call that only has to be made."""

    call: Callable[[], object]
    result: Callable[[], Array]


@dataclass(frozen=True, slots=True)
class Library:
    """One implementation of attention."""

    needs: tuple[str, ...]
    dtypes: tuple[str, ...]
    prepare: Callable[[Shape, tuple[Array, Array, Array], int], Ready | None]
    """None where it has no such call."""

    @property
    def installed(self) -> bool:
        """Whether it can be imported."""
        return all(find_spec(name) is not None for name in self.needs)


def _ours(shape: Shape, inputs: tuple[Array, Array, Array], threads: int) -> Ready:
    set_num_threads(threads)
    out = np.empty(inputs[0].shape, inputs[0].dtype)
    return Ready(
        lambda: attention(*inputs, causal=shape.causal, out=out),
        lambda: out.astype(np.float64),
    )


def _torch(shape: Shape, inputs: tuple[Array, Array, Array], threads: int) -> Ready:
    """scaled_dot_product_attention; one query's heads of a group as rows, so that keys are read once."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention as sdpa

    torch.set_num_threads(threads)
    kind = getattr(torch, inputs[0].dtype.name)
    query, key, value = (torch.from_numpy(x.astype(np.float32)).to(kind) for x in inputs)
    folded = shape.queries == 1 and shape.group > 1
    if folded:
        query = query.view(shape.batch, shape.kv_heads, shape.group, shape.dim)
    last: list[Any] = []

    def call() -> None:
        with torch.no_grad():
            last[:] = [
                sdpa(query, key, value, is_causal=shape.causal, enable_gqa=not folded and shape.group > 1)
            ]

    return Ready(call, lambda: last[0].float().numpy().reshape(inputs[0].shape).astype(np.float64))


def _onnxruntime(shape: Shape, inputs: tuple[Array, Array, Array], threads: int) -> Ready | None:
    """MultiHeadAttention in its own layout, inputs and output bound."""
    import onnxruntime as ort
    from onnx import TensorProto, helper

    if shape.group > 1:
        return None
    packed = [
        np.ascontiguousarray(x.swapaxes(1, 2)).reshape(shape.batch, x.shape[2], shape.heads * shape.dim)
        for x in inputs
    ]
    element = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}[inputs[0].dtype.name]
    node = helper.make_node(
        "MultiHeadAttention", ["q", "k", "v"], ["y"], domain="com.microsoft",
        num_heads=shape.heads, unidirectional=int(shape.causal),
    )  # fmt: skip
    infos = [
        helper.make_tensor_value_info(name, element, x.shape)
        for name, x in zip("qkvy", (*packed, packed[0]), strict=True)
    ]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "attention", infos[:3], infos[3:])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding, out = session.io_binding(), ort.OrtValue.ortvalue_from_numpy(np.zeros_like(packed[0]))
    values = [ort.OrtValue.ortvalue_from_numpy(x) for x in packed]  # the binding does not keep them
    for name, value in zip("qkv", values, strict=True):
        binding.bind_ortvalue_input(name, value)
    binding.bind_ortvalue_output("y", out)

    def call(_keep: object = values) -> None:
        session.run_with_iobinding(binding)

    def result() -> Array:
        made: Array = out.numpy().reshape(shape.batch, shape.queries, shape.heads, shape.dim)
        return made.swapaxes(1, 2).astype(np.float64)

    return Ready(call, result)


def _openvino(shape: Shape, inputs: tuple[Array, Array, Array], threads: int) -> Ready | None:
    """ScaledDotProductAttention on the CPU plugin, asked for float32: left alone it takes bfloat16."""
    import openvino as ov
    import openvino.opset13 as op
    from openvino import properties
    from openvino.properties import hint

    if shape.group > 1:
        return None
    parameters = [op.parameter(list(x.shape), ov.Type.f32) for x in inputs]
    attend = op.scaled_dot_product_attention(*parameters, causal=shape.causal)
    settings = {
        properties.inference_num_threads(): threads,
        properties.num_streams(): 1,
        hint.inference_precision(): ov.Type.f32,
    }
    model = ov.Model([op.result(attend)], parameters, "attention")
    request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
    tensors = [ov.Tensor(x) for x in inputs]
    for index, tensor in enumerate(tensors):
        request.set_input_tensor(index, tensor)

    def call(_keep: object = tensors) -> None:
        request.infer()

    return Ready(call, lambda: np.asarray(request.get_output_tensor().data, np.float64))


LIBRARIES = {
    OURS: Library((), ("float32", "bfloat16", "float16"), _ours),
    "torch": Library(("torch",), ("float32", "bfloat16", "float16"), _torch),
    "onnxruntime": Library(("onnxruntime", "onnx"), ("float32", "float16"), _onnxruntime),
    "openvino": Library(("openvino",), ("float32",), _openvino),
}
