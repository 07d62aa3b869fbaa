"""The function of a kernel that is called from outside, whatever program it is."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sightline.cpu import strips
from sightline.cpu.compile import ENTRY
from sightline.cpu.kinds import ADDRESS, INT
from sightline.cpu.workspace import run_offsets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel


@contextmanager
def entry(k: Kernel, addresses: int) -> Iterator[Function]:
    """Write it: `int64 attend(arguments, workspace, …)`, of so many addresses.

    A matrix unit's registers are set up for as long as it works.
    """
    name = "items" if k.key.terms else ENTRY
    with k.module.function(name, *[ADDRESS] * addresses, returns=INT) as work:
        yield work
    if not k.key.terms:
        return
    with k.module.function(ENTRY, *[ADDRESS] * addresses, returns=INT) as f:
        given = f.arguments()
        strips.configure(f, given[1] + run_offsets(k.key, k.isa)["config"])
        more = f.call(work, *given)
        strips.release(f)
        f.give(more)
