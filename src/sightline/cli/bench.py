"""Times attention here, beside the libraries that are installed: right before fast, and in turns."""

from __future__ import annotations

import csv
from dataclasses import asdict, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sightline.bench.shapes import DTYPES, SHAPES
from sightline.cli import arguments, show
from sightline.cli.errors import CommandError, listed
from sightline.cli.files import check_place
from sightline.cli.machine import threads as used_threads

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable

    from sightline.bench.measure import Row
    from sightline.bench.peaks import Peaks

DEFAULT_SHAPES = ("prompt", "bert", "decode")
STEADY = 0.85  # of the better peak
COLUMNS = ("dtype", "library", "time", "GFLOP/s", "GB/s", "of peak", "sightline is", "error")


def add_to(parser: argparse.ArgumentParser) -> None:
    """The words of this command."""
    parser.add_argument("--shapes", type=_names(SHAPES), default=list(DEFAULT_SHAPES), metavar="NAME[,NAME…]",
                        help=f"of {', '.join(SHAPES)} (default: {','.join(DEFAULT_SHAPES)})")  # fmt: skip
    parser.add_argument("--dtypes", type=_names(DTYPES), default=["float32", "bfloat16"], metavar="NAME[,NAME…]",
                        help=f"of {', '.join(DTYPES)} (default: float32,bfloat16)")  # fmt: skip
    parser.add_argument("--threads", type=arguments.threads, metavar="N", help="default: one per core")
    parser.add_argument(
        "--rounds", type=arguments.count, default=5, metavar="N", help="turns of each (default: 5)"
    )
    parser.add_argument(
        "--turn", type=float, default=0.1, metavar="S", help="seconds of a turn (default: 0.1)"
    )
    parser.add_argument("--save", type=Path, metavar="FILE.csv", help="also write the rows")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="also draw a roofline")


def run(words: argparse.Namespace) -> int:
    """Measures, tells and writes."""
    for path in (words.save, words.plot):
        if path is not None:
            check_place(path)
    if words.plot is not None and find_spec("matplotlib") is None:
        raise CommandError("--plot needs matplotlib, which is not installed: pip install 'sightline[look]'")
    from sightline.bench.peaks import measure as measure_peaks
    from sightline.cpu.threads import get_num_threads

    with used_threads(words.threads):
        peaks = measure_peaks(get_num_threads())
        _tell_machine(peaks)
        rows = _measured(words, peaks)
        peaks = _again(peaks, measure_peaks(peaks.threads))
    if words.save is not None:
        _save(rows, peaks, words.save)
    if words.plot is not None:
        _plot(rows, peaks, words.plot)
    return 0


def _tell_machine(peaks: Peaks) -> None:
    from sightline.bench.others import LIBRARIES
    from sightline.cpu import isa

    pairs = "" if peaks.pairs is None else f", bfloat16 pairs {peaks.pairs:.0f}"
    missing = [name for name, library in LIBRARIES.items() if not library.installed]
    show.title(f"attention on {peaks.threads} thread{'s' * (peaks.threads > 1)}")
    show.fields(
        [
            ("kernels", isa.why()),
            ("peaks", f"multiply-adds {peaks.fma:.0f} GFLOP/s{pairs}, reading {peaks.read:.1f} GB/s"),
            ("not here", ", ".join(missing) or "nothing that could be compared with"),
        ]
    )


def _again(before: Peaks, after: Peaks) -> Peaks:
    """The better of both; said, if the machine was not the same at both ends."""
    best = before.or_better(after)
    if (
        min(before.fma / best.fma, after.fma / best.fma, before.read / best.read, after.read / best.read)
        < STEADY
    ):
        show.plain()
        show.plain("Something else had this machine for a while: the figures are lower than they could be.")
    return best


def _measured(words: argparse.Namespace, peaks: Peaks) -> list[Row]:
    """Every row, told as soon as it is known."""
    from sightline.bench.measure import Row, measure
    from sightline.bench.others import LIBRARIES

    here = {name: library for name, library in LIBRARIES.items() if library.installed}
    rows: list[Row] = []
    for name in words.shapes:
        show.plain()
        show.title(f"{name}: {SHAPES[name]}")
        cells = []
        for dtype in words.dtypes:
            effort = words.rounds, words.turn
            for found in measure(SHAPES[name], dtype, peaks.threads, here, *effort):
                if isinstance(found, Row):
                    rows.append(found)
                    cells.append(_cells(found, peaks))
                else:
                    show.plain(f"  {found.library}, {found.dtype}: {found.why}")
        _table(cells)
    return rows


def share(row: Row, peaks: Peaks) -> float:
    """What part of what the machine can do: of its arithmetic, or of its reading where that is nearer."""
    return max(row.gflops / peaks.of(row.dtype), row.gigabytes / peaks.read)


def _cells(row: Row, peaks: Peaks) -> tuple[str, ...]:
    times = "" if row.library == "sightline" else f"{row.times:.2f}× as fast"
    return (
        row.dtype, row.library, show.seconds(row.milliseconds / 1e3), f"{row.gflops:.1f}", f"{row.gigabytes:.1f}",
        f"{share(row, peaks):.0%}", times, f"{row.error:.1e}",
    )  # fmt: skip


def _table(cells: list[tuple[str, ...]]) -> None:
    """With rich where it is installed, else in columns."""
    heads = COLUMNS
    if find_spec("rich") is not None:
        from rich.console import Console
        from rich.table import Table

        table = Table(*heads, box=None, pad_edge=False, header_style="dim")
        for column in table.columns[2:]:
            column.justify = "right"
        for row in cells:
            table.add_row(*row, style="bold" if row[1] == "sightline" else None)
        Console(highlight=False, width=None if show.tinted() else show.WIDTH).print(table)
        return
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for line in (heads, *cells):
        show.plain(
            "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )


def _save(rows: list[Row], peaks: Peaks, path: Path) -> None:
    from sightline.bench.measure import Row

    names = [field.name for field in fields(Row)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, "share", "fma_gflops", "pairs_gflops", "read_gigabytes"])
        for row in rows:
            ends = (share(row, peaks), peaks.fma, peaks.pairs or 0.0, peaks.read)
            writer.writerow(
                [f"{x:.5g}" if isinstance(x, float) else x for x in (*asdict(row).values(), *ends)]
            )


def _plot(rows: list[Row], peaks: Peaks, path: Path) -> None:
    from sightline.bench.roofline import Point, draw

    points = [
        Point(
            row.library,
            f"{row.shape} {row.dtype}",
            SHAPES[row.shape].flops / SHAPES[row.shape].bytes(row.dtype),
            row.gflops,
        )
        for row in rows
    ]
    draw(points, peaks, f"attention, {peaks.threads} thread{'s' * (peaks.threads > 1)}", path)


def _names(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Reads names with commas between them."""
    import argparse

    def split(text: str) -> list[str]:
        found = text.split(",")
        for name in found:
            if name not in known:
                raise argparse.ArgumentTypeError(f"there is no {name!r}: the names are {listed(list(known))}")
        return found

    return split
