"""How PyTorch's tracers and transforms get to know a function: as an operator. The first is attention."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from sightline.attention import attention
from sightline.look_only import look_only
from sightline.torch import seen
from sightline.torch.call import SCHEMA, Call

if TYPE_CHECKING:
    from collections.abc import Callable

LIBRARY = torch.library.Library("sightline", "DEF")


class Operator:
    """An operator that returns a list of tensors, and its twin, an autograd.Function.

    Torch.func's transforms follow the gradients of a Function, but not yet those of an operator; torch.compile and
    torch.export keep an operator whole.
    """

    def __init__(self, name: str, arguments: str) -> None:
        LIBRARY.define(f"{name}({arguments}) -> Tensor[]", tags=(torch.Tag.pt2_compliant_tag,))
        self._name = f"sightline::{name}"
        op = self._operator = getattr(torch.ops.sightline, name).default
        methods = {"forward": staticmethod(lambda *arguments: tuple(op(*arguments)))}
        self._function: Any = type(f"Sightline_{name}", (torch.autograd.Function,), methods)

    def __call__(self, *arguments: Any) -> list[Any]:
        """The operator, or in a transform of torch.func its twin."""
        if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
            return list(self._function.apply(*arguments))
        return list(self._operator(*arguments))

    def register(self, kernel: Callable[..., list[Any]], like: Callable[..., list[Any]]) -> None:
        """What it does on the CPU, and the form of its result: empty tensors, for tracers and the meta device."""
        torch.library.impl(self._name, "CPU", kernel, lib=LIBRARY)
        torch.library.register_fake(self._name, like, lib=LIBRARY)

    def register_autograd(
        self, keep: Callable[..., None], backward: Callable[[Any, list[Any]], tuple[Any, ...]]
    ) -> None:
        """`keep(ctx, inputs, output)` saves what `backward(ctx, grads)` needs; that returns one for each input."""
        torch.library.register_autograd(self._name, backward, setup_context=keep, lib=LIBRARY)
        self._function.setup_context = staticmethod(keep)
        self._function.backward = staticmethod(lambda ctx, *grads: backward(ctx, list(grads)))

    def register_vmap(self, rule: Callable[..., list[Any]]) -> None:
        """`rule(size, places, *arguments)` has the results with the new axis in front."""

        def operator(info: Any, places: Any, *arguments: Any) -> tuple[list[Any], list[int]]:
            found = rule(info.batch_size, places, *arguments)
            return found, [0] * len(found)

        def function(info: Any, places: Any, *arguments: Any) -> tuple[tuple[Any, ...], tuple[int, ...]]:
            found, axes = operator(info, places, *arguments)
            return tuple(found), tuple(axes)

        torch.library.register_vmap(self._name, operator, lib=LIBRARY)
        self._function.vmap = staticmethod(function)


def _run(*arguments: Any) -> list[Any]:
    """The kernel's answer."""
    call = Call(*arguments)
    request = seen.decode(call.see)
    options = call.options()
    with torch.no_grad():
        if request.heads is None:
            output, found = attention(
                call.query, call.key, call.value, **options, see=replace(request, lse=True)
            )
            return [output, found.lse, *seen.listed(found, call.see)]
        # The gradients need lse of all heads.
        output, all_heads = attention(call.query, call.key, call.value, **options, see=("lse",))
        for name in ("precision", "dropout_p", "seed"):
            options.pop(name)
        found = look_only(call.query, call.key, **options, see=request)
    return [output, all_heads.lse, *seen.listed(found, call.see)]


def _like(*arguments: Any) -> list[Any]:
    """Tensors of the answer's form."""
    call = Call(*arguments)
    query, key, value = (tuple(x.shape) for x in call[:3])
    if not len(query) == len(key) == len(value) >= 2:
        raise ValueError(
            f"query, key and value have shapes {query}, {key} and {value}; expected one rank for all three, "
            f"at least 2; try adding leading axes of size 1, as in key[None]."
        )
    wide = torch.float64 if call.query.dtype == torch.float64 else torch.float32
    rows, _, *stack = seen.sizes(call)
    output = (*stack[:-1], *query[-3:-1], value[-1]) if stack else (rows, value[-1])
    found = [call.query.new_empty((*stack, rows), dtype=wide)]
    for name, shape in seen.shapes(call):
        found.append(call.query.new_empty(shape, dtype=torch.int64 if name == "indices" else wide))
    return [call.query.new_empty(output), *found]


ATTENTION = Operator("attention", SCHEMA)
"""It returns the output, lse, and then what `seen.listed` gives."""
ATTENTION.register(_run, _like)
