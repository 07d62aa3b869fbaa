"""Numbers as rows of characters: bars, sparklines, and shades that need no colour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Letters(NamedTuple):
    """The characters that a terminal can show."""

    steps: str
    """Eight or so heights, from nothing to full."""
    parts: str
    """A bar's last cell, from nothing to full."""
    arrow: str
    ellipsis: str
    dash: str
    times: str


UNICODE = Letters(" ▁▂▃▄▅▆▇█", " ▏▎▍▌▋▊▉█", "→", "…", "–", "×")
ASCII = Letters(" .:-=+*#%@", " -=#", "->", "...", "-", "x")


def letters(encoding: str) -> Letters:
    """The best that text in this encoding can hold."""
    try:
        "".join(UNICODE).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def bar(share: float, width: int, known: Letters) -> str:
    """A horizontal bar, `share` of `width` cells long."""
    full = len(known.parts) - 1
    units = round(min(max(share, 0.0), 1.0) * width * full)
    whole, rest = divmod(units, full)
    return (known.parts[-1] * whole + (known.parts[rest] if rest else "")).ljust(width)


def sparkline(values: NDArray[Any], width: int, known: Letters) -> str:
    """The values' means in up to `width` stretches, from 0 to the highest of them; ? where one is NaN."""
    heights = stretches(values, width)
    top = np.fmax.reduce(heights, initial=0.0)  # leaves NaN out
    return "".join(step(height / (top or 1.0), known) for height in heights)


def stretches(
    values: NDArray[Any], width: int, kind: Literal["least", "mean", "most"] = "mean"
) -> NDArray[np.float64]:
    """One number for each of `width` stretches of the values, or the values themselves where they are no more."""
    count = min(len(values), max(width, 1))
    if not count:
        return np.zeros(0)
    edges = np.arange(count + 1) * len(values) // count
    reduce = {"least": np.minimum, "mean": np.add, "most": np.maximum}[kind]
    reduced = reduce.reduceat(values.astype(np.float64), edges[:-1])
    return np.asarray(reduced / np.diff(edges) if kind == "mean" else reduced)


def step(height: float, known: Letters) -> str:
    """One character of this height, from 0 to 1; anything above 0 shows."""
    if np.isnan(height):
        return "?"
    top = len(known.steps) - 1
    return known.steps[min(top, int(np.ceil(height * top - 1e-6)))]
