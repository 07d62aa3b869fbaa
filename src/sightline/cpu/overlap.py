"""Whether arrays share memory: a kernel that writes where it still has to read would give wrong numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import arrays
from sightline.kernel_key import SIZES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sightline.arrays import Spec


def overlaps_itself(out: Spec) -> bool:
    """Whether two elements share memory: whether an axis steps less far than the axes inside it reach."""
    if 0 in out.shape:
        return False
    reach = SIZES[out.dtype]
    for stride, n in sorted((abs(s), n) for s, n in zip(out.strides, out.shape, strict=True) if n > 1):
        if stride < reach:
            return True
        reach += (n - 1) * stride
    return False


def refuse_overlap(out: object, given: Mapping[str, object], specs: Mapping[str, Spec]) -> None:
    """The output has memory of its own, or this is a mistake; specs: of all that is given, and of `out`."""
    start, end = _extent(arrays.address(out), specs["out"])
    for name, x in given.items():
        if x is not None:
            first, last = _extent(arrays.address(x), specs[name])
            if start < last and first < end and _share_memory(out, x):
                raise ValueError(
                    f"out shares memory with {name}; expected memory of its own; "
                    f"try out=np.empty_like(...), or leave out=None."
                )


def _share_memory(out: object, x: object) -> bool:
    """Whether an element of one lies in the other: arrays whose extents cross may still interleave."""
    looks = [arrays.to_numpy(arrays.view(array, "out")) for array in (out, x)]
    try:
        shared: Any = np.shares_memory  # its type information knows only two of the values of max_work
        return bool(shared(*looks, max_work=10_000))
    except np.exceptions.TooHardError:
        return True


def _extent(address: int, spec: Spec) -> tuple[int, int]:
    """The bytes an array lies in, from first to one past last."""
    if 0 in spec.shape:
        return address, address
    reach = [(n - 1) * stride for n, stride in zip(spec.shape, spec.strides, strict=True)]
    size = SIZES.get(spec.dtype, 1)  # a mask has bytes
    return address + sum(min(r, 0) for r in reach), address + sum(max(r, 0) for r in reach) + size
