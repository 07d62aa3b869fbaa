"""The picture as a PNG file, drawn with matplotlib.

matplotlib is imported when the first PNG is asked for, and its settings stay as they were.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    from matplotlib.figure import Figure

    from sightline.look.picture import Picture

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": "#202028",
    "axes.labelcolor": "#202028",
    "axes.edgecolor": "#9a9aa4",
    "axes.facecolor": "#ffffff",
    "axes.grid": False,
    "axes.linewidth": 0.6,
    "axes.titlesize": 9,
    "figure.facecolor": "#ffffff",
    "savefig.facecolor": "#ffffff",
    "xtick.color": "#5a5a66",
    "ytick.color": "#5a5a66",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.usetex": False,
    "text.parse_math": False,  # a token may be a dollar
}


def write(picture: Picture, path: str | PathLike[str]) -> None:
    """Draws the picture into a PNG file."""
    with _undisturbed():
        figure(picture).savefig(path, format="png")


def figure(picture: Picture) -> Figure:
    """The picture as a matplotlib figure."""
    with _undisturbed():
        from sightline.look.sheet import sheet

        return sheet(picture)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Our style, whatever the caller's is; and no word about fonts that lack a token's letters."""
    talkative = logging.getLogger("matplotlib")
    level = talkative.level
    talkative.setLevel(logging.ERROR)
    try:
        import matplotlib as mpl

        with mpl.rc_context(STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            yield
    finally:
        talkative.setLevel(level)
