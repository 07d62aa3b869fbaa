"""The plan: which kernel, how the work is cut, what it says about itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sightline.arrays import Spec
from sightline.cpu import isa
from sightline.plan import Plan, plan
from sightline.problem import Problem


def spec(*shape: int, dtype: str = "float32") -> Spec:
    size = {"float64": 8, "float32": 4, "bool": 1}.get(dtype, 2)
    strides = [size * int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    return Spec(shape, tuple(strides), dtype)


def planned(q: Spec, k: Spec | None = None, **options: Any) -> Plan:
    return plan(Problem.of(q, k or q, k or q, **options), isa.target("avx2"))


def test_the_same_kernel_serves_every_length_and_batch() -> None:
    first = planned(spec(2, 4, 100, 64), causal=True).kernel
    assert first == planned(spec(1, 8, 9, 64), causal=True).kernel
    assert first == planned(spec(17, 64), window=(3, 0)).kernel


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"causal": True}, {"banded": True}),
        ({"window": (None, None)}, {}),
        ({"mask": spec(9, 9, dtype="bool")}, {"mask": True}),
        ({"bias": spec(9, 9, dtype="float16")}, {"bias": "float16", "scaled": True}),
        ({"softcap": 5.0}, {"softcap": True, "scaled": True}),
        ({"scale": 0.0}, {"scaled": True}),
        ({"scale": -1.0}, {"scaled": True}),
        ({"sinks": spec(2)}, {"sinks": True}),
        ({"alibi_slopes": spec(2)}, {"alibi": True, "scaled": True}),
    ],
)
def test_an_option_changes_the_kernel_only_where_it_must(
    options: dict[str, Any], changed: dict[str, Any]
) -> None:
    plain, other = planned(spec(2, 9, 16)).kernel, planned(spec(2, 9, 16), **options).kernel
    different = {name for name in plain.__slots__ if getattr(plain, name) != getattr(other, name)}
    assert {name: getattr(other, name) for name in different} == changed


def test_rows_are_copied_only_where_they_cannot_be_read_in_place() -> None:
    assert not planned(spec(2, 9, 16)).kernel.stage_key
    assert planned(spec(2, 9, 16, dtype="float16")).kernel.stage_key
    backwards = Spec((2, 9, 16), (576, 64, -4), "float32")
    assert planned(backwards).kernel.stage_key
    one_column = Spec((2, 9, 1), (576, 64, 400), "float32")
    assert not planned(one_column).kernel.stage_key


def test_bfloat16_pairs_are_multiplied_where_that_is_faster() -> None:
    able = replace(isa.target("avx512"), cpu="znver5", extras=("avx512bf16",))

    def made(rows: Spec, on: isa.Isa = able) -> tuple[bool, bool]:
        kernel = plan(Problem.of(rows, rows, rows), on).kernel
        return kernel.paired, kernel.stage_key

    rows, odd = spec(2, 9, 16, dtype="bfloat16"), spec(2, 9, 15, dtype="bfloat16")
    assert made(rows) == (True, False)
    assert made(odd) == (True, True), "the last number needs a partner"
    assert made(Spec((2, 9, 16), (288, 32, -2), "bfloat16")) == (True, True)
    assert made(rows, replace(able, extras=())) == (False, True)
    assert made(rows, replace(able, cpu="sapphirerapids")) == (False, True), "slower there than an FMA"
    assert made(spec(2, 9, 16, dtype="float16")) == (False, True)


def test_a_group_shares_blocks_only_when_its_heads_have_few_queries() -> None:
    few = planned(spec(8, 3, 64), spec(2, 100, 64))
    assert (few.folded, few.spaces, few.space_rows, few.blocks) == (True, 2, 12, 1)
    many = planned(spec(8, 64, 64), spec(2, 100, 64))
    assert (many.folded, many.spaces, many.space_rows, many.blocks) == (False, 8, 64, 1)
    assert not planned(spec(8, 3, 64)).folded


def test_heads_that_share_a_mask_or_a_bias_follow_each_other() -> None:
    assert planned(spec(4, 200, 8), bias=spec(200, 200)).by_block
    assert planned(spec(4, 200, 8), mask=spec(200, 200, dtype="bool")).by_block
    assert not planned(spec(4, 200, 8), mask=spec(4, 200, 200, dtype="bool")).by_block


def test_work_is_counted_in_visible_tiles() -> None:
    whole = planned(spec(2, 4, 256, 64))
    assert whole.items == 2 * 4 * 4
    assert whole.flops == whole.dense_flops == 4 * 8 * 256 * 256 * 64
    assert planned(spec(2, 4, 256, 64), causal=True).visible_fraction == (1 + 2 + 3 + 4) / 16
    assert planned(spec(1, 256, 64), window=(0, 0)).visible_fraction == 4 / 16
    assert planned(spec(0, 4, 256, 64)).items == 0
    assert planned(spec(1, 5, 8), spec(1, 0, 8)).visible_fraction == 0.0
    assert whole.bytes == 4 * 4 * (2 * 4 * 256 * 64)


def test_small_calls_stay_on_one_thread_and_long_ones_return_now_and_then() -> None:
    assert planned(spec(1, 1, 8, 64)).threads(16) == 1
    assert planned(spec(1, 8, 4096, 64)).threads(16) == 16
    assert planned(spec(1, 4096, 64)).threads(1000) == 64, "no more threads than items"
    long = planned(spec(8, 65536, 64))
    assert 1 <= long.slice_items < 10
    assert planned(spec(1, 1, 8, 64)).slice_items >= 1


def test_a_plan_prints_what_it_does() -> None:
    text = str(planned(spec(8, 3, 40), spec(2, 100, 40), causal=True, query_offset=97, softcap=2.0))
    for words in "float32 on avx2, D 40", "softcap", "folded", "tiles of 64 keys", "1 blocks", "100.0%":
        assert words in text
