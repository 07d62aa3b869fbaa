"""As `fenced.py`, for the backward kernels: usage python fenced_gradients.py DTYPE."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

import matrix_unit
import sightline
from cases import DTYPES, Case, build
from fenced import CANARY, CASES, Fenced, fenced, workspace
from sightline import arrays
from sightline.cpu import work
from sightline.passes import GRADIENTS

if TYPE_CHECKING:
    from cases import Array

RUN = (
    "one-key",
    "grouped",
    "key-lengths",
    "odd-dims",
    "causal-offset",
    "mask",
    "nan-behind-mask",
    "bias",
    "everything",
)


def gradients(case: Case, dtype: str, *, at_end: bool) -> str:
    """Run the case between fences and on plain memory; what is wrong, in words, if anything."""
    inputs = build(case, dtype)
    options: dict[str, Any] = {name: x for name, x in inputs.options.items() if name != "see"}
    given = [inputs.query, inputs.key, inputs.value]
    out, seen = sightline.attention(*given, **options, see=("lse",))
    given += [out, seen.lse, np.random.default_rng(0).standard_normal(out.shape).astype(out.dtype)]
    wanted = [name for name in GRADIENTS if name in {"query", "key", "value", *options}]
    plain = sightline.attention_vjp(*given, grad_lse=seen.lse, wanted=wanted, **options)

    moved: list[Any] = [fenced(x, at_end=at_end)[0] for x in given]
    over: dict[str, Any] = {
        name: fenced(options[name], at_end=at_end)[0] for name in ("mask", "bias") if name in options
    }
    written: list[Fenced] = []

    def empty_like(_: object, shape: tuple[int, ...], dtype: str) -> Array:
        made, fence = fenced(np.full(shape, 77, DTYPES[dtype]), at_end=at_end, writable=True)
        written.append(fence)
        return made

    def zeros(size: int) -> Array:
        fence = Fenced(size, at_end=True)
        made: Array = np.frombuffer(fence.memory, np.uint8, size, fence.offset)
        made[:] = 0
        return made

    with (
        mock.patch.object(work, "workspace", workspace),
        mock.patch.object(work, "zeros", zeros),
        mock.patch.object(arrays, "empty_like", empty_like),
    ):
        got = sightline.attention_vjp(*moved, grad_lse=moved[4], wanted=wanted, **options | over)
    if any(set(fence.canaries()) - {CANARY} for fence in written):
        return "the kernel wrote beside a gradient"
    same = all(
        (a is None and b is None) or np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(got, plain, strict=True)
    )
    return "" if same else "the answer differs from that on plain memory"


def main(dtype: str) -> int:
    """All cases; the number that went wrong."""
    sightline.set_num_threads(1)
    wrong = 0
    for case in (case for case in CASES if case.name in RUN):
        for at_end in (True, False):
            print(f"{case.name}, fence {'behind' if at_end else 'before'}", flush=True)
            trouble = gradients(case, dtype, at_end=at_end)
            if trouble:
                print(f"  {trouble}", flush=True)
                wrong += 1
    return wrong


if __name__ == "__main__":
    matrix_unit.stand_in()
    sys.exit(min(main(sys.argv[1]), 1))
