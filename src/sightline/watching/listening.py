"""Who is told of the attention calls of this thread: the recorders of the models that are being watched here."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sightline.watching.observed import Observed
    from sightline.watching.recorder import Recorder


class _Here(threading.local):
    recorders: tuple[Recorder, ...] = ()
    quiet: bool = False


_here = _Here()


def listening() -> list[Recorder]:
    """The recorders whose model is running in this thread, unless a call that they know of is on its way.

    What checkpointing computes once more for the sake of gradients has been seen before.
    """
    if _here.quiet or torch._C._current_graph_task_id() != -1:
        return []
    return [recorder for recorder in _here.recorders if recorder.running]


def tell(module: Any, observe: Callable[[], Observed]) -> None:
    """Lets them note a call: `module` is the one that made it, or None for the one that is running."""
    told = listening()
    if told:
        observed = observe()
        for recorder in told:
            recorder.note(module, observed)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within it, nobody is told: what is called here is part of a call that will be told of."""
    before, _here.quiet = _here.quiet, True
    try:
        yield
    finally:
        _here.quiet = before


@contextlib.contextmanager
def told(recorder: Recorder) -> Iterator[None]:
    """Within it, the recorder is one of them."""
    _here.recorders = (*_here.recorders, recorder)
    try:
        yield
    finally:
        _here.recorders = tuple(each for each in _here.recorders if each is not recorder)
