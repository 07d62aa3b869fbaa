"""Attention on the arrays in a file: what ran, how fast, how exactly.

The error it prints is measured each time, on rows sampled from this very output, against the reference.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.cli import arguments, show
from sightline.cli.check import Checked, check
from sightline.cli.described import asked
from sightline.cli.errors import CommandError, reason
from sightline.cli.files import check_writable, open_archive, write_array
from sightline.cli.inputs import Inputs, call_of, read_inputs
from sightline.cli.machine import plan_of, threads
from sightline.cli.running import Ran, attend
from sightline.cli.visible import visible_fraction

if TYPE_CHECKING:
    import argparse

    from sightline.plan import Plan
    from sightline.reference_call import Call

# Half the distance from 1 to the next number: what rounding the output to its type alone may cost.
ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def add_to(parser: argparse.ArgumentParser) -> None:
    """The words of this command."""
    arguments.add_file(parser, optional=False)
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write the result here: .npz or .safetensors"
    )
    arguments.add_arrays(parser)
    arguments.add_options(parser)
    running = parser.add_argument_group("how to compute")
    running.add_argument(
        "--precision",
        choices=("highest", "high", "default"),
        default="highest",
        help="of float32 products (default: highest)",
    )
    running.add_argument("--threads", type=arguments.threads, metavar="N", help="default: one per core")


def run(words: argparse.Namespace) -> int:
    """Reads, attends, checks, writes and tells."""
    archive = open_archive(words.file)
    if words.output is not None:
        check_writable(words.output, words.file)
    inputs = read_inputs(archive, words)
    call = call_of(inputs)
    with threads(words.threads):
        plan = plan_of(call)
        visible = visible_fraction(call, plan.block_rows, plan.tile_keys)
        show.title(f"attention on {words.file}")
        show.fields(asked(inputs))
        ran = _attended(inputs, call, plan.dense_flops * visible)
        show.fields(_ran(plan, visible, ran))
    show.fields([("error", _error(call, check(call, _heads_first(ran, call))))])
    if words.output is not None:
        remark = write_array(words.output, "output", ran.output)
        show.fields([("written", f"{words.output}" + (f" ({remark})" if remark else ""))])
    return 0


def _ran(plan: Plan, visible: float, ran: Ran) -> list[tuple[str, str]]:
    from sightline.cpu.threads import get_num_threads

    threads = plan.threads(get_num_threads())
    kernel = f"{plan.isa.name}, tiles of {plan.block_rows} queries × {plan.tile_keys} keys"
    took = show.seconds(ran.seconds)
    if ran.repeats:
        took += f"  (median of {ran.repeats}; the first took {show.seconds(ran.first)}, kernel included)"
    speed = plan.dense_flops * visible / ran.seconds / 1e9
    undefined = int(np.count_nonzero(np.isnan(ran.output).any(axis=-1)))
    warning = f"  (NaN in {undefined} of its rows)" if undefined else ""
    return [
        ("output", f"{show.dims(ran.output.shape)}  {ran.output.dtype}{warning}"),
        ("kernel", f"{kernel}, {threads} thread{'' if threads == 1 else 's'}"),
        ("visible", f"{visible:.1%} of the tiles"),
        ("time", took),
        ("speed", f"{speed:.3g} GFLOP/s, counting visible tiles only"),
    ]


def _error(call: Call, checked: Checked) -> str:
    dtype = call.problem.dtype
    if not checked.rows:
        return "nothing to check: the output is empty"
    return (
        f"{checked.error:.1e}  relative, worst of {checked.rows} rows against the reference "
        f"({dtype} rounds by {ROUNDING[dtype]:.1e})"
    )


def _heads_first(ran: Ran, call: Call) -> Any:
    from sightline.reference_call import heads_first

    return heads_first(ran.output, call.problem)


def _attended(inputs: Inputs, call: Call, flops: float) -> Ran:
    try:
        return attend(inputs, call, flops)
    except MemoryError:
        raise CommandError("not enough memory for the output of this call") from None
    except NotImplementedError as error:
        raise CommandError(reason(error)) from None
