"""Timings of `sightline.attention` beside the other CPU implementations of attention.

    python -m benchmarks.run                              # the table of targets, one and two threads
    python -m benchmarks.run --shapes bert,vit --dtypes float32,bfloat16 --threads 1
    python -m benchmarks.run --isa avx2 --shapes prefill64   # ours and PyTorch held to AVX2
    python -m benchmarks.run --shapes decode,decode-long --dtypes float32,bfloat16 --plot roofline.png
    python -m benchmarks.run --quick                      # a minute: does everything work?
    python -m benchmarks.accuracy                         # relative errors against float64
    python -m benchmarks.overhead                         # a tiny call, the first call, the import
    python -m benchmarks.seeing                           # what `see=` costs, in time and memory
    python -m benchmarks.watching                         # what watching a model costs
    python -m benchmarks.training                         # forward and backward beside PyTorch, and errors
    python -m benchmarks.models                           # sentences read and tokens written by whole models

Run from the repository's root. Peers that are not installed are left out and named; `pip install torch`
(its CPU build) and `pip install -e .[bench]` bring them all.

| file | job |
|---|---|
| `shapes.py` | the named calls, their FLOPs and inputs, and the targets |
| `peers/` | one file per library: how to call it at its best |
| `worker.py` | the process that holds one peer |
| `turns.py` | starting workers, giving them their turns, waiting until their threads sleep |
| `check.py` | sampled rows of a peer's output against `sightline.reference` |
| `check_gradients.py` | sampled rows of its gradients likewise |
| `model_tasks.py` | what whole models are given to do, and when two answers are the same |
| `questions.py`, `check_seen.py` | what `see=` is asked and may cost; whether the answers are right |
| `memory.py` | one call in a process of its own: memory beyond inputs and outputs |
| `results.py` | measured rows: CSV and table |
| `machine.py` | where and when |
| `run.py`, `accuracy.py`, `overhead.py`, `seeing.py`, `watching.py`, `training.py`, `models.py` | the programs |
| `NOTES.md` | how measuring works here, and what was tried, predicted and found |
"""
