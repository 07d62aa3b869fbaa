"""A bar for work that takes more than a second, on terminals only, with rich or without."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from time import perf_counter
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from types import TracebackType

PATIENCE = 1.0  # seconds that need no bar
WIDTH = 40


class Bar:
    """Counts finished parts; shows itself once the whole is expected to take longer than `PATIENCE`."""

    def __init__(self, total: int, stream: TextIO | None = None, *, what: str = "attending") -> None:
        self.stream = stream or sys.stderr
        self.total = total
        self.what = what
        self.done = 0
        self._start = self._last = perf_counter()
        self._rich: Any = None
        self._drawn = False

    def __enter__(self) -> Bar:
        return self

    def advance(self) -> None:
        """One more part is done."""
        now = perf_counter()
        self.done += 1
        expected = now - self._start
        if self.done > 1:  # the first part may have compiled a kernel: it foretells nothing
            expected += (now - self._last) * (self.total - self.done)
        self._last = now
        if self.stream.isatty() and (self._drawn or expected > PATIENCE):
            self._drawn = True
            self._draw(now - self._start)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes the bar off the screen."""
        if self._rich is not None:
            self._rich.stop()
        elif self._drawn:
            self.stream.write("\r\x1b[2K")
            self.stream.flush()

    def _draw(self, elapsed: float) -> None:
        if find_spec("rich") is not None:
            if self._rich is None:
                self._rich = _rich_bar(self.stream, self.total, self.what)
            self._rich.update(self._rich.task_ids[0], completed=self.done)
            return
        filled = WIDTH * self.done // self.total
        left = elapsed / self.done * (self.total - self.done)
        self.stream.write(
            f"\r  {self.what} [{'#' * filled:<{WIDTH}}] {self.done}/{self.total}, {left:.0f} s left "
        )
        self.stream.flush()


def _rich_bar(stream: TextIO, total: int, what: str) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn(f"  {what}"), BarColumn(WIDTH), TaskProgressColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(file=stream), transient=True)
    bar.add_task("", total=total)
    bar.start()
    return bar
