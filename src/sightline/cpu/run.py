"""From a plan to a running kernel: the arguments it reads, filled in once per signature and once per call."""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import arrays
from sightline.cpu import compile as compiler
from sightline.cpu import threads
from sightline.cpu.arguments import SLOT, Block, put_addresses, put_keys
from sightline.cpu.overlap import refuse_overlap
from sightline.cpu.signature import COLUMN, batches, lists_of, put_offsets, specs_of, template
from sightline.cpu.work import Work, do, workspace
from sightline.cpu.workspace import rows_of, run_bytes
from sightline.problem import sequence_ints

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sightline.arrays import Spec
    from sightline.cpu.isa import Isa
    from sightline.kernel_key import KernelKey
    from sightline.plan import Plan

OPERANDS = ("query", "key", "value", "mask", "bias", "sinks", "alibi_slopes", "out")
_OUT, _SINKS = (OPERANDS.index(name) for name in ("out", "sinks"))


def _loaded(plan: Plan) -> Any:
    """A kernel, to be called with the addresses of its arguments and of working memory."""
    return _loaded_once(plan.kernel, plan.isa, plan.second)


@functools.cache
def _loaded_once(key: KernelKey, isa: Isa, second: bool) -> Any:  # noqa: FBT001 (for the cache)
    name = "second_pass" if second else "forward"
    address = compiler.program(name, key, isa)
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
        specs = specs_of(plan, out)
        self._template = template(plan, specs)
        self._lists = lists_of(plan)
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
        table[:, COLUMN["key_lengths"]] = key.shape[-2]
        if len(table) > 1:
            put_offsets(table, key.shape[:-3], {"key": key, "value": value})
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
            refuse_overlap(given[_OUT], dict(zip(OPERANDS[:_SINKS], given, strict=False)), self._specs)
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
        self._go(block, given[0], (given, batches, seen))

    def at(self, addresses: tuple[int, ...], given: tuple[Any, ...]) -> None:
        """Write the output of a call that sees nothing and has no values per sequence or per head.

        Args:
            addresses: of the operands, 0 where not given; the output has memory of its own.
            given: what holds that memory, the query first.
        """
        block = Block.from_buffer_copy(self._template)
        put_addresses(block, *addresses)
        self._go(block, given[0], given)

    def _go(self, block: ctypes.Array[ctypes.c_int64], query: object, keep: object) -> None:
        """Run all items, on as many threads as are worth it."""
        if not self._items:
            return
        shelves = self._shelves.new(block) if self._shelves else None
        if self._threads == 1:
            place, memory = ctypes.addressof(block), workspace(self._workspace_bytes)
            while self._kernel(place, memory):
                pass
            return
        work = Work(self._kernel, block, self._workspace_bytes, (keep, shelves))
        do(work, self._threads, arrays.workers(query))

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
                batches[:, COLUMN[name]] = sequence_ints(value, name, problem).reshape(-1)
        return batches


def _as_float64(x: object) -> NDArray[np.float64]:
    """Sinks or slopes as kernels read them; what could be wrong with them has been found by now."""
    return np.ascontiguousarray(arrays.to_numpy(arrays.view(x, "one number for each head")), dtype=np.float64)


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
