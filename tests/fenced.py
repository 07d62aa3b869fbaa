"""A program that runs the kernels amid forbidden memory: a kernel that reads or writes past an array dies.

Usage: python fenced.py DTYPE. Each array lies against a page that may not be touched, first before its end
and then before its start. Inputs may not be written either, and the workspace has a fence of its own. Prints
the name of each case before it runs, so that the last line tells which one it died of; exits with 1 where the
answer differs from that on plain memory, or something was written beside the output.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

import matrix_unit
import sightline
from cases import DTYPES, Case, build, documents, ints, lying, per_head, random_bias, random_mask
from corners import every_other, poison_keys, put, reversed_dims, reversed_lengths
from sightline import arrays
from sightline.cpu import run, sums
from sightline.see import PER_QUERY, Received, See, Seen

if TYPE_CHECKING:
    from cases import Array

PAGE = mmap.PAGESIZE
CANARY = 0xA5
FORBIDDEN, READ = 0, mmap.PROT_READ
_c = ctypes.CDLL(None, use_errno=True)
_kept: list[mmap.mmap] = []

LOOK = See(
    received=Received(slice(1, None, 2), normalize=True),
    top_keys=3,
    pooled=(5, 37),
    diagonals=True,
    rows=(0, -1),
)
CASES = [
    Case("plain", lengths=(67, 131)),
    Case("one-query", lengths=(1, 129)),
    Case("one-key", lengths=(65, 1)),
    Case("grouped", heads=(6, 2), lengths=(5, 67)),
    Case("layout", lengths=(67, 131), options={"layout": "BLHD"}),
    Case("key-lengths", batch=(3,), lengths=(9, 131), options={"key_lengths": ints(0, 77, 131)}),
    Case("odd-dims", lengths=(67, 131), dims=(7, 41)),
    Case("causal", lengths=(67, 67), options={"causal": True}),
    Case("causal-offset", lengths=(67, 131), options={"causal": True, "query_offset": 64}),
    Case("window", lengths=(131, 131), options={"window": (9, 3)}),
    Case("mask", lengths=(67, 131), options={"mask": random_mask("hqk")}),
    Case("mask-of-keys", lengths=(67, 131), options={"mask": random_mask("bk")}),
    Case("mask-documents", lengths=(131, 131), options={"mask": documents(5)}),
    Case("mask-reversed", lengths=(67, 131), options={"mask": lying(reversed_dims, random_mask("hqk"))}),
    Case(
        "nan-behind-mask", lengths=(67, 131), poison=poison_keys(9, 99), options={"mask": random_mask("qk")}
    ),
    Case("bias", lengths=(67, 131), options={"bias": random_bias("hqk")}),
    Case("bias-float16", lengths=(67, 131), options={"bias": random_bias("bqk", "float16")}),
    Case("bias-every-other", lengths=(67, 131), options={"bias": lying(every_other, random_bias("hqk"))}),
    Case("see", batch=(2,), heads=(6, 2), lengths=(5, 131), options={"see": PER_QUERY}),
    Case(
        "see-nan-value",
        lengths=(67, 131),
        poison=put("value", np.nan, 0, 9, 3),
        options={"see": PER_QUERY, "query_offset": 64, "causal": True},
    ),
    Case("look", heads=(4, 2), lengths=(67, 131), options={"see": LOOK}),
    Case("look-causal-in-runs", lengths=(601, 601), dims=(9, 3), options={"see": LOOK, "causal": True}),
    Case(
        "look-window-masked",
        lengths=(131, 131),
        options={"see": LOOK, "window": (9, 3), "mask": random_mask("hqk")},
    ),
    Case("look-one-key", lengths=(65, 1), options={"see": LOOK}),
    Case("strided", lengths=(67, 131), dims=(41, 41), arrange=every_other),
    Case("reversed", lengths=(67, 131), arrange=reversed_lengths),
    Case(
        "everything",
        heads=(4, 2),
        lengths=(43, 151),
        dims=(41, 23),
        options={
            "mask": random_mask("bqk", 0.8),
            "bias": random_bias("hqk", hidden=0.1),
            "causal": True,
            "window": (60, 0),
            "query_offset": ints(0, 107),
            "key_lengths": ints(31, 151),
            "softcap": 4.0,
            "sinks": per_head(0.0, 1.0, -1.0, 2.0),
            "alibi_slopes": per_head(0.1, 0.05, 0.025, 0.0125),
        },
    ),
]


class Fenced:
    """`size` bytes between two forbidden pages, touching the second (`at_end`) or the first."""

    def __init__(self, size: int, *, at_end: bool) -> None:
        body = -(-max(size, 1) // PAGE) * PAGE
        self.memory = mmap.mmap(-1, body + 2 * PAGE)
        _kept.append(self.memory)  # mapped for good: NumPy may still look at it
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory)) + PAGE
        self.body, self.size = body, size
        self.offset = PAGE + (body - size if at_end else 0)
        self.memory[PAGE : PAGE + body] = bytes([CANARY]) * body
        _protect(self.start - PAGE, PAGE, FORBIDDEN)
        _protect(self.start + body, PAGE, FORBIDDEN)

    @property
    def address(self) -> int:
        return self.start - PAGE + self.offset

    def close(self) -> None:
        """Nobody may write any more."""
        _protect(self.start, self.body, READ)

    def canaries(self) -> bytes:
        """What lies around, in the same pages."""
        end = self.offset + self.size
        return self.memory[PAGE : self.offset] + self.memory[end : PAGE + self.body]


def _protect(address: int, size: int, how: int) -> None:
    if _c.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), how):
        raise OSError(ctypes.get_errno(), "mprotect")


def fenced(x: Array, *, at_end: bool, writable: bool = False) -> tuple[Array, Fenced]:
    """The same array with the same strides, all its bytes from first to last between fences."""
    reach = [(n - 1) * stride for n, stride in zip(x.shape, x.strides, strict=True)]
    below, above = -sum(min(r, 0) for r in reach), sum(max(r, 0) for r in reach) + x.itemsize
    fence = Fenced(below + above, at_end=at_end)
    ctypes.memmove(fence.address, x.ctypes.data - below, fence.size)
    made: Array = np.ndarray(
        x.shape, x.dtype, buffer=fence.memory, offset=fence.offset + below, strides=x.strides
    )
    if not writable:
        fence.close()
        made.flags.writeable = False
    return made, fence


def workspace(size: int) -> int:
    """Working memory up to a fence, full of NaN."""
    fence = Fenced(size, at_end=True)
    ctypes.memset(fence.address, 0xFF, size)
    return fence.address


def attend(case: Case, dtype: str, *, at_end: bool) -> str:
    """Run the case between fences and on plain memory; what is wrong, in words, if anything."""
    inputs = build(case, dtype)
    given = [inputs.query, inputs.key, inputs.value]
    moved: list[Any] = [fenced(x, at_end=at_end)[0] for x in given]
    over = {name: x for name, x in inputs.options.items() if name in {"mask", "bias"}}
    options = inputs.options | {name: fenced(x, at_end=at_end)[0] for name, x in over.items()}
    shape = (*inputs.query.shape[:-1], inputs.value.shape[-1])
    out, fence = fenced(np.full(shape, 77, inputs.query.dtype), at_end=at_end, writable=True)
    written = [fence]

    def empty_like(_: object, shape: tuple[int, ...], dtype: str) -> Array:
        made, fence = fenced(np.full(shape, 77, DTYPES.get(dtype, dtype)), at_end=at_end, writable=True)
        written.append(fence)
        return made

    def zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        made, fence = fenced(np.zeros(shape, dtype), at_end=at_end, writable=True)
        written.append(fence)
        return made

    with (
        mock.patch.object(run, "workspace", workspace),
        mock.patch.object(arrays, "empty_like", empty_like),
        mock.patch.object(sums, "zeros", zeros),
    ):
        got = everything(sightline.attention(*moved, **options, out=out))
    if any(set(fence.canaries()) - {CANARY} for fence in written):
        return "the kernel wrote beside the output"
    plain = everything(sightline.attention(*given, **inputs.options))
    return "" if got == plain else "the answer differs from that on plain memory"


def everything(answer: Any) -> list[bytes]:
    """The bytes of the output, and of what is seen."""
    output, seen = answer if isinstance(answer, tuple) else (answer, Seen())
    fields = [getattr(seen, name) for name in Seen.__slots__ if name != "top_keys"]
    parts = [output, *fields, *(seen.top_keys or ())]
    return [x.tobytes() for x in parts if x is not None]


def main(dtype: str) -> int:
    """All cases; the number that went wrong."""
    sightline.set_num_threads(1)
    wrong = 0
    for case in CASES:
        for at_end in (True, False):
            print(f"{case.name}, fence {'behind' if at_end else 'before'}", flush=True)
            trouble = attend(case, dtype, at_end=at_end)
            if trouble:
                print(f"  {trouble}", flush=True)
                wrong += 1
    return wrong


if __name__ == "__main__":
    matrix_unit.stand_in()
    if sys.argv[1] not in DTYPES:
        sys.exit(f"expected one of {', '.join(DTYPES)}, not {sys.argv[1]!r}")
    sys.exit(min(main(sys.argv[1]), 1))
