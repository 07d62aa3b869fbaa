"""The interface that every consumer of the second pass keeps, and where a block stands when it is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sightline.cpu.emit import Function
    from sightline.cpu.kernel import Kernel
    from sightline.cpu.rows import Rows
    from sightline.cpu.values import Pointer, Value


@dataclass
class Here:
    """A block's place among the results."""

    item: Value  # the work item, which has sums of its own
    head: Value  # number of the (sequence, head)
    run: Value  # number of the item within its head
    first: Value  # number of the block's first row among the head's rows
    first_of_run: Value  # … and among the item's


class Consumer(Protocol):
    """Written into a kernel: `begin` and `end` around every block, `tile` for every tile between them."""

    of_weights: bool
    """whether it takes the weights; else it takes the scores, before them"""
    tile: Function
    """Parameters: arguments, workspace, first key of the tile, keys in it, vectors of rows."""

    def __init__(self, k: Kernel) -> None: ...

    def begin(self, f: Function, a: Pointer, w: Pointer, rows: Rows, here: Here) -> None:
        """Before a block's first tile."""

    def end(self, f: Function, a: Pointer, w: Pointer, rows: Rows, here: Here) -> None:
        """After its last."""
