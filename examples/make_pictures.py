"""Makes the pictures in the README and in docs/looking.md from `minilm_qkv.npz`: python examples/make_pictures.py

Needs `sightline[look]`, and Chromium for the picture of the page. The terminal is written as SVG; the others are
reduced to 256 colours, because maps of text do not compress.
"""

from __future__ import annotations

import io
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from sightline.look import page, png, terminal
from sightline.look.gather import picture

EXAMPLES = Path(__file__).parent
IMAGES = EXAMPLES.parent / "docs" / "images"
FONT = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
# The terminal's window: rich's own asks the network for a font.
WINDOW = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: FONT; font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>{lines}</defs>
<rect width="100%" height="100%" rx="8" fill="#0d0e13"/>
<g transform="translate(9, 9)" clip-path="url(#{unique_id}-clip-terminal)">{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
""".replace("FONT", FONT)


def main() -> None:
    """Looks once, and draws three times."""
    arrays = np.load(EXAMPLES / "minilm_qkv.npz")
    tokens = [str(token) for token in arrays["tokens"]]
    found = picture(arrays["query"], arrays["key"], tokens=tokens, title="minilm_qkv.npz")
    IMAGES.mkdir(exist_ok=True)

    drawn = io.BytesIO()
    png.figure(found).savefig(drawn, format="png", dpi=90)
    small(drawn, IMAGES / "maps.png")

    console = Console(
        width=112, height=36, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    terminal.draw(found, console)
    (IMAGES / "terminal.svg").write_text(console.export_svg(code_format=WINDOW, unique_id="look"), "utf-8")

    with tempfile.TemporaryDirectory() as folder:
        shot, opened = Path(folder) / "page.png", Path(folder) / "page.html"
        page.write([found], opened)
        browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        settings = ["--window-size=1200,1010", "--virtual-time-budget=9000", f"--screenshot={shot}"]
        subprocess.run([*browser, *settings, opened.as_uri()], check=True, capture_output=True)
        small(shot, IMAGES / "page.png")


def small(drawn: io.BytesIO | Path, path: Path) -> None:
    """Writes a picture with few colours."""
    with Image.open(drawn) as image:
        few = image.convert("RGB").quantize(
            256, method=Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE
        )
        few.save(path, optimize=True)


if __name__ == "__main__":
    main()
