"""From a pass to running kernels: the backward program's arguments, and what a thread's sums take."""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, Any

from sightline.cpu import compile as compiler
from sightline.cpu import threads
from sightline.cpu.arguments import BATCH_COLUMNS, SLOT
from sightline.cpu.signature import batches, template
from sightline.cpu.work import Work, do
from sightline.cpu.workspace import run_bytes
from sightline.problem import sequence_ints

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sightline.arrays import Spec, Workers
    from sightline.cpu.isa import Isa
    from sightline.kernel_key import KernelKey
    from sightline.passes import Pass

STATE_BYTES = 64  # as key_sums has it
_PER_SEQUENCE = {"query_offset": "position", "key_lengths": "length"}


def differentiate(
    made: Pass,
    specs: dict[str, Spec],
    numbers: dict[str, int],
    per_sequence: dict[str, object],
    workers: Workers | None,
) -> None:
    """Run a pass.

    Args:
        made: what to run.
        specs: of every array with strides, (*batch, heads, length, …).
        numbers: by the name of their slots, above all the address of every array, which the caller keeps alive.
        per_sequence: query_offset and key_lengths, as the door was given them.
        workers: the threads that the arrays' framework computes with.
    """
    if not made.items:
        return
    block = _arguments(made, specs)
    for name, number in numbers.items():
        block[SLOT[name]] = number
    table = _sequences(made, specs, per_sequence)
    block[SLOT["batches"]] = table.ctypes.data
    key, isa = made.plan.kernel, made.plan.isa
    together = min(key.most_sharing, made.units) if key.terms else 1
    kernel = _loaded(made.program, key, isa)
    work = Work(kernel, block, run_bytes(key, isa, together), table, sums_bytes(made))
    do(work, made.threads(threads.MOST), workers)


def _arguments(made: Pass, specs: dict[str, Spec]) -> ctypes.Array[ctypes.c_int64]:
    """The kernel's arguments but for addresses."""
    summed = {name: spec for name, spec in specs.items() if name in {"d_key", "d_value"}}
    block = template(made.plan, {name: spec for name, spec in specs.items() if name not in summed})
    values = {
        "items": made.items,
        "slice_items": made.slice_items,
        "units": made.units,
        "ranges": made.ranges,
        "range_keys": made.range_keys,
    }
    for name, spec in summed.items():
        values[f"{name}_head"], values[f"{name}_row"] = spec.strides[-3], spec.strides[-2]
    for name, value in values.items():
        block[SLOT[name]] = value
    return block


def _sequences(made: Pass, specs: dict[str, Spec], per_sequence: dict[str, object]) -> NDArray[np.int64]:
    """One row per sequence, as the forward program has them."""
    problem = made.plan.problem
    table = batches(made.plan, specs, problem.keys)
    for name, value in per_sequence.items():
        if value is not None:
            table[:, BATCH_COLUMNS.index(_PER_SEQUENCE[name])] = sequence_ints(value, name, problem).reshape(
                -1
            )
    return table


@functools.cache
def _loaded(program: str, key: KernelKey, isa: Isa) -> Any:
    address = compiler.program(program, key, isa)
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(address)


def sums_bytes(made: Pass) -> int:
    """Working memory for a run of keys' sums: those put aside, and those at hand."""
    key, lanes = made.plan.kernel, made.plan.isa.lanes(made.plan.kernel.element_bytes)
    dims = {"key": key.dim, "value": key.value_dim}
    columns = sum(-(-size // lanes) * lanes for name, size in dims.items() if name in key.gradients)
    kept = 1 if key.terms else 2  # a run of blocks on a matrix unit puts its sums aside tile by tile
    sums = kept * made.range_keys * columns * key.element_bytes if made.ranges and not made.parts else 0
    return STATE_BYTES + -(-sums // 64) * 64
