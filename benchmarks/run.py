"""The table: sightline and its peers, side by side, over named shapes, threads and dtypes."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import machine, results
from benchmarks.field import Effort, Field
from benchmarks.peers import OURS, PEERS, Peer
from benchmarks.shapes import DTYPES, QUICK, SHAPES
from benchmarks.targets import TABLE, own_verdicts, verdicts
from sightline.bench.peaks import Peaks
from sightline.bench.roofline import Point, draw
from sightline.cpu.isa import detect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def chosen_peers(names: list[str], isa: str | None) -> list[Peer]:
    """The peers to run: installed, and able to be held to `isa`; the others are named once."""
    peers = []
    for name in names:
        peer = PEERS[name]
        if not peer.installed():
            print(f"# {name}: {peer.library} is not installed")
        elif isa is not None and peer.avx2 is None:
            print(f"# {name}: cannot be held to {isa}")
        else:
            peers.append(peer)
    return peers


def arguments() -> argparse.Namespace:
    def names(known: Iterable[str]) -> Callable[[str], list[str]]:
        def split(text: str) -> list[str]:
            unknown = [name for name in text.split(",") if name not in known]
            if unknown:
                raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
            return text.split(",")

        return split

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--shapes", type=names(SHAPES), default=None, help="default: the table")
    parser.add_argument("--dtypes", type=names(DTYPES), default=["float32", "bfloat16", "float16"])
    parser.add_argument("--peers", type=names(PEERS), default=list(PEERS))
    parser.add_argument("--isa", choices=["avx2"], help="hold ours and PyTorch to it")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--turn", type=float, default=0.12, help="seconds of timed calls in one turn")
    parser.add_argument("--quick", action="store_true", help="small shapes, two rounds, no file")
    parser.add_argument("--plot", type=Path, help="draw a roofline of the most threads' rows (PNG)")
    parser.add_argument("--csv", type=Path, help="append the rows here (default: results/DATE-CPU.csv)")
    return parser.parse_args()


def plot(rows: list[results.Row], cpu: str, path: Path) -> None:
    """A roofline of the rows with most threads, under the best peaks of the run."""
    most = max(row.threads for row in rows)
    own = [row for row in rows if row.threads == most]
    best = {
        dtype: max(row.peak_gflops for row in own if row.dtype == dtype)
        for dtype in {row.dtype for row in own}
    }
    peaks = Peaks(
        most, best.get("float32", max(best.values())), best.get("bfloat16"), max(r.peak_read for r in own)
    )
    points = [
        Point(row.peer, f"{row.shape} {row.dtype}", SHAPES[row.shape].flops() / SHAPES[row.shape].bytes(row.dtype),
              row.gflops)
        for row in sorted(own, key=lambda row: row.peer != OURS)
    ]  # fmt: skip
    draw(points, peaks, f"{cpu}, {most} threads", path)


def main() -> None:
    args = arguments()
    here = machine.describe()
    shapes = args.shapes or (QUICK if args.quick else TABLE)
    effort = Effort(2, 0.02) if args.quick else Effort(args.rounds, args.turn)
    for name, value in here.items():
        print(f"# {name}: {value}")
    peers = chosen_peers(args.peers, args.isa)
    print(results.HEADER, flush=True)
    rows: list[results.Row] = []
    for threads in args.threads:
        with Field(peers, threads, args.isa) as field:
            for shape in shapes:
                for dtype in args.dtypes:
                    cell = field.cell(SHAPES[shape], dtype, effort)
                    print("\n".join(map(results.line, cell)), flush=True)
                    rows += cell
    matrix_unit = args.isa is None and detect().multiplies_tiles
    for say in (verdicts, own_verdicts):
        print("\n".join(say(rows, matrix_unit=matrix_unit)))
    if args.plot:
        plot(rows, here["cpu"], args.plot)
    if args.csv or not args.quick:
        slug = re.sub(r"[^a-z0-9]+", "-", here["cpu"].lower()).strip("-")
        path = args.csv or Path(__file__).parent / "results" / f"{here['date'][:10]}-{slug}.csv"
        results.write_csv(path, rows, here)
        print(f"# written to {path}")


if __name__ == "__main__":
    main()
