"""What one thread of a team does: its share of a call's items, slice by slice.

    share(state):  me ← the thread's number;  until a slice says that nothing is left:  kernel(its memory)

An OpenMP runtime calls it in all of its threads at once. It returns after some slices all the same: Python, which
waits meanwhile, is to hear of Ctrl-C.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu.compile import ENTRY
from sightline.cpu.emit import Module
from sightline.cpu.kinds import ADDRESS, I32, INT
from sightline.cpu.team import MEMBERS, STATE

if TYPE_CHECKING:
    from sightline.cpu.isa import Isa


def generate(addresses: int, isa: Isa) -> str:
    """LLVM IR, for kernels that are given so many addresses."""
    module = Module(isa)
    with module.function(ENTRY, ADDRESS) as f:
        (state,) = f.arguments()
        at = {name: state + 8 * slot for slot, name in enumerate(STATE)}
        me = f.call_at(at["number"].follow(), I32).to(INT)
        memory = at["workspace"].follow() + me * at["workspace_bytes"].load(INT)
        sums = at["sums"].follow() + me * at["sums_bytes"].load(INT)
        kernel, given = at["kernel"].follow(), (at["arguments"].follow(), memory, sums)[:addresses]
        more = f.variable(f.value(1))
        with f.loop(0, at["slices"].load(INT)), f.when(more.value != 0):
            more.value = f.call_at(kernel, INT, *given)
        (state + 8 * MEMBERS + me * 8).store(more.value)
    return str(module)
