"""The peers: what each can do, and where the file that calls it at its best is found.

A peer is a function `prepare(case, threads) -> Prepared`. Before the clock starts it converts the
inputs to the library's favoured layout and allocates what can be. To add one: such a file, and a row here.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    import numpy as np

    from benchmarks.shapes import Shape

OURS = "sightline"
PROBE = "probe"


class Unsupported(Exception):  # noqa: N818 - an answer, not an error
    """This peer has no such case; the text says why."""


class Case(NamedTuple):
    """One call to prepare: a shape, a dtype's name, and the inputs (B, H, L, D) in that dtype."""

    shape: Shape
    dtype: str
    query: np.ndarray
    key: np.ndarray
    value: np.ndarray


class Prepared(NamedTuple):
    """`call()` runs attention once, to its end; `output()` is the last result as float64 (B, Hq, Lq, D).

    `gradients()`, where the call makes them, are dQ, dK and dV of the last one, likewise.
    """

    call: Callable[[], object]
    output: Callable[[], np.ndarray]
    gradients: Callable[[], list[np.ndarray]] | None = None


Prepare = Callable[[Case, int], Prepared]


@dataclass(frozen=True)
class Peer:
    """One row of the table of peers."""

    name: str
    where: str  # "file:function" in this folder
    library: str  # import name and distribution
    dtypes: tuple[str, ...] = ("float32", "bfloat16", "float16")
    environment: dict[str, str] = field(default_factory=dict)
    avx2: dict[str, str] | None = None  # environment that holds it to AVX2; None: nothing does

    def installed(self) -> bool:
        """Whether the library can be imported here."""
        return importlib.util.find_spec(self.library) is not None

    def version(self) -> str:
        """The installed version."""
        return importlib.metadata.version(self.library)

    def prepare(self) -> Prepare:
        """The function that prepares a case; imports the library."""
        module, function = self.where.split(":")
        return cast("Prepare", getattr(importlib.import_module(f"benchmarks.peers.{module}"), function))


_TORCH_DTYPES = ("float64", "float32", "bfloat16", "float16")
_TORCH_AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}
_ALL = [
    Peer(OURS, "ours:attention", "sightline", _TORCH_DTYPES, avx2={"SIGHTLINE_ISA": "avx2"}),
    Peer(f"{OURS}-high", "ours:high", "sightline", ("float32",), avx2={"SIGHTLINE_ISA": "avx2"}),
    Peer("torch", "pytorch:sdpa", "torch", _TORCH_DTYPES, avx2=_TORCH_AVX2),
    Peer("torch-additive", "pytorch:sdpa_additive", "torch", _TORCH_DTYPES, avx2=_TORCH_AVX2),
    Peer("torch-folded", "pytorch:sdpa_folded", "torch", _TORCH_DTYPES, avx2=_TORCH_AVX2),
    Peer("ort-mha", "onnx_runtime:multi_head", "onnxruntime", ("float32", "float16")),
    Peer("ort-attention", "onnx_runtime:standard", "onnxruntime", ("float32", "float16")),
    Peer("openvino", "open_vino:sdpa", "openvino", avx2={"ONEDNN_MAX_CPU_ISA": "AVX2"}),
    Peer("jax", "jax_xla:attention", "jax", ("float32", "bfloat16"), {"JAX_PLATFORMS": "cpu"}),
]
PEERS = {peer.name: peer for peer in _ALL}
_STEP = ("float32", "bfloat16", "float16", "float64")
STEPS = {
    peer.name: peer
    for peer in (
        Peer("sightline step", "training:ours", OURS, _STEP),
        Peer("torch step", "training:theirs", "torch", _STEP),
        Peer("sightline forward", "training:ours_forward", OURS, _STEP),
        Peer("torch forward", "training:theirs_forward", "torch", _STEP),
    )
}
"""Forward and backward, and the forward half of it, followed by PyTorch's autograd."""
PROBES = {PROBE: Peer(PROBE, "probe:matmul", "numpy", ("float32",))}
