"""Recorder: which module of the watched model is running, and what was seen of its attention, call by call."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import torch

from sightline.torch import patch
from sightline.watching import function as _function  # noqa: F401 - listens to PyTorch's function from here on
from sightline.watching.interface import swap
from sightline.watching.listening import told
from sightline.watching.watched import Watched, WatchedCall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sightline.see import See
    from sightline.watching.observed import Observed


class Recorder:
    """Watches one model in the thread in which it was made."""

    def __init__(
        self, model: Any, ask: Callable[[int, int, int], See], layers: Sequence[int | str] | None
    ) -> None:
        """`ask` is told heads, queries and keys of a layer, and says what to see."""
        check(model)
        self.watched = Watched()
        self._model, self._ask = model, ask
        self._names = {id(module): name for name, module in model.named_modules()}
        self._layers = None if layers is None else self._checked(layers)
        self._running: list[Any] = []
        self._count = 0  # attention calls in this call of the model
        self._silent = 0  # calls of the model without any
        self._thread = threading.get_ident()

    @property
    def running(self) -> bool:
        """Whether the model is, or a part of it."""
        return bool(self._running)

    def note(self, module: Any, observed: Observed) -> None:
        """One attention call of the model, made by `module` or by the innermost one that is running."""
        name = self._names.get(id(module)) if module is not None else None
        if name is None:
            name = self._names[id(self._running[-1])]
        number, self._count = self._count, self._count + 1
        if self._layers is not None and not {number, name} & set(self._layers):
            return
        call = self.watched.calls[-1]
        request = self._ask(*observed.sizes)
        call.layers.append(observed.look(request))
        call.heads.append(request.heads)
        call.names.append(name)
        call.numbers.append(number)
        call.lengths.append(observed.sizes[1:])

    @contextlib.contextmanager
    def recording(self) -> Iterator[Watched]:
        """Within it, the model is watched; then everything is as it was."""
        hooks = contextlib.ExitStack()
        with hooks, told(self), patch.swapped():
            swap.enter()
            hooks.callback(swap.leave)
            for module in self._model.modules():
                first = module.register_forward_pre_hook(self._enter, with_kwargs=True, prepend=True)
                last = module.register_forward_hook(self._leave, always_call=True)
                hooks.callback(first.remove)
                hooks.callback(last.remove)
            yield self.watched
        self._complain()

    def _enter(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != self._thread:
            return
        if not self._running:  # the model, or a part of it that is called by itself
            self._count = 0
            self.watched.calls.append(WatchedCall(ids=_ids(args, kwargs)))
        self._running.append(module)

    def _leave(self, module: Any, args: Any, output: Any) -> None:
        """Also after an error, in which case modules that it never reached are still on the list."""
        del args, output
        if threading.get_ident() == self._thread and any(each is module for each in self._running):
            while self._running.pop() is not module:
                pass
            if not self._running and not self._count:  # a part such as an embedding, called by itself
                self.watched.calls.pop()
                self._silent += 1

    def _checked(self, layers: Sequence[int | str]) -> tuple[int | str, ...]:
        if isinstance(layers, str):
            raise TypeError(f"layers is {layers!r}; expected a sequence; try layers=({layers!r},).")
        for layer in layers:
            if isinstance(layer, str):
                if layer not in self._names.values():
                    raise ValueError(f"layers has {layer!r}, no name in model.named_modules().")
            elif isinstance(layer, bool) or not isinstance(layer, int) or layer < 0:
                raise ValueError(f"layers has {layer!r}; expected numbers from 0, or names of modules.")
        return tuple(layers)

    def _complain(self) -> None:
        """About what was asked for and never came, once all has gone well."""
        calls = self.watched.calls
        if self._silent and not calls:
            raise ValueError(
                "the model ran, and no attention was seen: it calls neither the attention of transformers nor "
                "torch.nn.functional.scaled_dot_product_attention, or calls them from compiled code."
            )
        seen = {each for call in calls for each in (*call.numbers, *call.names)}
        missing = [layer for layer in self._layers or () if layer not in seen]
        if calls and missing:
            raise ValueError(f"layers has {missing[0]!r}; no attention of that number or name ran.")


def check(model: Any) -> None:
    """Raises for what cannot be watched."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; expected a torch.nn.Module.")
    if hasattr(model, "_orig_mod"):
        raise TypeError("model is compiled, and runs no Python that could be watched; try model._orig_mod.")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            "model is a ScriptModule, and runs no Python that could be watched; try the module itself."
        )


def _ids(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The token ids (B, L) among the arguments of a call."""
    given = kwargs.get("input_ids", args[0] if args else None)
    if isinstance(given, torch.Tensor) and given.dim() == 2 and given.dtype in {torch.int64, torch.int32}:
        return given.detach().cpu()
    return None
