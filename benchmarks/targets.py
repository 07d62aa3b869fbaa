"""What each cell of the table is to reach, and in which words it is said whether it did.

Three kinds: times as fast as the fastest peer (or one library's fastest), a share of what the machine can do,
measured in the same run, and at most so many times our own time without a mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from benchmarks.peers import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.results import Row

HIGH = f"{OURS}-high"  # ours, with precision="high"


class Target(NamedTuple):
    """`ours` is to be `at_least` times as fast as the fastest peer of `library`, or of all."""

    shape: str
    at_least: float
    dtype: str = "float32"
    library: str = ""
    ours: str = OURS
    isa: str = "native"
    matrix_unit: bool = False  # asked only of processors that have one


# With a matrix unit, over the fastest of all, by shape: bfloat16, float16, float32, float32 with precision="high".
_ON_MATRIX_UNITS = {
    "prefill64": (3.0, 3.5, 2.0, 3.2),
    "prefill64-causal": (3.0, 3.5, 2.0, 3.2),
    "prefill128": (2.5, 3.5, 1.8, 3.0),
    "prefill128-causal": (2.5, 3.5, 1.8, 3.0),
    "gqa": (2.5, 3.5, 2.0, 3.0),
    "bert": (2.2, 2.5, 1.5, 2.0),
    "vit": (2.5, 3.0, 1.7, 2.5),
    "head80": (2.5, 3.0, 1.7, 2.5),
    "head40": (2.5, 3.0, 1.7, 2.5),
}
_COLUMNS = (("bfloat16", OURS), ("float16", OURS), ("float32", OURS), ("float32", HIGH))
TARGETS = [
    *(
        Target(shape, at_least, dtype, ours=ours, matrix_unit=True)
        for shape, aims in _ON_MATRIX_UNITS.items()
        for (dtype, ours), at_least in zip(_COLUMNS, aims, strict=True)
    ),
    *(Target(shape, 1.4, dtype) for shape in ("decode", "decode-batch") for dtype in ("bfloat16", "float16")),
    Target("prefill64", 1.1, library="torch"),
    Target("prefill64-causal", 1.1, library="torch"),
    Target("prefill128", 1.1, library="torch"),
    Target("prefill128-causal", 1.1, library="torch"),
    Target("bert", 1.4, library="torch"),
    Target("bert", 1.05, library="onnxruntime"),
    Target("vit", 1.3, library="torch"),
    Target("window", 8.0, library="torch"),
    Target("documents", 4.0, library="torch"),
    Target("prefill64", 1.1, library="torch", isa="avx2"),
]
READ, LEAST_READ = ("decode", "decode-batch"), 0.85  # of the read bandwidth
COMPUTED, LEAST_COMPUTED = (
    "prefill128",
    0.85,
)  # in float32, of the multiply-adds, where there is no matrix unit
MASKED, UNMASKED, MOST_FOR_MASK = "random", "square2048", 1.15  # times our own time without the mask
TABLE = list(dict.fromkeys([*(target.shape for target in TARGETS), UNMASKED, MASKED]))

Cell = tuple[str, str, int, str]  # shape, dtype, threads, instruction set


def verdicts(rows: Sequence[Row], *, matrix_unit: bool) -> list[str]:
    """For each cell where ours ran: the best peer, and the targets met or missed."""
    cells: dict[Cell, list[Row]] = {}
    for row in rows:
        cells.setdefault((row.shape, row.dtype, row.threads, row.isa), []).append(row)
    return [text for cell, found in cells.items() for text in _verdict(cell, found, matrix_unit=matrix_unit)]


def own_verdicts(rows: Sequence[Row], *, matrix_unit: bool) -> list[str]:
    """What is asked of us beside ourselves and the machine: reading and multiplying, and the mask's price."""
    own = {(row.shape, row.dtype, row.threads, row.isa): row for row in rows if row.peer == OURS}
    return [
        _where(cell) + text
        for cell, row in own.items()
        for text in _alone(cell, row, own, matrix_unit=matrix_unit)
    ]


def _verdict(cell: Cell, rows: list[Row], *, matrix_unit: bool) -> Iterator[str]:
    shape, dtype, _, isa = cell
    peers = {row.peer: row for row in rows if not row.peer.startswith(OURS) and row.ours_faster is not None}
    if not peers:
        return
    times = {name: row.ours_faster or 0.0 for name, row in peers.items()}
    best = min(times, key=times.__getitem__)
    yield f"{_where(cell)}{times[best]:>7.2f}× the best peer, {best}"
    ours = {row.peer: row.ours_faster or 0.0 for row in rows if row.peer.startswith(OURS)} | {OURS: 1.0}
    for target in TARGETS:
        known = [times[name] for name, row in peers.items() if target.library in {"", row.library}]
        here = (target.shape, target.dtype, target.isa) == (shape, dtype, isa)
        asked = here and known and target.ours in ours and (matrix_unit or not target.matrix_unit)
        if asked:
            reached = min(known) / ours[target.ours]
            whom = target.library or "the best peer"
            whom += "" if target.ours == OURS else f" by {target.ours}"
            word = _word(reached, target.at_least)
            yield f"{_where(cell)}{reached:>7.2f}× {whom}, target {target.at_least}×: {word}"


def _alone(cell: Cell, row: Row, own: dict[Cell, Row], *, matrix_unit: bool) -> Iterator[str]:
    shape, dtype, threads, isa = cell
    if shape in READ and row.peak_read:
        part = row.gigabytes / row.peak_read
        yield f"{part:>7.0%} of {row.peak_read:.1f} GB/s read, target {LEAST_READ:.0%}: {_word(part, LEAST_READ)}"
    if (shape, dtype, isa) == (COMPUTED, "float32", "native") and row.peak_gflops and not matrix_unit:
        part = row.gflops / row.peak_gflops
        peak, word = f"{row.peak_gflops:.0f} GFLOP/s", _word(part, LEAST_COMPUTED)
        yield f"{part:>7.0%} of {peak} of multiply-adds, target {LEAST_COMPUTED:.0%}: {word}"
    if shape == MASKED and (plain := own.get((UNMASKED, dtype, threads, isa))):
        times = row.p50_ms / plain.p50_ms
        word = "met" if times <= MOST_FOR_MASK else "MISSED"
        yield f"{times:>7.2f}× our own without the mask, at most {MOST_FOR_MASK}×: {word}"


def _where(cell: Cell) -> str:
    shape, dtype, threads, isa = cell
    return f"{shape:<18}{dtype:<9}{threads:>4} {isa:<8}"


def _word(reached: float, at_least: float) -> str:
    return "met" if reached >= at_least else "MISSED"
