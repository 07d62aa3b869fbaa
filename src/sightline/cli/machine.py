"""What a call runs on: its plan for this machine, and how many threads it may use."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from sightline.cli.errors import CommandError, reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sightline.plan import Plan
    from sightline.reference_call import Call


def plan_of(call: Call) -> Plan:
    """How the call will be done; an instruction set that this machine lacks is a matter of one line."""
    from sightline.cpu.isa import chosen
    from sightline.plan import plan

    try:
        isa = chosen()
    except (RuntimeError, ValueError) as error:
        raise CommandError(reason(error)) from None
    return plan(call.problem, isa)


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """This many threads for the block, and as many as before after it."""
    from sightline.cpu.threads import get_num_threads, set_num_threads

    try:
        before = get_num_threads()
        if count is not None:
            set_num_threads(count)
    except ValueError as error:  # more than there can be, or SIGHTLINE_NUM_THREADS is no number
        raise CommandError(reason(error)) from None
    try:
        yield
    finally:
        if count is not None:
            set_num_threads(before)
