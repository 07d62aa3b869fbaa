"""What an array is to us: a shape, byte strides, a type name and an address, whoever owns the memory."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Spec(NamedTuple):
    """An array's form without its memory: hashable, so it can key plans and compiled kernels."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """In bytes, one per dimension; zero and negative strides are allowed."""
    dtype: str
    """NumPy's name for the type: "float32", "bfloat16", "bool", "int64", …"""


class View(NamedTuple):
    """Memory that somebody else owns, seen without copying it."""

    spec: Spec
    address: int
    writable: bool
    owner: object
    """Whatever keeps the memory alive: hold it for as long as the address is in use."""


def view(x: object, name: str) -> View:
    """Look at `x` without copying; `name` is the argument's name for the error messages."""
    if isinstance(x, np.ndarray):
        spec = Spec(x.shape, x.strides, x.dtype.name)
        return View(spec, x.__array_interface__["data"][0], x.flags.writeable, x)
    raise TypeError(
        f"{name} is a {type(x).__name__}, which is not an array sightline can read; try np.asarray({name})."
    )
