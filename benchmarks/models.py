"""What whole models gain: sentences read and tokens written a second, with sightline beside PyTorch's attention.

    python -m benchmarks.models                    # both dtypes, one and two threads, some five minutes
    python -m benchmarks.models --thread-time      # on a busy machine: one thread, in its own CPU time; no file

Models of Hugging Face's, in one process, which take turns with `attn_implementation` "sdpa" and "sightline". The
answers are compared first. The time inside of the attention function is taken by a clock around it. What watching
a model costs, beside `output_attentions`, is `benchmarks.watching`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks import machine, model_tasks, results
from benchmarks.turns import settle
from benchmarks.worker import CLOCKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.model_tasks import Task
    from benchmarks.worker import Clock

THEIRS, OURS = WAYS = ("sdpa", "sightline")
DTYPES = ("float32", "bfloat16")


class Took(NamedTuple):
    """Seconds of a turn, and those of them inside of the attention function."""

    seconds: float
    inside: float


@dataclass(frozen=True)
class Row:
    """One way on one task."""

    task: str
    dtype: str
    threads: int
    way: str
    torch: str
    transformers: str
    rounds: int
    ms: float
    per_second: float
    attention_ms: float
    share: float  # of the time, in attention
    ours_faster: float  # this way's time / ours, paired by round
    attention_faster: float
    first_ms: float  # the first turn: kernels are made, and every length of the cache is new
    first_attention_ms: float


COLUMNS = (*results.MACHINE, *(field.name for field in fields(Row)))
HEADER = (
    f"{'task':<22}{'dtype':<9}{'thr':>4} {'attention':<10}{'ms':>9}{'per s':>9}{'its ms':>9}{'share':>7}"
    f"{'ours ×':>8}{'its ×':>7}{'first ms':>10}"
)


def line(row: Row) -> str:
    """One line of the table; 'its' is of the attention alone, 'ours ×' how many times faster sightline is."""
    return (
        f"{row.task:<22}{row.dtype:<9}{row.threads:>4} {row.way:<10}{row.ms:>9.4g}{row.per_second:>9.4g}"
        f"{row.attention_ms:>9.4g}{row.share:>7.1%}{row.ours_faster:>8.3f}{row.attention_faster:>7.2f}"
        f"{row.first_ms:>10.4g}"
    )


class Inside:
    """Both attention functions with a clock around them, under names of their own."""

    def __init__(self, clock: Clock) -> None:
        """Register them with transformers."""
        import sightline.transformers

        self.clock, self.seconds = clock, 0.0
        sightline.transformers.register()
        from transformers import AttentionInterface, AttentionMaskInterface

        for way in WAYS:
            AttentionInterface.register(named(way), self._around(AttentionInterface()[way]))
            AttentionMaskInterface.register(named(way), AttentionMaskInterface()[way])

    def _around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            start = self.clock()
            result = function(*arguments, **options)
            self.seconds += self.clock() - start
            return result

        return timed

    def turn(self, task: Task, way: str) -> tuple[Took, Any]:
        """One turn of a task; its answer."""
        task.model.set_attn_implementation(named(way))
        state = task.start()
        settle(os.getpid())
        self.seconds, start = 0.0, self.clock()
        answer = task.run(state)
        return Took(self.clock() - start, self.seconds), answer


def named(way: str) -> str:
    """What transformers knows the timed function by."""
    return f"{way}_timed"


def measured(task: Task, threads: int, rounds: int, inside: Inside) -> list[Row]:
    """Both ways' rows, if their answers agree."""
    first, answers = {}, {}
    for way in WAYS:
        first[way], answers[way] = inside.turn(task, way)
    wrong, text = task.differ(answers[THEIRS], answers[OURS])
    print(f"{'!' if wrong else '#'} {task.name}, {task.dtype}: {text}{'; not timed' if wrong else ''}")
    if wrong:
        return []
    turns = [{way: inside.turn(task, way)[0] for way in WAYS} for _ in range(rounds)]
    return rows(task, threads, turns, first)


def rows(task: Task, threads: int, turns: Sequence[dict[str, Took]], first: dict[str, Took]) -> list[Row]:
    """From what the turns of each round took."""
    made = []
    for way in WAYS:
        seconds, spent = (float(np.median(x)) for x in zip(*(each[way] for each in turns), strict=True))
        whole = [([each[way].seconds], [each[OURS].seconds]) for each in turns]
        alone = [([each[way].inside], [each[OURS].inside]) for each in turns]
        made.append(
            Row(
                task=task.name,
                dtype=task.dtype,
                threads=threads,
                way=way,
                torch=importlib.metadata.version("torch"),
                transformers=importlib.metadata.version("transformers"),
                rounds=len(turns),
                ms=seconds * 1e3,
                per_second=task.units / seconds,
                attention_ms=spent * 1e3,
                share=spent / seconds,
                ours_faster=results.paired_ratio(whole) or 0.0,
                attention_faster=results.paired_ratio(alone) or 0.0,
                first_ms=first[way].seconds * 1e3,
                first_attention_ms=first[way].inside * 1e3,
            )
        )
    return made


def tasks(dtypes: Sequence[str], chosen: Sequence[str]) -> Iterator[Task]:
    """One after the other: a model lives as long as its task."""
    for dtype in dtypes:
        if "encode" in chosen:
            for batch, tokens in ((32, 128), (1, 512)):
                yield model_tasks.encoding(dtype, batch, tokens, model_tasks.minilm)
        if "decode" in chosen:
            yield model_tasks.writing(dtype, 512, 128)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--dtypes", type=lambda text: text.split(","), default=list(DTYPES))
    parser.add_argument("--tasks", type=lambda text: text.split(","), default=["encode", "decode"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--thread-time", action="store_true", help="one thread, in its own CPU time; no file")
    parser.add_argument("--csv", type=Path, help="append here (default: results/DATE-CPU-models.csv)")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    try:
        import torch

        import sightline

        clock, counts = ("thread", [1]) if args.thread_time else ("wall", args.threads)
        inside = Inside(CLOCKS[clock])
    except ImportError as error:
        raise SystemExit(f"{error.name} is not installed; try pip install torch transformers") from None
    here, found = machine.describe(), []
    for name, value in here.items():
        print(f"# {name}: {value}")
    print(HEADER, flush=True)
    for threads in counts:
        torch.set_num_threads(threads)
        sightline.set_num_threads(threads)
        for task in tasks(args.dtypes, args.tasks):
            cell = measured(task, threads, args.rounds, inside)
            print("\n".join(map(line, cell)), flush=True)
            found += cell
    if not args.thread_time:
        slug = re.sub(r"[^a-z0-9]+", "-", here["cpu"].lower()).strip("-")
        path = args.csv or Path(__file__).parent / "results" / f"{here['date'][:10]}-{slug}-models.csv"
        results.append(path, COLUMNS, ({**here, **asdict(row)} for row in found))
        print(f"# written to {path}")


if __name__ == "__main__":
    main()
