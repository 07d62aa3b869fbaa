"""What asking costs: times the plain call, memory beyond inputs and outputs, PyTorch's ways to the same.

    python -m benchmarks.seeing                  # all of it, some four minutes on two cores
    python -m benchmarks.seeing --thread-time    # on a busy machine: one thread, in its own CPU time; no file

Everything that is timed is checked first, against the definition in float64.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import machine, results
from benchmarks.check_seen import KEPT
from benchmarks.field import Effort, Field
from benchmarks.memory import Measured, measure
from benchmarks.peers import OURS, PEERS, Peer
from benchmarks.questions import (
    DTYPES,
    FASTER_THAN_EAGER,
    LESS_MEMORY_THAN_EAGER,
    MOST_MEMORY,
    QUESTIONS,
    TORCH,
)
from benchmarks.shapes import SHAPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SHAPE = "prefill64-causal"
LONG = ("long-32k", "long-65k", "long-131k")
TILE = 64
MEMORY_COLUMNS = (
    *results.MACHINE,
    "question",
    "shape",
    "dtype",
    "threads",
    "seconds",
    "growth_mib",
    "returned_mib",
)


class Call(NamedTuple):
    """One call in a process of its own."""

    question: str
    shape: str
    dtype: str
    threads: int
    found: Measured


def asked() -> list[Peer]:
    """The plain call under its usual name, so that ratios are taken to it, and every question that can be put."""
    questions = [q for q in QUESTIONS.values() if q.name not in {"plain", "everything"} and q.installed()]
    return [PEERS[OURS], *questions]


def times(threads: int, dtypes: Iterable[str], effort: Effort, clock: str) -> list[results.Row]:
    """The table of one thread count."""
    rows: list[results.Row] = []
    with Field(asked(), threads, None, clock) as field:
        for dtype in dtypes:
            cell = field.cell(SHAPES[SHAPE], dtype, effort)
            print("\n".join(map(cost_line, cell)), flush=True)
            rows += cell
    return rows


HEADER = (
    f"{'dtype':<9}{'thr':>4}  {'asked':<22}{'ms':>9}{'p20':>9}{'p80':>9}{'cost':>9}{'at most':>9}{'probe':>7}"
)


def cost_line(row: results.Row) -> str:
    """One line of the table; 'cost' is times the plain call, ~ marks a disturbed machine."""
    limit = QUESTIONS[row.peer].at_most if row.peer in QUESTIONS else None
    cost, probe = row.ours_faster or 0.0, row.probe_low / row.probe_best
    word = "" if limit is None else f"{limit:>8.2f}× {'met' if cost <= limit else 'MISSED'}"
    return (
        f"{row.dtype:<9}{row.threads:>4}  {row.peer:<22}{row.p50_ms:>9.4g}{row.p20_ms:>9.4g}{row.p80_ms:>9.4g}"
        f"{cost:>8.3f}×{word:<16}{probe:>5.0%}{'~' if probe < results.DISTURBED else ''}"
    )


def against_eager(rows: Sequence[results.Row], calls: Sequence[Call]) -> list[str]:
    """How many times faster, and with how many times less memory, than eager weights with the same statistics."""
    texts = []
    for row in rows:
        ours = [r for r in rows if (r.peer, r.dtype, r.threads) == ("as eager", row.dtype, row.threads)]
        if row.peer in TORCH and ours and row.ours_faster and ours[0].ours_faster:
            faster = row.ours_faster / ours[0].ours_faster
            limit = _at_least(faster, FASTER_THAN_EAGER) if row.peer == TORCH[0] else ""
            texts.append(f"{row.dtype:<9}{row.threads:>4}  {faster:>6.1f}× faster than {row.peer}{limit}")
    for call in calls:
        same = [c for c in calls if (c.question, c.shape, c.dtype) == ("as eager", call.shape, call.dtype)]
        if call.question in TORCH and same:
            less = call.found.growth / max(same[0].found.growth, 0.1)
            limit = _at_least(less, LESS_MEMORY_THAN_EAGER) if call.question == TORCH[0] else ""
            texts.append(f"{call.dtype:<9}      {less:>6.0f}× less memory than {call.question}{limit}")
    return texts


def _at_least(found: float, limit: float) -> str:
    return f", at least {limit:g}×: {'met' if found >= limit else 'MISSED'}"


def called(question: str, shape: str, dtype: str, threads: int, clock: str) -> list[Call]:
    """One call in its own process, told in a line; none if it failed."""
    try:
        found = measure(QUESTIONS[question], shape, dtype, threads, clock)
    except RuntimeError as error:
        print(f"! {question}, {shape}, {dtype}: {error}")
        return []
    print(
        f"{dtype:<9}{threads:>4}  {question:<22}{shape:<18}{found.seconds:>9.3f} s{found.growth:>9.2f} MiB beyond"
        f" the inputs and {found.returned:.2f} MiB of outputs",
        flush=True,
    )
    return [Call(question, shape, dtype, threads, found)]


def linear(calls: Sequence[Call]) -> list[str]:
    """The time of one visible tile of 64 × 64 at each length, and the memory at the longest."""
    texts = []
    for call in calls:
        tiles = SHAPES[call.shape].queries // TILE
        each = call.found.seconds / (tiles * (tiles + 1) / 2) * 1e9
        texts.append(
            f"{call.shape:<12}{each:>8.0f} ns for each of the {tiles * (tiles + 1) // 2:,} visible tiles"
        )
    for call in calls:
        if call.shape == LONG[-1]:
            word = "met" if call.found.growth < MOST_MEMORY else "MISSED"
            texts.append(f"{call.shape:<12}{call.found.growth:>8.1f} MiB, less than {MOST_MEMORY:g}: {word}")
    return texts


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--dtypes", type=lambda text: text.split(","), default=list(DTYPES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--turn", type=float, default=0.2, help="seconds of timed calls in one turn")
    parser.add_argument("--thread-time", action="store_true", help="one thread, in its own CPU time; no file")
    parser.add_argument(
        "--csv", type=Path, help="append here, memory beside it (default: results/DATE-CPU-seeing.csv)"
    )
    parser.add_argument("--no-long", action="store_true", help="leave out the lengths of 32k to 131k")
    return parser.parse_args()


def write(
    rows: Sequence[results.Row], calls: Sequence[Call], here: dict[str, str], path: Path | None
) -> None:
    """Both tables: times to `path`, memory to a file of that name with -memory."""
    slug = re.sub(r"[^a-z0-9]+", "-", here["cpu"].lower()).strip("-")
    path = path or Path(__file__).parent / "results" / f"{here['date'][:10]}-{slug}-seeing.csv"
    results.write_csv(path, rows, here)
    made = ((here.values(), call[:4], call.found) for call in calls)
    memory = (dict(zip(MEMORY_COLUMNS, (*a, *b, *c), strict=True)) for a, b, c in made)
    results.append(path.with_stem(f"{path.stem}-memory"), MEMORY_COLUMNS, memory)
    print(f"# written to {path} and, memory, beside it")


def main() -> None:
    args = arguments()
    clock, threads = ("thread", [1]) if args.thread_time else ("wall", args.threads)
    here = machine.describe()
    for name, value in here.items():
        print(f"# {name}: {value}")
    rows: list[results.Row] = []
    calls: list[Call] = []
    long: list[Call] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ[KEPT] = folder
        print(HEADER, flush=True)
        for count in threads:
            rows += times(count, args.dtypes, Effort(args.rounds, args.turn), clock)
        for dtype in args.dtypes:
            for question in QUESTIONS.values():
                if question.installed():
                    calls += called(question.name, SHAPE, dtype, threads[-1], clock)
        for shape in () if args.no_long else LONG:
            long += called("everything", shape, "float32", threads[-1], clock)
    print("\n".join([*against_eager(rows, calls), *linear(long)]))
    if not args.thread_time:
        write(rows, [*calls, *long], here, args.csv)


if __name__ == "__main__":
    main()
