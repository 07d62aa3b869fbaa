"""Attention from the weights in full, which second derivatives go through, says the same as the kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch")

import sightline  # noqa: E402
from cases import Case, build  # noqa: E402
from conformance import CASES  # noqa: E402
from sightline.torch import dense  # noqa: E402
from sightline.torch.attention import as_call  # noqa: E402

# NaN or Inf that some queries see and others do not: 0 · NaN is NaN here, as docs/pytorch.md says.
LEAKS = {
    *("nan-in-the-future", "nan-before-window", "nan-behind-random-mask", "nan-value-behind-bias"),
    *("inf-value-behind-bias", "nan-value-seen", "inf-value-seen"),
}


def as_tensor(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return torch.from_numpy(np.array(x.astype(np.float64) if x.dtype.name == "bfloat16" else x))
    return x


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name not in LEAKS], ids=lambda case: case.name
)
def test_it_is_the_kernels_answer(case: Case) -> None:
    inputs = build(case, "float64")
    options = {name: as_tensor(x) for name, x in inputs.options.items()}
    arrays = [as_tensor(x) for x in (inputs.query, inputs.key, inputs.value)]
    want, seen = sightline.attention(*arrays, **options, see=("lse",))
    output, lse, weights = dense.attention(as_call(*arrays, **options))
    torch.testing.assert_close(output, want, rtol=1e-9, atol=1e-12, equal_nan=True)
    torch.testing.assert_close(lse, seen.lse, rtol=1e-9, atol=1e-12, equal_nan=True)
    rows_first = options.get("layout") == "BLHD" and arrays[1].dim() > 2
    assert weights.shape == (*lse.shape, arrays[1].shape[-3 if rows_first else -2])


def test_every_leak_is_a_case() -> None:
    assert {case.name for case in CASES} > LEAKS
