"""What `sightline.watch` gives: a Seen for each attention layer in each call of a model, and pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sightline.look import draw
from sightline.look.seen import picture_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from sightline.look.picture import Picture
    from sightline.see import Seen


@dataclass(slots=True)
class WatchedCall:
    """What was seen of one call of the model: three lists, of one length, in the order in which its layers ran."""

    layers: list[Seen] = field(default_factory=list)
    """What was seen of each attention layer."""
    names: list[str] = field(default_factory=list)
    """The names of their modules in the model, as in `model.named_modules()`."""
    numbers: list[int] = field(default_factory=list)
    """Their numbers among all attention layers that ran in this call, from 0."""
    lengths: list[tuple[int, int]] = field(default_factory=list)
    """Their numbers of queries and keys."""
    heads: list[tuple[int, ...] | None] = field(default_factory=list)
    """The heads that were looked at, as `See.heads`."""
    ids: Any = None
    """The token ids that the call was given, (B, L), if it was given any."""


class Watched:
    """What was seen so far: `calls`, and for a model that was called once, `layers` and `names`.

    One call is one run of the model, or of a part of it that is run by itself: `model(**inputs)` is one, and each
    step of `model.generate()` is one.
    """

    def __init__(self) -> None:
        self.calls: list[WatchedCall] = []

    @property
    def layers(self) -> list[Seen]:
        """What was seen of each attention layer in the model's one call.

        Raises:
            ValueError: it was called several times, or never.
        """
        return self._only().layers

    @property
    def names(self) -> list[str]:
        """The names of the layers' modules, in the model's one call; raises as `layers`."""
        return self._only().names

    def plot(
        self,
        path: str | PathLike[str] | None = None,
        *,
        tokens: Sequence[str] | Any = None,
        call: int | None = None,
        layer: int | None = None,
        title: str = "",
        sequence: int = 0,
        query_offset: int = 0,
    ) -> None:
        """Draws what was seen: a page with all layers to choose from, or one layer.

        Args:
            path: ends in .html for the page, .png for one layer's maps; None for one layer in the terminal.
            tokens: labels of the keys, or a tokenizer, which is asked for those of the ids that the model was
                given. Layers with another number of keys stay without labels.
            call: which of `calls`; default the only one.
            layer: which of its layers; default all, on a page.
            title: what to call the picture.
            sequence: which sequence of the batch.
            query_offset: where the first query stands among the keys.

        Raises:
            ValueError: something does not fit.
            ImportError: a package that draws is missing.
        """
        draw.require(path)
        found = self.pictures(
            tokens=tokens, call=call, title=title, sequence=sequence, query_offset=query_offset, layer=layer
        )
        draw.draw(found, path)

    def pictures(
        self,
        *,
        tokens: Sequence[str] | Any = None,
        call: int | None = None,
        layer: int | None = None,
        title: str = "",
        sequence: int = 0,
        query_offset: int = 0,
    ) -> list[Picture]:
        """A Picture of each layer; the arguments are those of `plot`."""
        number = self._number(call)
        chosen = self.calls[number]
        count = len(chosen.layers)
        if layer is not None and not 0 <= layer < count:
            raise ValueError(f"layer is {layer}; {count} were watched, counted from 0.")
        wanted = range(count) if layer is None else [layer]
        labels = self._labels(tokens, number, sequence, [chosen.lengths[i][1] for i in wanted])
        heading = f"{title}, " if title else ""
        return [
            picture_of(
                chosen.layers[i],
                tokens=labels.get(chosen.lengths[i][1]),
                title=f"{heading}layer {chosen.numbers[i]}: {chosen.names[i]}",
                names=chosen.heads[i],
                sequence=sequence,
                query_offset=query_offset,
            )
            for i in wanted
        ]

    def _number(self, call: int | None) -> int:
        """The number of the call meant; None means the only one."""
        count = len(self.calls)
        if call is None:
            if count != 1:
                hint = "try calls[0], or call=0" if count else "call the model inside the with block"
                raise ValueError(f"the model was called {count} times; expected once; {hint}.")
            return 0
        if not -count <= call < count:
            raise ValueError(f"call is {call}; the model was called {count} times.")
        return call % count

    def _only(self) -> WatchedCall:
        return self.calls[self._number(None)]

    def _labels(self, tokens: Any, call: int, sequence: int, keys: list[int]) -> dict[int, Sequence[str]]:
        """Labels for the layers' keys, by their number."""
        if tokens is None:
            return {}
        if hasattr(tokens, "convert_ids_to_tokens"):
            ids = [given[sequence] for each in self.calls[: call + 1] if (given := each.ids) is not None]
            tokens = tokens.convert_ids_to_tokens([int(token) for part in ids for token in part])
            return {count: tokens[len(tokens) - count :] for count in keys if count <= len(tokens)}
        if len(tokens) not in keys:
            counts = ", ".join(map(str, sorted(set(keys))))
            raise ValueError(f"tokens has {len(tokens)} labels; expected {counts}, one for each key.")
        return {len(tokens): tokens}
