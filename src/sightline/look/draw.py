"""Where a picture goes: to the terminal, or to a file of the kind that its ending says.

Each drawing is imported when it is asked for: an installation without the extra `look` has none of them.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from os import PathLike

    from sightline.look.picture import Picture
    from sightline.see import Seen

NEEDS = {"": ("rich",), ".png": ("matplotlib",), ".html": ("jinja2",)}


def plot(seen: Seen, path: str | PathLike[str] | None, **labels: Any) -> None:
    """What `Seen.plot` does: its labels are those of `seen.picture_of`."""
    require(path)  # before anything else: without the packages there is nothing to look for in `seen`
    from sightline.look.seen import picture_of

    draw(picture_of(seen, **labels), path)


def draw(picture: Picture, path: str | PathLike[str] | None = None) -> None:
    """Shows the picture in the terminal, or writes it as a file of the kind that `path` says.

    Raises:
        ValueError: `path` ends in neither.
    """
    if path is None:
        from sightline.look import terminal

        terminal.show(picture)
    elif _kind(path) == ".png":
        from sightline.look import png

        png.write(picture, path)
    else:
        from sightline.look import page

        page.write([picture], path)


def require(path: str | PathLike[str] | None) -> None:
    """Makes sure that `draw` can draw to such a path.

    Raises:
        ValueError: it ends in neither .png nor .html.
        ImportError: a package is missing; what to install.
    """
    missing = [package for package in NEEDS[_kind(path)] if find_spec(package) is None]
    if missing:
        raise ImportError(
            f"pictures need {' and '.join(missing)}, which is not installed; "
            f"try pip install 'sightline[look]'."
        )


def _kind(path: str | PathLike[str] | None) -> str:
    kind = "" if path is None else Path(path).suffix.lower()
    if path is not None and kind not in (".png", ".html"):
        raise ValueError(f"path is {str(path)!r}; expected a name that ends in .png or .html.")
    return kind
