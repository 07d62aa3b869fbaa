"""What went wrong, in one line that the reader can act on."""

from __future__ import annotations


class CommandError(Exception):
    """Something the caller of the command can mend: printed as one line, exit code 2, no traceback."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


def reason(error: BaseException) -> str:
    """What an exception says, on one line: the operating system's words without its number."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(words.split()) or type(error).__name__


def listed(names: list[str]) -> str:
    """Names for an error message: the first dozen, then how many more."""
    shown = ", ".join(name if name.isprintable() else repr(name) for name in names[:12])
    return f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown or "nothing"
