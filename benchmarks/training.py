"""A training step's attention, forward and backward: `sightline.torch` beside PyTorch's own function.

    python -m benchmarks.training                  # both dtypes, one and two threads, some ten minutes
    python -m benchmarks.training --thread-time    # on a busy machine: one thread, in its own CPU time; no file

Gradients of sampled rows are checked against the definition in float64 before anything is timed. Their errors are
printed over PyTorch's, also with logits 8 and 40 times larger, where scores reach some 40 and 200.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import machine, results
from benchmarks.check_gradients import NAMES
from benchmarks.field import Effort, Field
from benchmarks.peers import STEPS
from benchmarks.shapes import SHAPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

CAUSAL = ("prefill64-causal", "gqa")
DTYPES = ("float32", "bfloat16")
LOGITS = (8.0, 40.0)
PARTS = {"forward": ("sightline forward", "torch forward"), "step": ("sightline step", "torch step")}
PRODUCTS = {"forward": 1.0, "step": 3.5}  # times the forward's two: the backward has five
MOST_ERROR = 1.2  # times PyTorch's
COLUMNS = (*results.COLUMNS, *(f"d_{name}_error" for name in NAMES))

Errors = dict[str, float]


HEADER = (
    f"{'shape':<18}{'dtype':<9}{'thr':>4} {'peer':<18}{'ms':>9}{'p20':>9}{'p80':>9}{'GFLOP/s':>9}"
    f"{'ours ×':>8}{'probe':>7}"
)


def line(row: results.Row) -> str:
    """One line of the table; 'ours ×' is how many times faster sightline is at the same part."""
    faster = "" if row.ours_faster is None else f"{row.ours_faster:.2f}"
    probe = row.probe_low / row.probe_best
    return (
        f"{row.shape:<18}{row.dtype:<9}{row.threads:>4} {row.peer:<18}{row.p50_ms:>9.4g}{row.p20_ms:>9.4g}"
        f"{row.p80_ms:>9.4g}{row.gflops:>9.1f}{faster:>8}{probe:>6.0%}{'~' if probe < results.DISTURBED else ''}"
    )


def error_line(shape: str, dtype: str, logits: float, ours: Mapping[str, float], theirs: Errors) -> str:
    """Relative errors of our gradients, and how many times PyTorch's they are; empty where one is missing."""
    if not (ours and theirs):
        return ""
    ratios = {name: ours[name] / theirs[name] for name in NAMES}
    cells = "".join(f"   d_{name} {ours[name]:.2e}, {ratios[name]:.2f}×" for name in NAMES)
    word = "met" if max(ratios.values()) <= MOST_ERROR else "MISSED"
    return f"{shape:<18}{dtype:<9}{logits:>3.0f}×{cells}   at most {MOST_ERROR}× torch's: {word}"


def timed(field: Field, part: str, shape: str, dtype: str, effort: Effort) -> list[results.Row]:
    """The rows of one part of the step, with all its products counted."""
    cell = field.cell(SHAPES[shape], dtype, effort)
    return [replace(row, gflops=row.gflops * PRODUCTS[part]) for row in cell]


def errors(field: Field, shape: str, dtype: str, logits: Iterable[float]) -> list[str]:
    """A line for the logits as they are, from the cell that was timed, and for each that is larger."""
    ours, theirs = PARTS["step"]
    known = field.gradient_errors
    texts = [error_line(shape, dtype, 1.0, *(known.get((shape, dtype, name), {}) for name in (ours, theirs)))]
    for times in logits:
        found = {name: each.gradients for name, each in field.checked(SHAPES[shape], dtype, times)}
        texts.append(error_line(shape, dtype, times, found.get(ours, {}), found.get(theirs, {})))
    return [text for text in texts if text]


def write(
    path: Path,
    rows: Sequence[results.Row],
    found: Mapping[tuple[str, str, str], Errors],
    here: dict[str, str],
) -> None:
    """Append the rows, each with the errors of its gradients, if it makes any."""
    made = []
    for row in rows:
        each = found.get((row.shape, row.dtype, row.peer), {})
        made.append({**here, **asdict(row), **{f"d_{name}_error": each.get(name) for name in NAMES}})
    results.append(path, COLUMNS, made)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--shapes", type=lambda text: text.split(","), default=list(CAUSAL))
    parser.add_argument("--dtypes", type=lambda text: text.split(","), default=list(DTYPES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--turn", type=float, default=0.5, help="seconds of timed calls in one turn")
    parser.add_argument("--thread-time", action="store_true", help="one thread, in its own CPU time; no file")
    parser.add_argument("--no-logits", action="store_true", help="no errors with larger logits")
    parser.add_argument("--csv", type=Path, help="append here (default: results/DATE-CPU-training.csv)")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    if importlib.util.find_spec("torch") is None:
        raise SystemExit("torch is not installed; try pip install torch")
    clock, counts = ("thread", [1]) if args.thread_time else ("wall", args.threads)
    here, effort = machine.describe(), Effort(args.rounds, args.turn)
    for name, value in here.items():
        print(f"# {name}: {value}")
    print(HEADER, flush=True)
    rows: list[results.Row] = []
    texts: list[str] = []
    known: dict[tuple[str, str, str], Errors] = {}
    for threads in counts:
        for part, names in PARTS.items():
            peers = [STEPS[name] for name in names]
            with Field(peers, threads, None, clock, ours=names[0]) as field:
                for shape in args.shapes:
                    for dtype in args.dtypes:
                        cell = timed(field, part, shape, dtype, effort)
                        print("\n".join(map(line, cell)), flush=True)
                        rows += cell
                        if part == "step" and threads == counts[-1]:
                            texts += errors(field, shape, dtype, () if args.no_logits else LOGITS)
                known |= field.gradient_errors
    print("\n".join(texts))
    if not args.thread_time:
        slug = re.sub(r"[^a-z0-9]+", "-", here["cpu"].lower()).strip("-")
        path = args.csv or Path(__file__).parent / "results" / f"{here['date'][:10]}-{slug}-training.csv"
        write(path, rows, known, here)
        print(f"# written to {path}")


if __name__ == "__main__":
    main()
