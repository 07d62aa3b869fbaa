"""patched(): torch.nn.functional.scaled_dot_product_attention is sightline's, for code one doesn't own."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING, Any

import torch

from sightline.torch.sdpa import ORIGINAL, scaled_dot_product_attention

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_here = threading.local()
_lock = threading.Lock()


def around(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls the function; whoever has to know of each call while someone is inside `swapped()` replaces this."""
    return function(*args, **kwargs)


def stand_in(*args: Any, **kwargs: Any) -> Any:
    """Sightline's function where this thread is inside patched(), PyTorch's elsewhere."""
    function = scaled_dot_product_attention if getattr(_here, "depth", 0) else ORIGINAL
    return around(function, args, kwargs)


class _Swap:
    """Puts `stand_in` wherever a module keeps PyTorch's function, for as long as anyone needs it there."""

    def __init__(self) -> None:
        self.users = 0
        self.places: list[tuple[dict[str, Any], str]] = []
        self.fast_path = True

    def enter(self) -> None:
        """One more needs it."""
        with _lock:
            if not self.users:
                self.places = list(_places())
                for names, name in self.places:
                    names[name] = stand_in
                # nn.MultiheadAttention's and nn.TransformerEncoder's fast paths call no Python function
                self.fast_path = torch.backends.mha.get_fastpath_enabled()
                torch.backends.mha.set_fastpath_enabled(False)
            self.users += 1

    def leave(self) -> None:
        """One needs it no more; the last puts PyTorch's back."""
        with _lock:
            self.users -= 1
            if not self.users:
                for names, name in self.places:
                    if names.get(name) is stand_in:
                        names[name] = ORIGINAL
                torch.backends.mha.set_fastpath_enabled(self.fast_path)


def _places() -> Iterator[tuple[dict[str, Any], str]]:
    """Each module's dictionary and each name in it that is PyTorch's function, however it was imported."""
    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", None)
        if isinstance(names, dict) and not str(names.get("__name__")).startswith("sightline.torch"):
            for name in [name for name, x in list(names.items()) if x is ORIGINAL]:
                yield names, name


_swap = _Swap()


@contextlib.contextmanager
def swapped() -> Iterator[None]:
    """Within it, `stand_in` is in the place of PyTorch's function, in all threads."""
    _swap.enter()
    try:
        yield
    finally:
        _swap.leave()


@contextlib.contextmanager
def patched() -> Iterator[None]:
    """Within it, torch.nn.functional.scaled_dot_product_attention is sightline's, in this thread alone.

    Every module that has PyTorch's function, under any name, gets one that asks where it is called: inside
    `patched()` it is `sightline.torch.scaled_dot_product_attention`, in other threads it stays PyTorch's. It
    may be nested, and an error on the way leaves nothing behind. The fast paths of nn.MultiheadAttention and
    nn.TransformerEncoder, which would go around it, are off meanwhile, in all threads.

    Not reached: the function as a default argument, in a closure or in an object's attribute, if it was put
    there before; compiled code (torch.jit, AOTInductor) and C++.

    Example:
        >>> import torch, sightline.torch
        >>> model = torch.nn.TransformerEncoderLayer(32, 4, batch_first=True).eval()
        >>> x = torch.randn(2, 10, 32)
        >>> with torch.no_grad(), sightline.torch.patched():
        ...     model(x).shape
        torch.Size([2, 10, 32])
    """
    _here.depth = getattr(_here, "depth", 0) + 1
    try:
        with swapped():
            yield
    finally:
        _here.depth -= 1
