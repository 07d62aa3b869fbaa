"""watch(): what attention looks at inside a PyTorch model, layer by layer, while it runs."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from sightline.look.sizes import sizes
from sightline.see import See, requested

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sightline.watching.watched import Watched


@contextlib.contextmanager
def watch(
    model: Any,
    see: See | Sequence[str] | None = None,
    *,
    layers: Sequence[int | str] | None = None,
) -> Iterator[Watched]:
    """Within it, `see` is asked of the weights of each attention layer of `model` as it runs.

    The model computes what it always does: each of its attention calls is looked at when it is done. Weights are
    not stored, so memory grows with the length where `output_attentions=True` grows with its square. They are
    those before dropout.

    Reached are models of Hugging Face's transformers (5 or later), whatever their attn_implementation, and
    whatever calls torch.nn.functional.scaled_dot_product_attention, such as nn.MultiheadAttention without
    need_weights. Not reached: compiled code (torch.compile, torch.jit), and attention written out in a model's
    own operations. Only what this thread runs is watched; other models, and the same one in other threads, are
    not disturbed. Attention of Hugging Face's is checked, a row of each call, against the model's own output.

    Args:
        model: a torch.nn.Module, on the CPU.
        see: names of fields of See, as in ("received", "entropy"), or a See; `See.heads` are query heads of each
            layer. Default: all that a picture has.
        layers: which to look at: numbers, in the order in which attention runs in a call, from 0; or names of
            modules. Default all.

    Yields:
        A Watched: `calls`, one for each run of the model, with the lists `layers` (a Seen each), `names` and
        `numbers`; `layers` and `names` of the only call; and `plot`.

    Raises:
        TypeError, ValueError: what came, what was expected, and what to try.
        NotImplementedError: a layer computes something else than sightline's attention.

    Example:
        >>> import torch, sightline
        >>> model = torch.nn.TransformerEncoderLayer(32, 4, batch_first=True).eval()
        >>> with sightline.watch(model, ("received", "entropy")) as seen:
        ...     out = model(torch.randn(2, 10, 32))
        >>> seen.names, seen.layers[0].received.shape
        (['self_attn'], torch.Size([2, 4, 10]))
    """
    from sightline.watching.recorder import Recorder

    recorder = Recorder(model, for_pictures if see is None else _always(requested(see)), layers)
    with recorder.recording() as watched:
        yield watched


def for_pictures(heads: int, queries: int, keys: int, *, finer: bool = False) -> See:
    """All that a picture of a layer has; `finer` is what can be zoomed into, in tens of megabytes a layer."""
    size = sizes(heads, queries, keys)
    return See(
        lse=True,
        max_score=True,
        entropy=True,
        distance=True,
        received=True,
        top_keys=size.top_keys,
        pooled=size.fine if finer else size.pooled,
    )


def _always(request: See) -> Callable[[int, int, int], See]:
    return lambda *_sizes: request
