"""How the command line looks: aligned plain text, tinted where a terminal and rich allow."""

from __future__ import annotations

import sys
import textwrap
from importlib.util import find_spec

LABEL = 12  # columns for the labels
WIDTH = 100  # columns for a page


def title(text: str) -> None:
    """A heading."""
    _print(text, "bold")


def fields(rows: list[tuple[str, str]]) -> None:
    """Label and value, a line each; a long value goes on below itself."""
    for label, value in rows:
        first, *rest = textwrap.wrap(value, WIDTH - LABEL - 2, break_long_words=False) or [""]
        _print(f"  {label:<{LABEL - 1}} ", "cyan", end="")  # a space also behind a label that is too long
        _print(first)
        for line in rest:
            _print(" " * (LABEL + 2) + line)


def plain(text: str = "") -> None:
    """Text as it is."""
    _print(text)


def tinted() -> bool:
    """Whether output may carry colour."""
    return sys.stdout.isatty() and find_spec("rich") is not None


def _print(text: str, style: str = "", end: str = "\n") -> None:
    if style and tinted():
        from rich.console import Console
        from rich.text import Text

        Console(highlight=False, soft_wrap=True).print(Text(text, style), end=end)
    else:
        print(text, end=end, flush=True)  # a pipe shows the question while the answer is made


def dims(shape: tuple[int, ...]) -> str:
    """A shape as people write it: 12 × 470 × 32."""
    return " × ".join(map(str, shape)) or "scalar"


def seconds(value: float) -> str:
    """A time in the unit that suits it."""
    if value < 1e-3:
        return f"{value * 1e6:.0f} µs"
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.2f} s" if value < 100 else f"{value / 60:.1f} min"


def size(count: int) -> str:
    """A number of bytes in the unit that suits it."""
    amount = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
