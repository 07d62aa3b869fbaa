"""Small matrices as text, with a name for each row and column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

CELL = 7  # columns for a number and the space before it
NAME = 11  # columns for a row's name
SHADES = " ░▒▓█"  # of a weight: below 1/8, from 1/8, 3/8, 5/8 and 7/8


def numbers(matrix: Array, rows: list[str], columns: list[str]) -> list[str]:
    """The matrix under its columns' names; −∞, which is what is not seen, as a dot."""
    lines = [_header(columns)]
    for name, row in zip(rows, matrix, strict=True):
        lines.append(_name(name) + "".join(_number(float(x)).rjust(CELL) for x in row))
    return lines


def weights(matrix: Array, seen: Array, rows: list[str], columns: list[str]) -> list[str]:
    """Weights between 0 and 1, and beside each row the same in shades of grey."""
    lines = [_header(columns)]
    for name, row, visible in zip(rows, matrix, seen, strict=True):
        cells = (f"{x:.2f}" if there else "·" for x, there in zip(row, visible, strict=True))
        shades = "".join(_shade(float(x)) for x in row)
        lines.append(_name(name) + "".join(cell.rjust(CELL) for cell in cells) + f"   │{shades}│")
    return lines


def _header(columns: list[str]) -> str:
    return " " * NAME + "".join(_short(column, CELL - 1).rjust(CELL) for column in columns)


def _name(name: str) -> str:
    return "  " + _short(name, NAME - 2).ljust(NAME - 2)


def _short(word: str, width: int) -> str:
    return word if len(word) <= width else word[: width - 1] + "…"


def _number(x: float) -> str:
    if x == -np.inf:
        return "·"
    if not np.isfinite(x):
        return str(x)
    text = f"{x:.2f}" if abs(x) < 100 else f"{x:.1f}"
    return text if len(text) < CELL else f"{x:.0e}"


def _shade(weight: float) -> str:
    return "?" if np.isnan(weight) else SHADES[int(np.clip(weight * 4 + 0.5, 0, 4))]
