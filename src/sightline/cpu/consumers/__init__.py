"""What the second pass can make of the weights, one file each; all have the interface of `consumer.Consumer`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cpu.consumers.diagonals import Diagonals
from sightline.cpu.consumers.pooled import Pooled
from sightline.cpu.consumers.received import Received, Visible
from sightline.cpu.consumers.top_keys import TopKeys
from sightline.cpu.consumers.weight_rows import WeightRows

if TYPE_CHECKING:
    from sightline.cpu.consumers.consumer import Consumer
    from sightline.cpu.kernel import Kernel

_CONSUMERS: tuple[tuple[str, type[Consumer]], ...] = (
    ("visible", Visible),
    ("top_keys", TopKeys),
    ("received", Received),
    ("received_max", Received),
    ("pooled", Pooled),
    ("diagonals", Diagonals),
    ("rows", WeightRows),
)


def chosen_consumers(k: Kernel) -> list[Consumer]:
    """Those that the kernel's key asks for."""
    return [consumer(k) for name, consumer in _CONSUMERS if name in k.key.see]
