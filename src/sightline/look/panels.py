"""The panels of a PNG: one head's map, and one statistic of all heads along the sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.ticker import FuncFormatter, MaxNLocator

from sightline.look.sizes import per_block
from sightline.look.strips import stretches
from sightline.look.summary import mean, share_received
from sightline.look.words import clipped, label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import Colormap
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

    from sightline.look.picture import Picture

# From paper to ink, darker all the way: of weights; and of entropies, which are another thing.
WEIGHTS = LinearSegmentedColormap.from_list(
    "weights",
    ("#ffffff", "#fdeed6", "#fdcd97", "#f89a63", "#e35f61", "#b23a79", "#752a7c", "#3f1c62", "#140a2e"),
)
ENTROPIES = colormaps["GnBu"]
LINES = ("#6b2f82", "#e0662f", "#2a7f9e")
UNSEEN = "#ececf0"  # where no query looks at all
FAINTEST = 0.1  # of an even spread: what looks white
NUMBERED = 1.7  # inches of a map whose title has room for a number
LABEL = 0.125, 0.75  # inches that a token's label needs upright, and lying
LONGEST = 14  # letters of a label
BINS = 1000  # positions along the sequence that can be told apart


@dataclass(frozen=True, slots=True)
class Maps:
    """All heads' maps, on one logarithmic scale of colours."""

    shares: NDArray[np.float64]
    """(H, R, C): the share of its queries' attention that goes to each block of keys."""
    norm: LogNorm
    """From a tenth of an even spread to the largest share there is."""
    keys: int
    """How many keys a block has, at most."""
    exact: bool
    """Whether each block is one weight."""

    @classmethod
    def of(cls, picture: Picture, pixels: float) -> Maps | None:
        """From the finest blocks that `pixels` across can show."""
        blocks = picture.pooled
        if picture.fine is not None and max(picture.fine.shape[1:]) <= pixels:
            blocks = picture.fine
        if blocks is None or not blocks.size:
            return None
        _, rows, columns = blocks.shape
        shares = blocks / per_block(picture.queries, rows)[:, None]
        top = min(float(np.fmax.reduce(shares, axis=None, initial=0.0)), 1.0) or 1.0
        norm = LogNorm(min(FAINTEST / columns, top / 10), top)
        exact = (rows, columns) == (picture.queries, picture.keys)
        return cls(shares, norm, int(per_block(picture.keys, columns).max()), exact)

    def label(self, bar: Colorbar) -> None:
        """Says on the bar what the colours are."""
        few = "a key" if self.keys == 1 else f"a block of {self.keys:,} keys"
        bar.set_label("weight" if self.exact else f"share of attention to {few}")
        in_percent(bar)


def draw_map(place: Axes, picture: Picture, h: int, maps: Maps, size: tuple[float, float]) -> AxesImage:
    """One head's map, `size` inches wide and high: queries downwards, keys to the right."""
    shares = maps.shares[h]
    image = place.imshow(
        np.ma.masked_where(~(shares > 0), shares),
        cmap=WEIGHTS.with_extremes(bad=UNSEEN),
        norm=maps.norm,
        aspect="auto",
        extent=(-0.5, picture.keys - 0.5, picture.queries - 0.5, -0.5),
        interpolation="nearest" if max(shares.shape) <= 64 else "antialiased",
        interpolation_stage="data",
    )
    place.set_title(head_title(picture, h, numbered=size[0] >= NUMBERED), loc="left", pad=3)
    place.tick_params(length=2)
    name_positions(place.xaxis, picture.key_tokens, picture.keys, size[0])
    name_positions(place.yaxis, picture.query_tokens, picture.queries, size[1], sideways=False)
    return image


def head_title(picture: Picture, h: int, *, numbered: bool) -> str:
    """The head's name, and the mean entropy where there is room."""
    found = mean(picture.entropy[h]) if numbered and picture.entropy is not None else None
    return f"head {picture.heads[h]}" + ("" if found is None else f"   entropy {found:.2f}")


def name_positions(
    axis: Axis, tokens: Sequence[str] | None, count: int, inches: float, *, sideways: bool = True
) -> None:
    """Tokens along an axis where there is room for all of them, else numbers."""
    upright, lying = LABEL
    if tokens is not None and count * upright <= inches:
        names = [clipped(label(tokens, i), LONGEST) for i in range(count)]
        turn = 90 if sideways and count * lying > inches else 0
        axis.set_ticks(np.arange(count), names, rotation=turn, fontsize=7)
    elif count == 1:
        axis.set_ticks([0])
    else:
        most = 4 if inches < 6 else 10
        axis.set_major_locator(MaxNLocator(most, integer=True, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))


class Along(NamedTuple):
    """One statistic of every head at every position."""

    name: str
    values: NDArray[Any]
    """(H, length)"""
    axis: str
    """What the positions are: "key" or "query"."""
    tokens: Sequence[str] | None
    colours: Colormap
    shares: bool
    """Whether the values are shares, which are drawn on a logarithmic scale."""

    def binned(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """The least, the mean and the largest value in each of at most BINS stretches of neighbours."""
        return tuple(  # type: ignore[return-value]
            np.stack([stretches(row, BINS, kind) for row in self.values])
            for kind in ("least", "mean", "most")
        )


def along(picture: Picture) -> list[Along]:
    """What lies along the sequence, as far as the picture has it."""
    found = []
    received = share_received(picture)
    if received is not None and received.size:
        name = "attention received, share of all queries'"
        found.append(Along(name, received, "key", picture.key_tokens, WEIGHTS, shares=True))
    if picture.entropy is not None and picture.entropy.size:
        name = "entropy, nats"
        found.append(Along(name, picture.entropy, "query", picture.query_tokens, ENTROPIES, shares=False))
    return found


def draw_lines(place: Axes, picture: Picture, what: Along, inches: float) -> None:
    """A line for each of a few heads, with the range of each stretch around it."""
    heads, length = what.values.shape
    least, middle, most = what.binned()
    count = middle.shape[1]
    edges = np.arange(count + 1) * (length / count) - 0.5
    for h, colour in zip(range(heads), LINES, strict=False):
        place.stairs(most[h], edges, baseline=least[h], fill=True, color=colour, alpha=0.25, linewidth=0)
        place.stairs(
            middle[h], edges, baseline=None, color=colour, linewidth=1.1, label=f"head {picture.heads[h]}"
        )
    if what.shares:
        place.set_yscale("log", nonpositive="mask")
        place.set_ylim(bottom=np.min(middle, where=middle > 0, initial=1.0) / 3)
        place.yaxis.set_major_formatter(FuncFormatter(lambda x, _: percent(x)))
        place.yaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    else:
        place.set_ylim(bottom=0.0)
    place.spines[["top", "right"]].set_visible(False)
    if heads > 1:
        corner: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.1}
        place.legend(frameon=False, ncols=heads, fontsize=8, title=None, **corner)
    stretch = (
        ""
        if count == length
        else f"; line: mean of {-(-length // count):,} neighbours, around it: their range"
    )
    _frame(place, what, what.name + stretch, inches)


def draw_stripes(place: Axes, picture: Picture, what: Along, inches: float) -> None:
    """A stripe for each of many heads."""
    heads, length = what.values.shape
    _, middle, most = what.binned()
    values = most if what.shares else middle  # a key that receives much stands out however long the text is
    top = float(np.fmax.reduce(values, axis=None, initial=0.0)) or 1.0
    image = place.imshow(
        np.ma.masked_where(~(values > 0) if what.shares else np.isnan(values), values),
        cmap=what.colours.with_extremes(bad=UNSEEN),
        norm=LogNorm(min(0.25 / length, top / 10), top) if what.shares else Normalize(0.0, top),
        aspect="auto",
        extent=(-0.5, length - 0.5, heads - 0.5, -0.5),
        interpolation="nearest",
    )
    shown = np.arange(0, heads, max(1, -(-heads // 16)))
    place.set_yticks(shown, [picture.heads[h] for h in shown], fontsize=7)
    place.set_ylabel("head")
    bar = place.figure.colorbar(image, ax=place, pad=0.01, extend="min" if what.shares else "neither")
    if what.shares:
        in_percent(bar)
    bar.outline.set_visible(False)
    count, kind = values.shape[1], "largest" if what.shares else "mean"
    stretch = "" if count == length else f"; {kind} of {-(-length // count):,} neighbours"
    _frame(place, what, what.name + stretch, inches)


def _frame(place: Axes, what: Along, title: str, inches: float) -> None:
    length = what.values.shape[1]
    place.set_title(title, loc="left", pad=3)
    place.set_xlabel(what.axis)
    place.set_xlim(-0.5, length - 0.5)
    place.tick_params(length=2)
    name_positions(place.xaxis, what.tokens, length, inches)


def in_percent(bar: Colorbar) -> None:
    """Shares as percents beside a bar of colours."""
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda x, _: percent(x)))
    bar.ax.yaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    bar.outline.set_visible(False)


def percent(share: float) -> str:
    """A share with as many digits as tell something."""
    return f"{share * 100:.3g}%"
