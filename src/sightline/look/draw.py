"""Where a picture goes: to the terminal, or to a file of the kind that its ending says.

Each drawing is imported when it is asked for: an installation without the extra `look` has none of them.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from sightline.look.picture import Picture
    from sightline.see import Seen

NEEDS = {"": ("rich",), ".png": ("matplotlib",), ".html": ("jinja2",)}


def plot(seen: Seen, path: str | PathLike[str] | None, **labels: Any) -> None:
    """What `Seen.plot` does: its labels are those of `seen.picture_of`."""
    require(path)  # before anything else: without the packages there is nothing to look for in `seen`
    from sightline.look.seen import picture_of

    draw([picture_of(seen, **labels)], path)


def draw(pictures: Sequence[Picture], path: str | PathLike[str] | None = None) -> None:
    """Shows a picture in the terminal, or writes it as a file of the kind that `path` says; a page takes several.

    Raises:
        ValueError: `path` ends in neither, or the pictures are too many for it.
    """
    kind = _kind(path)
    if kind != ".html" and len(pictures) != 1:
        place = "a PNG" if kind else "the terminal"
        raise ValueError(f"there are {len(pictures)} layers, and {place} shows one; try layer=0, or a page.")
    if kind == ".html":
        from sightline.look import page

        page.write(pictures, path or "")
    elif kind:
        from sightline.look import png

        png.write(pictures[0], path or "")
    else:
        from sightline.look import terminal

        terminal.show(pictures[0])


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
