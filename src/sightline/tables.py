"""Small matrices as text: rows and columns with names, one style for the numbers, a dot for what is not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sightline.reference_call import Array, Bool


def table(
    matrix: Array,
    rows: list[str],
    columns: list[str],
    seen: Bool | None = None,
    notes: list[str] | None = None,
    *,
    margin: int = 10,
    gap: int = 2,
    width: int = 0,
) -> list[str]:
    """A line of column names, and a line for each row.

    Args:
        matrix: (n, m), of which the named rows and columns are shown; … stands for further columns.
        rows: names, at most n.
        columns: names, at most m.
        seen: (n, m); a dot where it is False.
        notes: what to put behind each row.
        margin: characters for a row's name.
        gap: spaces before a column.
        width: characters of a column, at least; it grows with what is in it.
    """
    shown = matrix[: len(rows), : len(columns)]
    visible = np.full(shown.shape, fill_value=True) if seen is None else seen[: len(rows), : len(columns)]
    style = number_style(shown[visible])
    cells = [
        [format(x, style) if is_seen else "·" for x, is_seen in zip(*row, strict=True)]
        for row in zip(shown, visible, strict=True)
    ]
    width = max([width, *(len(cell) for line in [columns, *cells] for cell in line)])
    cut = " …" if len(columns) < matrix.shape[1] else ""
    behind = notes or [""] * len(rows)
    lines = [
        f"{name:{margin}}" + "".join(" " * gap + f"{cell:>{width}}" for cell in line) + cut + note
        for name, line, note in zip(["", *rows], [columns, *cells], ["", *behind], strict=False)
    ]
    return [line.rstrip() for line in lines]


def number_style(numbers: Array) -> str:
    """Four digits of the largest number; powers of ten where that would show nothing, or too much."""
    sizes = abs(numbers[np.isfinite(numbers)])
    largest = float(sizes.max(initial=0.0))
    if largest and not 1e-2 <= largest < 1e6:
        return ".2e"
    return f".{int(np.clip(3 - np.floor(np.log10(max(largest, 1.0))), 0, 3))}f"
