"""From a plan to a running kernel: the arguments it reads, filled in once per signature and once per call."""

from __future__ import annotations

import ctypes
import functools
import importlib
import math
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import arrays, operands
from sightline.cpu import compile as compiler
from sightline.cpu import threads
from sightline.cpu.arguments import BATCH_COLUMNS, SLOT, Block, float_bits, put_addresses, put_keys
from sightline.cpu.workspace import rows_of, run_bytes
from sightline.kernel_key import SIZES
from sightline.problem import sequence_ints

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sightline.arrays import Spec
    from sightline.cpu.isa import Isa
    from sightline.kernel_key import KernelKey
    from sightline.plan import Plan

LOG2_E = math.log2(math.e)
UNBOUNDED = 2**40  # further than any position
CANCELLED = 2**62  # an item number no call reaches
OPERANDS = ("query", "key", "value", "mask", "bias", "sinks", "alibi_slopes", "out")
_OUT, _SINKS = (OPERANDS.index(name) for name in ("out", "sinks"))

_thread = threading.local()


def workspace(size: int) -> int:
    """The address of this thread's working memory, aligned to 64 bytes; it only grows."""
    if getattr(_thread, "size", 0) < size:
        # Earlier, smaller ones are kept: a kernel that a signal handler interrupted may be using one.
        kept = _thread.__dict__.setdefault("kept", [])
        kept.append(np.zeros(size + 64, np.uint8))
        _thread.address = -(-kept[-1].ctypes.data // 64) * 64
        _thread.size = size
    return int(_thread.address)


def generate(program: str, key: KernelKey, isa: Isa) -> str:
    """The generator is imported when a kernel is not in the cache."""
    made: str = importlib.import_module(f"sightline.cpu.{program}").generate(key, isa)
    return made


def _loaded(plan: Plan) -> Any:
    """A kernel, to be called with the addresses of its arguments and of working memory."""
    return _loaded_once(plan.kernel, plan.isa, plan.second)


@functools.cache
def _loaded_once(key: KernelKey, isa: Isa, second: bool) -> Any:  # noqa: FBT001 (for the cache)
    name = "second_pass" if second else "forward"
    address = compiler.load("attend", (name, key), isa, lambda: generate(name, key, isa))
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)(address)


class Prepared:
    """A call ready to run on any arrays of its signature."""

    def __init__(
        self,
        plan: Plan,
        out: Spec | None,
        key_length: int | None = None,
        numbers: dict[str, int] | None = None,
        scratch: int = 0,
    ) -> None:
        """Get the kernel, and fill in its arguments but for addresses.

        Args:
            plan: what to run.
            out: the array to write to, if it is the caller's.
            key_length: how many keys exist, if one number says it for all sequences.
            numbers: values of further arguments.
            scratch: bytes of working memory beyond what the kernel's key asks for.
        """
        p = plan.problem
        self.plan, self.output_shape, self.dtype = plan, p.output_shape, p.dtype
        self._items = plan.items
        self._threads = plan.threads(threads.MOST)
        self._kernel = _loaded(plan)
        together = 1 if plan.second else plan.run_blocks
        self._workspace_bytes = run_bytes(plan.kernel, plan.isa, together) + scratch
        specs = _specs(plan, out)
        self._template = template(plan, specs)
        self._lists = _lists(plan)
        for name, x in self._lists.items():
            self._template[SLOT[name]] = arrays.address(x)
        self._shelves = _Shelves(plan) if plan.kernel.split else None
        numbers = (self._shelves.numbers if self._shelves else {}) | (numbers or {})
        for name, number in numbers.items():
            self._template[SLOT[name]] = number
        self._batches = batches(plan, specs, p.keys if key_length is None else key_length)
        self._template[SLOT["batches"]] = arrays.address(self._batches)
        self._out_checked = out is None
        self._per_head = p.sinks is not None or p.alibi_slopes is not None
        self._specs = specs

    def with_keys(self, key: Spec, value: Spec) -> Prepared:
        """The same for other keys and values, (*batch, heads, length, …), which kernel and cutting suit as well.

        In `plan` the keys remain those of this one.
        """
        other = object.__new__(Prepared)
        other.__dict__.update(self.__dict__)
        block = other._template = Block.from_buffer_copy(self._template)
        put_keys(block, key.shape[-2], *key.strides[-3:], *value.strides[-3:])
        table = other._batches = self._batches.copy()
        table[:, _COLUMN["key_lengths"]] = key.shape[-2]
        if len(table) > 1:
            _put_offsets(table, key.shape[:-3], {"key": key, "value": value})
        block[SLOT["batches"]] = arrays.address(table)
        return other

    def run(
        self,
        given: tuple[Any, ...],
        seen: dict[str, Any],
        query_offset: object,
        key_lengths: object,
        seed: int = 0,
    ) -> None:
        """Write the output into the last of the operands, and what is seen, on as many threads as are worth it."""
        if not self._out_checked:
            self._refuse_overlap(given)
        if self._per_head:
            numbers = (x if x is None else _as_float64(x) for x in given[_SINKS:_OUT])
            given = (*given[:_SINKS], *numbers, given[_OUT])
        block, address = Block.from_buffer_copy(self._template), arrays.address
        put_addresses(block, *[0 if x is None else address(x) for x in given])
        for name, x in seen.items():
            block[SLOT[name]] = address(x)
        block[SLOT["seed"]] = seed
        batches = self._with_values(query_offset, key_lengths)
        if batches is not self._batches:
            block[SLOT["batches"]] = address(batches)
        self._go(block, (given, batches, seen))

    def at(self, addresses: tuple[int, ...], keep: object) -> None:
        """Write the output of a call that sees nothing and has no values per sequence or per head.

        Args:
            addresses: of the operands, 0 where not given; the output has memory of its own.
            keep: what holds that memory.
        """
        block = Block.from_buffer_copy(self._template)
        put_addresses(block, *addresses)
        self._go(block, keep)

    def _go(self, block: ctypes.Array[ctypes.c_int64], keep: object) -> None:
        """Run all items, on as many threads as are worth it."""
        if not self._items:
            return
        shelves = self._shelves.new(block) if self._shelves else None
        if self._threads == 1:
            place, memory = ctypes.addressof(block), workspace(self._workspace_bytes)
            while self._kernel(place, memory):
                pass
            return
        work = _Work(self._kernel, block, self._workspace_bytes, (keep, shelves))
        threads.run(work, min(self._threads, threads.get_num_threads()))

    def _with_values(self, query_offset: object, key_lengths: object) -> NDArray[np.int64]:
        """The table of sequences, with what this call says of each."""
        if query_offset is key_lengths is None:
            return self._batches
        problem = self.plan.problem
        given = {"query_offset": query_offset, "key_lengths": key_lengths}
        if all(value is None or isinstance(value, int) for value in given.values()):
            return self._batches
        batches = self._batches.copy()
        for name, value in given.items():
            if not (value is None or isinstance(value, int)):
                batches[:, _COLUMN[name]] = sequence_ints(value, name, problem).reshape(-1)
        return batches

    def _refuse_overlap(self, given: tuple[Any, ...]) -> None:
        """A kernel that writes where it still has to read would give wrong numbers."""
        start, end = _extent(arrays.address(given[_OUT]), self._specs["out"])
        for name, x in zip(OPERANDS[:_SINKS], given, strict=False):
            if x is not None:
                first, last = _extent(arrays.address(x), self._specs[name])
                if start < last and first < end and _share_memory(given[_OUT], x):
                    raise ValueError(
                        f"out shares memory with {name}; expected memory of its own; "
                        f"try out=np.empty_like(...), or leave out=None."
                    )


_COLUMN = {
    "query_offset": BATCH_COLUMNS.index("position"),
    "key_lengths": BATCH_COLUMNS.index("length"),
}


class _Shelves:
    """Where the states of each period of keys wait until all of a block's are there."""

    def __init__(self, plan: Plan) -> None:
        self.blocks = plan.sequences * plan.spaces * plan.blocks
        vectors = -(-min(plan.space_rows, plan.block_rows) // plan.isa.lanes(plan.kernel.element_bytes))
        self.state = rows_of(plan.kernel.value_dim, plan.kernel.see) * vectors * plan.isa.vector_bytes
        self.shelf = plan.periods * self.state
        self.numbers = {
            "pieces": plan.pieces,
            "piece_keys": plan.piece_periods * plan.kernel.period_keys,
            "shelf_bytes": self.shelf,
            "state_bytes": self.state,
        }

    def new(self, block: ctypes.Array[ctypes.c_int64]) -> NDArray[np.int64]:
        """Memory for one call, noted in its arguments: how many pieces of each block are done, and the shelves."""
        memory = np.empty(self.blocks * (1 + self.shelf // 8), np.int64)
        memory[: self.blocks] = 0
        block[SLOT["finished"]] = arrays.address(memory)
        block[SLOT["shelves"]] = arrays.address(memory) + 8 * self.blocks
        return memory


class _Work:
    """One call, as the threads that share it see it."""

    __slots__ = ("_address", "_block", "_bytes", "_keep", "_kernel")

    def __init__(
        self, kernel: Any, block: ctypes.Array[ctypes.c_int64], workspace: int, keep: object
    ) -> None:
        self._kernel, self._block, self._bytes, self._keep = kernel, block, workspace, keep
        self._address = ctypes.addressof(block)

    def __call__(self) -> bool:
        """A slice of the items."""
        return bool(self._kernel(self._address, workspace(self._bytes)))

    def cancel(self) -> None:
        """No further item is taken."""
        self._block[SLOT["next_item"]] = CANCELLED


def _as_float64(x: object) -> NDArray[np.float64]:
    """Sinks or slopes as kernels read them; what could be wrong with them has been found by now."""
    return np.ascontiguousarray(arrays.to_numpy(arrays.view(x, "one number for each head")), dtype=np.float64)


def _specs(plan: Plan, out: Spec | None) -> dict[str, Spec]:
    """Each operand as (*batch, heads, length, …); without `out`, the new contiguous array the door makes."""
    p = plan.problem
    specs = {"query": p.query, "key": p.key}
    if plan.kernel.value_dim:
        out = out or _contiguous(p.output_shape, p.dtype)
        specs |= {"value": p.value, "out": operands.heads_first(out, p.layout)}
    specs.update({name: spec for name, spec in (("mask", p.mask), ("bias", p.bias)) if spec is not None})
    return specs


def _contiguous(shape: tuple[int, ...], dtype: str) -> Spec:
    size, strides = SIZES[dtype], []
    for length in reversed(shape):
        strides.append(size)
        size *= max(length, 1)
    return arrays.Spec(shape, tuple(reversed(strides)), dtype)


def _lists(plan: Plan) -> dict[str, NDArray[np.int64]]:
    """The heads and queries that the pass is about, where they are lists."""
    if plan.chosen is None:
        return {}
    chosen = {"heads": plan.chosen.heads, "chosen": plan.chosen.queries}
    return {name: np.array(numbers, np.int64) for name, numbers in chosen.items()}


def template(plan: Plan, specs: dict[str, Spec]) -> ctypes.Array[ctypes.c_int64]:
    """The kernel's arguments but for addresses."""
    p = plan.problem
    left, right = (UNBOUNDED if bound is None else bound for bound in p.band)
    values = {
        "items": plan.items,
        "slice_items": plan.slice_items,
        "spaces": plan.spaces,
        "space_rows": plan.space_rows,
        "space_heads": p.group if plan.folded else 1,
        "spaces_per_kv_head": 1 if plan.folded else p.group,
        "blocks": plan.blocks,
        "by_block": int(plan.by_block),
        "runs": plan.runs,
        "run_blocks": plan.run_blocks,
        "queries": plan.head_rows,
        "all_heads": p.heads,
        "all_queries": p.queries,
        "keys": p.keys,
        "left": left,
        "right": right,
        "scale": float_bits(p.scale),
        "exponent": float_bits(LOG2_E if plan.kernel.scaled else LOG2_E * p.scale),
        "softcap": float_bits(p.softcap or 0.0),
        "drop_limit": math.ceil(p.dropout_p * 2**32) - 1,
        "keep": float_bits(1 - p.dropout_p),
        "keep_scale": float_bits(1 / (1 - p.dropout_p) if p.dropout_p < 1 else 0.0),
    }
    for name, spec in specs.items():
        for part, stride in zip(("head", "row", "step"), spec.strides[-3:], strict=True):
            values[f"{name}_{part}"] = stride
    block = Block()
    for name, value in values.items():
        block[SLOT[name]] = value
    return block


def batches(plan: Plan, specs: dict[str, Spec], key_length: int) -> NDArray[np.int64]:
    """One row per sequence: where its part of each operand begins, in bytes; its first position; its keys."""
    p = plan.problem
    table = np.zeros((plan.sequences, len(BATCH_COLUMNS)), np.int64)
    if plan.sequences > 1:
        _put_offsets(table, p.batch, specs)
    table[:, _COLUMN["query_offset"]] = p.query_offset or 0
    table[:, _COLUMN["key_lengths"]] = key_length
    return table


def _put_offsets(table: NDArray[np.int64], batch: tuple[int, ...], specs: dict[str, Spec]) -> None:
    """Where each sequence's part of the operands begins."""
    index = np.indices(batch).reshape(len(batch), -1)
    for name, spec in specs.items():
        table[:, BATCH_COLUMNS.index(name)] = np.array(spec.strides[:-3], np.int64) @ index


def overlaps_itself(out: Spec) -> bool:
    """Whether two elements share memory: whether an axis steps less far than the axes inside it reach."""
    if 0 in out.shape:
        return False
    reach = SIZES[out.dtype]
    for stride, n in sorted((abs(s), n) for s, n in zip(out.strides, out.shape, strict=True) if n > 1):
        if stride < reach:
            return True
        reach += (n - 1) * stride
    return False


def _share_memory(out: object, x: object) -> bool:
    """Whether an element of one lies in the other: arrays whose extents cross may still interleave."""
    looks = [arrays.to_numpy(arrays.view(array, "out")) for array in (out, x)]
    try:
        shared: Any = np.shares_memory  # its type information knows only two of the values of max_work
        return bool(shared(*looks, max_work=10_000))
    except np.exceptions.TooHardError:
        return True


def _extent(address: int, spec: Spec) -> tuple[int, int]:
    """The bytes an array lies in, from first to one past last."""
    if 0 in spec.shape:
        return address, address
    reach = [(n - 1) * stride for n, stride in zip(spec.shape, spec.strides, strict=True)]
    size = SIZES.get(spec.dtype, 1)  # a mask has bytes
    return address + sum(min(r, 0) for r in reach), address + sum(max(r, 0) for r in reach) + size
