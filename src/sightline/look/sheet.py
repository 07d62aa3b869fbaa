"""The sheet that a PNG is: a map of each head on one scale of colours, statistics along the sequence below."""

from __future__ import annotations

from math import ceil, sqrt
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from sightline.look import panels

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

    from sightline.look.picture import Picture

WIDE, NARROW = 12.0, 8.6  # inches: of many heads, of one
MARGIN = 1.4  # inches of labels beside the maps
DPI = 120
SQUAREST = (1 / 5, 2.0)  # height / width of a map, whatever the lengths
FEW = 3  # heads that are lines along the sequence; more are stripes


class Grid(NamedTuple):
    """How the heads' maps are laid out."""

    rows: int
    columns: int
    wide: float  # inches of one map
    high: float


def sheet(picture: Picture) -> Figure:
    """The picture as a matplotlib figure."""
    inches = NARROW if len(picture.heads) == 1 else WIDE
    grid = _grid(picture, inches - MARGIN)
    maps = panels.Maps.of(picture, grid.wide * DPI)
    along = panels.along(picture)
    lines = len(picture.heads) <= FEW
    each = 1.7 if lines else 0.55 + min(max(0.13 * len(picture.heads), 1.0), 4.0)
    upper = 0.3 + grid.rows * (grid.high + 0.3) if maps is not None else 0.0
    heights = [height for height in (upper, each * len(along)) if height]
    spacing = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, hspace=0.02, wspace=0.02)
    made = Figure(figsize=(inches, 0.5 + sum(heights)), dpi=DPI, layout=spacing)
    made.suptitle(_caption(picture), x=0.01, ha="left", fontsize=11)
    rooms = made.subfigures(max(len(heights), 1), 1, height_ratios=heights or None, squeeze=False)[:, 0]
    if maps is not None:
        _maps(rooms[0], picture, maps, grid)
    if along:
        places = rooms[-1].subplots(len(along), 1, squeeze=False)
        draw = panels.draw_lines if lines else panels.draw_stripes
        for place, values in zip(places.flat, along, strict=True):
            draw(place, picture, values, inches - MARGIN)
    return made


def _caption(picture: Picture) -> str:
    queries = f"{picture.queries:,} quer{'y' if picture.queries == 1 else 'ies'}"
    keys = f"{picture.keys:,} key{'' if picture.keys == 1 else 's'}"
    return "   ".join([picture.title, f"{queries} × {keys}", *picture.options])


def _grid(picture: Picture, inches: float) -> Grid:
    """Rows and columns of maps in so many inches of width, the last row as full as can be."""
    count = len(picture.heads)
    least, most = SQUAREST
    ratio = min(max(picture.queries / max(picture.keys, 1), least), most)
    if count == 1:
        return Grid(1, 1, inches, inches * min(ratio, 1.25))
    columns = min(count, max(3, ceil(sqrt(count * 2.4 * ratio))))
    rows = ceil(count / columns)
    columns = ceil(count / rows)
    return Grid(rows, columns, inches / columns, inches / columns * ratio)


def _maps(room: SubFigure, picture: Picture, maps: panels.Maps, grid: Grid) -> None:
    """All heads' maps, with the bar of their colours."""
    axes = room.subplots(grid.rows, grid.columns, squeeze=False, sharex=True, sharey=True)
    drawn = [
        panels.draw_map(place, picture, h, maps, (grid.wide, grid.high))
        for h, place in zip(range(len(picture.heads)), axes.flat, strict=False)
    ]
    for place in axes.flat[len(drawn) :]:
        place.set_visible(False)
    for place in axes[:-1].flat:
        place.tick_params(labelbottom=False)
    for place in axes[:, 0]:
        place.set_ylabel("query")
    for place in axes[-1]:
        place.set_xlabel("key")
    shrink = 0.9 if grid.rows < 4 else 0.5
    maps.label(room.colorbar(drawn[0], ax=axes, shrink=shrink, pad=0.01, extend="min"))
