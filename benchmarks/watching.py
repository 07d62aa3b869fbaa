"""What watching a model costs, in time and memory, beside output_attentions and the same numbers from its weights.

    python -m benchmarks.watching                  # half a minute; with --thread-time on a busy machine

One layer of BERT's size (12 heads of 64, random weights) reads 8,192 tokens, each way in a process of its own:

    plain       the model by itself, on PyTorch's function
    watch       … and `sightline.watch`: received, entropy and the top 8 keys
    weights     the same model in eager attention with output_attentions=True
    statistics  … and the same numbers from these weights
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.memory import MIB, Measured, resident
from benchmarks.turns import ROOT
from benchmarks.worker import CLOCKS

TOKENS = 8192
WAYS = ("plain", "watch", "weights", "statistics")
LESS_MEMORY = 10.0


def model(way: str) -> Any:
    """The model, set to the attention that goes with the way."""
    from transformers import BertConfig, BertModel

    config = BertConfig(num_hidden_layers=1, max_position_embeddings=TOKENS)
    how = "sdpa" if way in {"plain", "watch"} else "eager"
    return BertModel._from_config(config, attn_implementation=how).eval()


def read(bert: Any, way: str, tokens: int) -> Any:
    """One text of so many tokens, and what the way gives of it."""
    import torch

    import sightline

    ids = torch.arange(tokens)[None] % 1000
    with torch.no_grad():
        if way == "watch":
            with sightline.watch(bert, sightline.See(received=True, entropy=True, top_keys=8)) as seen:
                bert(ids)
            (layer,) = seen.layers
            return layer.received, layer.entropy, *(layer.top_keys or ())
        if way == "plain":
            return bert(ids).last_hidden_state[..., :0]
        (weights,) = bert(ids, output_attentions=True).attentions
        if way == "weights":
            return weights[..., :0]
        return weights.sum(-2), torch.special.entr(weights).sum(-1), *weights.topk(8)


def one(way: str, threads: int, clock: str) -> Measured:
    """In this process: libraries loaded and kernels compiled by a short text, then the long one."""
    import torch

    import sightline

    torch.set_num_threads(threads)
    sightline.set_num_threads(threads)
    torch.manual_seed(0)
    bert = model(way)
    read(bert, way, 640)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far begins anew
    before, start = resident("VmRSS"), CLOCKS[clock]()
    answer = read(bert, way, TOKENS)
    seconds, growth = CLOCKS[clock]() - start, resident("VmHWM") - before
    returned = sum(x.nbytes for x in answer) if isinstance(answer, tuple) else 0
    return Measured(seconds, (growth - returned) / MIB, returned / MIB)


def measured(way: str, threads: int, clock: str) -> Measured:
    """In a process of its own.

    Raises:
        RuntimeError: it failed; the text says how.
    """
    command = [sys.executable, "-m", "benchmarks.watching", "--one", way, "--threads", str(threads)]
    command += ["--thread-time"] if clock == "thread" else []
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def verdicts(found: dict[str, Measured]) -> list[str]:
    """Against what was aimed at."""
    watch, weights = found["watch"], found["weights"]
    less, faster = weights.growth / max(watch.growth, 0.1), weights.seconds / watch.seconds
    extra = max(watch.growth - found["plain"].growth, 0.0)
    return [
        f"{less:.0f}× less memory than output_attentions, at least {LESS_MEMORY:g}×: "
        f"{'met' if less >= LESS_MEMORY else 'MISSED'}; {extra:.0f} MiB more than the model by itself",
        f"{faster:.2f}× as fast as output_attentions, faster: {'met' if faster > 1 else 'MISSED'}; "
        f"{found['statistics'].seconds / watch.seconds:.2f}× as fast as with the same numbers from its weights",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--thread-time", action="store_true", help="in the thread's own CPU time: one thread")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    clock, threads = ("thread", 1) if args.thread_time else ("wall", args.threads)
    if args.one:
        print(json.dumps(one(args.one, threads, clock)._asdict()))
        return
    found = {}
    for way in WAYS:
        found[way] = measured(way, threads, clock)
        seconds, growth, returned = found[way]
        print(
            f"{way:<12}{seconds:>8.2f} s{growth:>10.1f} MiB beyond the model and {returned:.1f} MiB of answers"
        )
    print("\n".join(verdicts(found)))


if __name__ == "__main__":
    main()
