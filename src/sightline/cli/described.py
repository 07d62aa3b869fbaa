"""What was asked for, in words: the arrays and the options of one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.cli import show

if TYPE_CHECKING:
    from sightline.cli.inputs import Inputs


def asked(inputs: Inputs) -> list[tuple[str, str]]:
    """The rows of a table: each array that was read, and the options."""
    rows = []
    for argument in ("query", "key", "value"):
        if argument not in inputs.names:
            continue
        array = getattr(inputs, argument)
        axes = _axes(array.ndim, inputs.options.get("layout", "BHLD"))
        name = inputs.names[argument]
        called = f"  ({name!r})" if name != argument else ""
        rows.append((argument, f"{show.dims(array.shape)}  {array.dtype}  {axes}{called}"))
    return [*rows, ("options", ", ".join(options(inputs)) or "none: every query sees every key")]


def options(inputs: Inputs) -> list[str]:
    """Each option that was given."""
    return [_option(name, value, inputs) for name, value in inputs.options.items()]


def _axes(rank: int, layout: str) -> str:
    """What the axes of query, key and value are."""
    inner = ["tokens", "heads", "size"] if layout == "BLHD" else ["heads", "tokens", "size"]
    return "(" + " × ".join((["batch"] * (rank - 3) + inner) if rank > 2 else ["tokens", "size"]) + ")"


def _option(name: str, value: Any, inputs: Inputs) -> str:
    words = name.replace("_", " ")
    if value is True:
        return words
    if isinstance(value, np.ndarray):
        return (
            f"{words} {show.dims(value.shape)} {value.dtype}"
            if name in inputs.names
            else f"{words} {value.tolist()}"
        )
    return f"{words} {value}"
