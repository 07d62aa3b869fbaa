"""One HTML page that carries its data, styles and script with it, and opens from a disk without a network.

`codec.py` writes numbers as text, `payload.py` chooses what the page carries, and the files beside them are the
page: `page.html.jinja`, `page.css`, and the parts of its script in the order of `SCRIPTS`.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from sightline.look.page.payload import payload

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from jinja2 import Template

    from sightline.look.picture import Picture

SCRIPTS = (
    *("data.js", "colour.js", "words.js", "head.js", "drawing.js", "map.js", "tokens.js", "chart.js"),
    *("overview.js", "shading.js", "details.js", "notes.js", "page.js"),
)
"""The parts of the page's one script, in the order in which they are joined."""

BUDGET = 24_000_000
"""How many characters of data a page carries, if it can: with its script it stays below 25 MB."""


def html(pictures: Sequence[Picture], *, budget: int = BUDGET) -> str:
    """The page that shows these pictures: one picture per layer, or just one.

    Numbers are kept as float32 where an array has at most 2¹⁸ of them, and else as codes of 8 to 16 bits whose
    error the page states. The budget is met by thinning out top keys and finer maps, which the page states as
    well; what every page has (tokens, one number per query or key, pooled maps) takes what it needs.

    Args:
        pictures: what to show, at least one.
        budget: characters that the data should take.

    Returns:
        A whole HTML document. It has no part that is fetched, and its content security policy allows none.

    Raises:
        ValueError: there is no picture.
        ImportError: Jinja is missing; it comes with `sightline[look]`.
    """
    if not pictures:
        raise ValueError("there is no picture to make a page of; expected at least one Picture.")
    manifest, blocks = payload(pictures, budget)
    style, script = _asset("page.css"), "\n".join(map(_asset, SCRIPTS))
    document = _template(_asset("page.html.jinja")).render(
        title=pictures[0].title,
        manifest=manifest,
        blocks=blocks,
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )
    return document.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate cannot be written


def write(pictures: Sequence[Picture], path: str | os.PathLike[str], *, budget: int = BUDGET) -> None:
    """Write the page to a file; see `html`."""
    Path(path).write_text(html(pictures, budget=budget), "utf-8", newline="\n")


def _asset(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    """What the page's policy knows its own script and style by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _template(source: str) -> Template:
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as missing:
        raise ImportError("the page needs Jinja; try: pip install 'sightline[look]'") from missing
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(source)
