"""Measured rows: what a row holds, the CSV they are kept in, and the table that is printed."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from benchmarks.shapes import Shape

DISTURBED = 0.8  # of the probe's best
MACHINE = ("date", "cpu", "cores", "system", "python")


@dataclass(frozen=True)
class Row:
    """One peer on one shape, dtype and thread count."""

    shape: str
    sizes: str  # B Hq Hkv Lq Lk D
    options: str  # causal, window, mask
    dtype: str
    threads: int
    isa: str  # forced, or "native"
    peer: str
    library: str
    version: str
    rounds: int
    calls: int
    p20_ms: float
    p50_ms: float
    p80_ms: float
    gflops: float
    ours_faster: float | None  # peer's time / ours, paired by round; None when ours did not run
    error: float  # relative, against float64
    first_ms: float
    probe_low: float  # GFLOP/s of a matrix product timed between the rounds: its slowest
    probe_best: float  # and its best in this run; far apart, the machine was disturbed
    gigabytes: float = 0.0  # GB/s of query, key, value and output, each once
    peak_gflops: float = 0.0  # what a loop of multiply-adds (of pairs, in bfloat16) reached in this run …
    peak_read: float = 0.0  # … and GB/s of a loop that only reads, before this cell or after it


COLUMNS = (*MACHINE, *(field.name for field in fields(Row)))


def options(shape: Shape) -> str:
    """Who may see whom, in words."""
    parts = ["causal"] if shape.causal else []
    parts += [f"window {shape.window[0]},{shape.window[1]}"] if shape.window else []
    parts += [f"mask {shape.mask}"] if shape.mask else []
    return " + ".join(parts)


def sizes(shape: Shape) -> str:
    """B Hq Hkv Lq Lk D."""
    s = shape
    return f"{s.batch} {s.heads} {s.kv_heads} {s.queries} {s.keys} {s.dim}"


def paired_ratio(rounds: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float | None:
    """How many times ours is faster: median over rounds (their seconds, ours) of the medians' ratio."""
    if not rounds:
        return None
    return float(np.median([np.median(theirs) / np.median(ours) for theirs, ours in rounds]))


def write_csv(path: Path, rows: Iterable[Row], machine: dict[str, str]) -> None:
    """Append to `path`, with a header if it is new."""
    append(path, COLUMNS, ({**machine, **asdict(row)} for row in rows))


def append(path: Path, columns: Sequence[str], rows: Iterable[dict[str, object]]) -> None:
    """Append rows to a CSV file, with a header if it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if new:
            writer.writeheader()
        for row in rows:
            writer.writerow({name: _cell(value) for name, value in row.items()})


def _cell(value: object) -> object:
    return f"{value:.5g}" if isinstance(value, float) else value


HEADER = (
    f"{'shape':<18}{'dtype':<9}{'thr':>4} {'peer':<15}{'ms':>10}{'p20':>10}{'p80':>10}"
    f"{'GFLOP/s':>9}{'ours ×':>8}{'error':>9}{'first ms':>10}{'probe':>7}"
)


def line(row: Row) -> str:
    """One line of the table; 'ours ×' is how many times faster sightline is, ~ marks a disturbed machine."""
    faster = "" if row.ours_faster is None else f"{row.ours_faster:.2f}"
    probe = row.probe_low / row.probe_best
    return (
        f"{row.shape:<18}{row.dtype:<9}{row.threads:>4} {row.peer:<15}{row.p50_ms:>10.4g}{row.p20_ms:>10.4g}"
        f"{row.p80_ms:>10.4g}{row.gflops:>9.1f}{faster:>8}{row.error:>9.1e}{row.first_ms:>10.4g}"
        f"{probe:>6.0%}{'~' if probe < DISTURBED else ''}"
    )
