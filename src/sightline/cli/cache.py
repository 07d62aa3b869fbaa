"""The compiled kernels kept on disk: look, or clear them away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.cli import show
from sightline.cpu.cache import VARIABLE, cache_clear, cache_info

if TYPE_CHECKING:
    import argparse


def add_to(parser: argparse.ArgumentParser) -> None:
    """The words of this command."""
    parser.add_argument("action", choices=("info", "clear"), help="look, or remove every kernel")


def run(words: argparse.Namespace) -> int:
    """Shows the cache or empties it."""
    if words.action == "clear":
        count = cache_clear()
        show.plain(
            f"removed {count} kernel{'' if count == 1 else 's'} from {cache_info().directory or 'no cache'}"
        )
    else:
        show.title("kernel cache")
        show.fields(described())
    return 0


def described() -> list[tuple[str, str]]:
    """The cache as label and value."""
    found = cache_info()
    used = "nothing" if not found.files else f"{found.files} kernels, {show.size(found.bytes)}"
    rows = [
        ("directory", found.directory or "none"),
        ("holds", f"{used} (at most {show.size(found.limit)})"),
        ("change it", f"{VARIABLE}=DIRECTORY; {VARIABLE}=off keeps nothing"),
    ]
    if found.reason:
        rows.append(("trouble", found.reason))
    return rows
