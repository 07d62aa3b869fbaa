"""OpenVINO's ScaledDotProductAttention on the CPU plugin: tensors bound, in the inputs' own precision.

A processor without float16 arithmetic would have the plugin compute float16 in bfloat16, at bfloat16's error;
there it is asked for float32, as any user who cares for the answer would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import openvino as ov
import openvino.opset13 as op
from openvino import properties
from openvino.properties import hint

from benchmarks.peers import Case, Prepared

if TYPE_CHECKING:
    from benchmarks.shapes import Shape

_ELEMENT = {"float32": ov.Type.f32, "bfloat16": ov.Type.bf16, "float16": ov.Type.f16}
# Finite, and large enough that the weight underflows to 0: the plugin's softmax is not safe with −inf.
_MASKED = {"float32": -1e30, "bfloat16": -1e30, "float16": -1e4}


def sdpa(case: Case, threads: int) -> Prepared:
    """Typed parameters, one latency stream; grouped heads in the form exported language models have."""
    shape, element = case.shape, _ELEMENT[case.dtype]
    arrays = [case.query, case.key, case.value]
    if shape.needs_dense:
        allowed = shape.allowed()[None, None]
        arrays.append(np.where(allowed, 0.0, _MASKED[case.dtype]).astype(case.query.dtype))
    parameters = [op.parameter(list(array.shape), element) for array in arrays]
    model = ov.Model([op.result(_graph(shape, parameters))], parameters, "attention")
    request = _compiled(model, element, threads).create_infer_request()
    tensors = [_tensor(array, element) for array in arrays]
    for index, tensor in enumerate(tensors):
        request.set_input_tensor(index, tensor)
    output = ov.Tensor(element, ov.Shape(list(case.query.shape)))
    request.set_output_tensor(output)

    def call(keep: object = tensors) -> None:  # `keep`: the request does not own what it points to
        request.infer()

    def result() -> np.ndarray:
        data = np.asarray(output.data)
        if case.dtype == "bfloat16":
            data = data.view(np.uint16).view(ml_dtypes.bfloat16)
        return data.astype(np.float64)

    return Prepared(call, result)


def _graph(shape: Shape, parameters: list[Any]) -> Any:
    query, key, value = parameters[:3]
    if shape.queries == 1 and shape.group > 1:  # grouped decode: heads become query rows, a free reshape
        rows = _reshape(query, shape.batch, shape.kv_heads, shape.group, shape.dim)
        folded = op.scaled_dot_product_attention(rows, key, value, causal=False)
        return _reshape(folded, shape.batch, shape.heads, 1, shape.dim)
    if shape.group > 1:
        key, value = _repeated(shape, key), _repeated(shape, value)
    if shape.needs_dense:
        return op.scaled_dot_product_attention(query, key, value, parameters[3])
    return op.scaled_dot_product_attention(query, key, value, causal=shape.causal)


def _repeated(shape: Shape, array: Any) -> Any:
    """(B, Hkv, Lk, D) → (B, Hq, Lk, D)."""
    wide = op.unsqueeze(array, op.constant(np.array([2], np.int64)))
    sizes = [shape.batch, shape.kv_heads, shape.group, shape.keys, shape.dim]
    wide = op.broadcast(wide, op.constant(np.array(sizes, np.int64)))
    return _reshape(wide, shape.batch, shape.heads, shape.keys, shape.dim)


def _reshape(array: Any, *sizes: int) -> Any:
    return op.reshape(array, op.constant(np.array(sizes, np.int64)), special_zero=False)


def _compiled(model: Any, element: Any, threads: int) -> Any:
    core = ov.Core()
    native = element != ov.Type.f16 or "FP16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    settings = {
        properties.inference_num_threads(): threads,
        properties.num_streams(): 1,
        hint.inference_precision(): element if native else ov.Type.f32,
        hint.performance_mode(): hint.PerformanceMode.LATENCY,
    }
    return core.compile_model(model, "CPU", settings)


def _tensor(array: np.ndarray, element: Any) -> Any:
    tensor = ov.Tensor(element, ov.Shape(list(array.shape)))
    if array.dtype == ml_dtypes.bfloat16:
        tensor.data.view(np.uint16)[...] = array.view(np.uint16)
    else:
        tensor.data[...] = array
    return tensor
