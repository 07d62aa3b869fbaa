"""Relative Frobenius error against float64, of sightline and its peers, in each dtype.

Twice: inputs ~ N(0,1), and with logits eight times larger, where one key takes nearly all the weight and an
implementation that rounds its scores to the inputs' dtype shows it. Sampled rows of a long call; the
definition computes from the inputs as rounded. Sightline is to stay within 1.2 times PyTorch's error.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from benchmarks.field import Field
from benchmarks.peers import OURS, PEERS
from benchmarks.run import chosen_peers
from benchmarks.shapes import DTYPES, SHAPES

if TYPE_CHECKING:
    from collections.abc import Mapping

ALLOWED = 1.2  # times PyTorch's error
LOGITS = (1.0, 8.0)
ROWS = 64


def verdict(errors: Mapping[str, float]) -> str:
    """Our error over PyTorch's, and whether that is allowed; empty where one of the two is missing."""
    if OURS not in errors or "torch" not in errors:
        return ""
    ratio = errors[OURS] / errors["torch"]
    return f"{ratio:.2f}× torch's, {'met' if ratio <= ALLOWED else 'MISSED'}"


def main() -> None:
    parser = argparse.ArgumentParser(description="relative errors against float64")
    parser.add_argument("--shape", choices=list(SHAPES), default="prefill64")
    parser.add_argument("--isa", choices=["avx2"])
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    peers = chosen_peers(list(PEERS), args.isa)
    names = [peer.name for peer in peers]
    print(f"{'dtype':<10}{'logits':>7}" + "".join(f"{name:>16}" for name in names))
    with Field(peers, args.threads, args.isa) as field:
        for dtype in DTYPES:
            for logits in LOGITS:
                found = field.checked(SHAPES[args.shape], dtype, logits, ROWS)
                errors = {name: checked.error for name, checked in found}
                cells = (f"{errors[name]:>16.2e}" if name in errors else f"{'–':>16}" for name in names)
                print(f"{dtype:<10}{logits:>6.0f}×" + "".join(cells) + f"   {verdict(errors)}", flush=True)


if __name__ == "__main__":
    main()
