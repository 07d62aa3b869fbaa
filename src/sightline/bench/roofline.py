"""The roofline: how fast calls are against how fast the machine could be, by arithmetic per byte (Williams, 2009).

A call that does little with each byte is bound by the slope, reading; one that does much by the roof, computing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sightline.bench.peaks import Peaks

COLOURS = ("#1f5fb4", "#d9730d", "#7a7a86", "#2a9d5c", "#a23b8f", "#b0413e", "#3b8ea5")


class Point(NamedTuple):
    """One implementation of one call."""

    series: str
    """whose"""
    label: str
    """which call"""
    intensity: float
    """floating-point operations per byte of query, key, value and output"""
    gflops: float


def draw(points: Sequence[Point], peaks: Peaks, title: str, path: Path) -> None:
    """Write the picture; what it is drawn with is matplotlib (`pip install 'sightline[look]'`)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    left = min([0.25, *(point.intensity / 2 for point in points)])
    x = np.geomspace(left, max([1e3, *(2 * point.intensity for point in points)]), 200)
    roofs = {"float32 multiply-adds": peaks.fma, "bfloat16 pairs": peaks.pairs}
    for (name, roof), style in zip(roofs.items(), ("-", "--"), strict=True):
        if roof is not None:
            axes.loglog(x, np.minimum(roof, x * peaks.read), style, color="#202028", linewidth=1, zorder=1)
            axes.text(x[-1], roof, f"{name}, {roof:.0f} GFLOP/s", ha="right", va="bottom", fontsize=8)
    place: dict[str, Any] = {"rotation": 45, "rotation_mode": "anchor", "transform_rotates_text": True}
    axes.text(x[4], 1.1 * x[4] * peaks.read, f"reading, {peaks.read:.0f} GB/s", fontsize=8, **place)
    for number, series in enumerate(dict.fromkeys(point.series for point in points)):
        own = [point for point in points if point.series == series]
        xy = [point.intensity for point in own], [point.gflops for point in own]
        axes.scatter(*xy, s=24, color=COLOURS[number % len(COLOURS)], label=series, zorder=2)
    first = points[0].series if points else ""
    for point in points:
        if point.series == first:
            axes.annotate(
                point.label, (point.intensity, point.gflops), (4, 4), textcoords="offset points", fontsize=7
            )
    axes.set(xlabel="floating-point operations per byte", ylabel="GFLOP/s", title=title)
    if points:
        axes.legend(loc="lower right", fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
