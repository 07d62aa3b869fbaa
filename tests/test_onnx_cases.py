"""ONNX's own test cases for its Attention operator, by the reference and by the door."""

from __future__ import annotations

import functools
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import sightline
from onnx_adapter import Array, Attend, lengthened, run_node
from sightline import reference


@functools.cache
def official_cases() -> dict[str, Any]:
    """Every case whose model is one Attention node (the others spell the operator out in simpler ones)."""
    from onnx.backend.test.case import node

    with np.errstate(all="ignore"):
        from onnx.backend.test.case.node import attention  # noqa: F401  # writes its cases into `node`
    singles = (case for case in node._NodeTestCases if len(case.model.graph.node) == 1)
    return {case.name: case for case in singles if case.model.graph.node[0].op_type == "Attention"}


def by_reference(query: Array, key: Array, value: Array, **options: Any) -> Array:
    """The reference as a backend."""
    return reference.attention(query, key, value, **options).output.astype(query.dtype)


BACKENDS: dict[str, Attend] = {"reference": by_reference, "door": sightline.attention}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", official_cases())
def test_official_case(name: str, backend: str) -> None:
    case = official_cases()[name]
    ((inputs, expected),) = case.data_sets
    results = run_node(case.model.graph.node[0], inputs, BACKENDS[backend])
    assert len(results) == len(expected)
    for got, want in zip(results, expected, strict=True):
        compare(got, want, case.rtol, case.atol)


def compare(got: Array, want: Array, rtol: float, atol: float) -> None:
    """As ONNX's own test runner compares: two units in the last place for bfloat16."""
    assert got.dtype == want.dtype
    if want.dtype == ml_dtypes.bfloat16:
        got, want, rtol = got.astype(np.float32), want.astype(np.float32), 2**-6
    np.testing.assert_allclose(got, want, rtol=rtol, atol=atol, strict=True)


def test_every_kind_of_case_is_there() -> None:
    cases = official_cases().values()
    nodes = [case.model.graph.node[0] for case in cases]
    attributes = {a.name for node in nodes for a in node.attribute}
    assert len(nodes) >= 70
    assert {case.model.opset_import[0].version for case in cases} >= {23, 24}
    assert attributes >= {
        "is_causal",
        "scale",
        "softcap",
        "q_num_heads",
        "qk_matmul_output_mode",
        "softmax_precision",
    }
    assert {len([use for use in node.input if use]) for node in nodes} >= {3, 4, 5, 6}


def test_a_mask_too_short_for_the_keys_hides_the_rest() -> None:
    """The official cases hide them by `nonpad_kv_seqlen` as well."""
    np.testing.assert_array_equal(lengthened(np.array([[True, False]]), 3), [[True, False, False]])
    np.testing.assert_array_equal(lengthened(np.array([[1.5]]), 3), [[1.5, -np.inf, -np.inf]])
