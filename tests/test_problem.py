"""Problems: the canonical form of a call, and the error for every call that makes no sense."""

import math
import pickle
from dataclasses import FrozenInstanceError, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.arrays import Spec
from sightline.masks import Band
from sightline.operands import broadcast
from sightline.problem import Problem, sequence_ints

SIZES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "bool": 1,
    "complex64": 8,
    "int32": 4,
}


def spec(*shape: int, dtype: str = "float32") -> Spec:
    """A C-contiguous array's form."""
    strides, step = [], SIZES[dtype]
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return Spec(shape, tuple(reversed(strides)), dtype)


QUERY, KEY, VALUE = spec(2, 8, 16, 64), spec(2, 2, 32, 64), spec(2, 2, 32, 48)


def problem(**changes: Any) -> Problem:
    """A call of 2 sequences, 8 query heads on 2 key heads, 16 queries, 32 keys, D 64, Dv 48; and changes."""
    return Problem.of(**{"query": QUERY, "key": KEY, "value": VALUE} | changes)


# The form of a call


def test_what_a_call_says_about_itself() -> None:
    p = problem()
    assert (p.batch, p.heads, p.kv_heads, p.group, p.queries, p.keys) == ((2,), 8, 2, 4, 16, 32)
    assert (p.dim, p.value_dim, p.dtype, p.statistics_dtype) == (64, 48, "float32", "float32")
    assert p.output_shape == (2, 8, 16, 48)
    assert (p.scale, p.softcap, p.causal, p.window, p.band) == (0.125, None, False, None, Band(None, None))
    assert (p.query_offset, p.key_lengths, p.precision, p.layout, p.rank) == (0, False, "highest", "BHLD", 4)
    assert (p.query, p.key, p.value) == (QUERY, KEY, VALUE)
    assert p.mask is p.bias is p.sinks is p.alibi_slopes is None


@pytest.mark.parametrize(
    ("dtype", "statistics"),
    [("float64", "float64"), ("float32", "float32"), ("float16", "float32"), ("bfloat16", "float32")],
)
def test_statistics_are_float32_but_for_float64(dtype: str, statistics: str) -> None:
    x = spec(4, 8, dtype=dtype)
    p = Problem.of(x, x, x)
    assert (p.dtype, p.statistics_dtype) == (dtype, statistics)


def test_a_problem_is_frozen_hashable_and_the_same_after_pickling() -> None:
    p = problem(mask=spec(16, 32, dtype="bool"))
    assert hash(p) == hash(problem(mask=spec(16, 32, dtype="bool")))
    assert p == pickle.loads(pickle.dumps(p))
    assert p != replace(p, softcap=2.0)
    with pytest.raises(FrozenInstanceError):
        p.scale = 2.0  # type: ignore[misc]


def test_layout_moves_axes_by_their_strides() -> None:
    p = problem(query=spec(2, 16, 8, 64), key=spec(2, 32, 2, 64), value=spec(2, 32, 2, 48), layout="BLHD")
    assert p.query == Spec((2, 8, 16, 64), (16 * 8 * 64 * 4, 64 * 4, 8 * 64 * 4, 4), "float32")
    assert p.value.shape == (2, 2, 32, 48)
    assert p.output_shape == (2, 16, 8, 48)


@pytest.mark.parametrize("layout", ["BHLD", "BLHD"])
def test_rank_2_is_one_head_in_either_layout(layout: str) -> None:
    p = Problem.of(spec(5, 8), spec(7, 8), spec(7, 3), layout=layout)
    assert p.query == Spec((1, 5, 8), (0, 32, 4), "float32")
    assert (p.batch, p.heads, p.queries, p.keys, p.rank, p.output_shape) == ((), 1, 5, 7, 2, (5, 3))


def test_rank_3_has_heads_and_no_batch() -> None:
    assert Problem.of(spec(4, 5, 8), spec(2, 7, 8), spec(2, 7, 3)).output_shape == (4, 5, 3)
    p = Problem.of(spec(5, 4, 8), spec(7, 2, 8), spec(7, 2, 3), layout="BLHD")
    assert (p.heads, p.queries, p.kv_heads, p.keys, p.output_shape) == (4, 5, 2, 7, (5, 4, 3))


def test_leading_axes_broadcast_with_stride_0() -> None:
    p = Problem.of(spec(3, 1, 2, 5, 8), spec(1, 4, 2, 7, 8), spec(1, 1, 2, 7, 8))
    assert p.batch == (3, 4)
    assert p.query.shape == (3, 4, 2, 5, 8)
    assert p.query.strides[:2] == (2 * 5 * 8 * 4, 0)
    assert p.key.strides[:2] == (0, 2 * 7 * 8 * 4)
    assert p.value.strides[:2] == (0, 0)
    assert p.output_shape == (3, 4, 2, 5, 8)


def test_an_axis_of_size_1_has_one_form_whatever_its_stride() -> None:
    odd = Spec((1, 1, 5, 8), (12345, -7, 32, 4), "float32")
    assert Problem.of(odd, odd, odd) == Problem.of(*[spec(1, 1, 5, 8)] * 3)


@pytest.mark.parametrize("shape", [(32,), (16, 1), (1, 1), (8, 1, 32), (2, 1, 16, 32), (1, 8, 16, 32)])
def test_masks_and_biases_broadcast_from_the_right_as_in_numpy(shape: tuple[int, ...]) -> None:
    p = problem(
        mask=spec(*shape, dtype="bool"), bias=spec(*shape, dtype="float16"), causal=True, query_offset=0
    )
    for name, dtype in (("mask", np.bool_), ("bias", np.float16)):
        expected = np.broadcast_to(np.zeros(shape, dtype), (2, 8, 16, 32))
        found = getattr(p, name)
        assert found == Spec(expected.shape, expected.strides, expected.dtype.name)


@given(st.data())
def test_broadcast_gives_numpys_strides(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(0, 3), min_size=2, max_size=5)))
    own = tuple(
        data.draw(st.sampled_from([1, size])) for size in shape[data.draw(st.integers(0, len(shape))) :]
    )
    found, expected = broadcast(spec(*own), shape), np.broadcast_to(np.zeros(own, np.float32), shape)
    assert found.shape == expected.shape
    for size, ours, theirs in zip(shape, found.strides, expected.strides, strict=True):
        assert size < 2 or ours == theirs or 0 in shape


def test_options_take_their_canonical_form() -> None:
    p = problem(
        scale=np.float32(0.5),
        softcap=30,
        window=[np.int64(4), None],
        query_offset=np.int8(-3),
        causal=np.True_,
        key_lengths=7,
        sinks=spec(8, dtype="float64"),
        alibi_slopes=spec(8, dtype="bfloat16"),
        precision="high",
    )
    assert (p.scale, p.softcap, p.window, p.query_offset, p.causal) == (0.5, 30.0, (4, None), -3, True)
    assert all(type(x) is float for x in (p.scale, p.softcap))
    assert (type(p.query_offset), type(p.causal)) == (int, bool)
    assert (p.key_lengths, p.precision, p.band) == (True, "high", Band(4, 0))
    assert p.sinks == spec(8, dtype="float64")
    assert p.alibi_slopes == spec(8, dtype="bfloat16")


def test_the_scale_may_be_any_finite_number() -> None:
    assert [problem(scale=s).scale for s in (0, -1, Fraction(1, 4))] == [0.0, -1.0, 0.25]
    assert problem(query=spec(2, 8, 16, 2), key=spec(2, 2, 32, 2)).scale == 1 / math.sqrt(2)


@pytest.mark.parametrize("window", [(None, None), (2**40, None), (10**30, 2**40)])
def test_a_window_that_bounds_nothing_is_no_window(window: tuple[int | None, int | None]) -> None:
    assert problem(window=window).window is None


@pytest.mark.parametrize(
    "options", [{"causal": True}, {"window": (3, None)}, {"causal": True, "key_lengths": 7}]
)
def test_as_many_queries_as_keys_start_together(options: dict[str, Any]) -> None:
    assert problem(query=spec(2, 8, 32, 64), **options).query_offset == 0


def test_offsets_and_lengths_may_come_later_for_each_sequence() -> None:
    p = problem(causal=True, query_offset=spec(2, dtype="int64"), key_lengths=spec(1, dtype="int32"))
    assert p.query_offset is None
    assert p.key_lengths


@pytest.mark.parametrize(
    ("query", "key", "output"),
    [((0, 8), (5, 8), (0, 8)), ((5, 8), (0, 8), (5, 8)), ((0, 2, 5, 8), (0, 2, 5, 8), (0, 2, 5, 8))],
)
def test_no_queries_no_keys_and_no_sequences_are_problems_too(
    query: tuple[int, ...], key: tuple[int, ...], output: tuple[int, ...]
) -> None:
    assert Problem.of(spec(*query), spec(*key), spec(*key)).output_shape == output


def test_out_of_the_right_form_is_taken_in_either_layout() -> None:
    assert problem(out=spec(2, 8, 16, 48)) == problem()
    swapped = {"query": spec(2, 16, 8, 64), "key": spec(2, 32, 2, 64), "value": spec(2, 32, 2, 48)}
    assert problem(**swapped, layout="BLHD", out=spec(2, 16, 8, 48)).layout == "BLHD"


# Values for each sequence


@pytest.mark.parametrize(
    "values", [3, np.int16(3), np.array(3), [3, 3], (3, 3), np.array([3]), np.array([3, 3], np.uint8)]
)
@pytest.mark.parametrize("name", ["query_offset", "key_lengths"])
def test_sequence_ints_are_one_int64_for_each_sequence(values: object, name: str) -> None:
    ints = sequence_ints(values, name, problem())
    assert ints.dtype == np.int64
    assert ints.tolist() == [3, 3]
    assert ints.flags.c_contiguous


def test_sequence_ints_reach_from_end_to_end() -> None:
    assert sequence_ints([0, 32], "key_lengths", problem()).tolist() == [0, 32]
    assert sequence_ints([-(2**31), 2**31], "query_offset", problem()).tolist() == [-(2**31), 2**31]


def test_sequence_ints_of_a_call_without_a_batch_or_with_an_empty_one() -> None:
    x = spec(5, 8)
    assert sequence_ints(3, "key_lengths", Problem.of(x, x, x)).shape == ()
    x = spec(0, 1, 5, 8)
    assert sequence_ints(np.array([], np.int64), "key_lengths", Problem.of(x, x, x)).shape == (0,)


# Errors. Each message is "CAME; expected EXPECTED; try HINT."

FLOATS = "float64, float32, float16 or bfloat16"
AXES = "(length, dim) or (…, heads, length, dim)"
SCORES = (
    "one that broadcasts to (2, 8, 16, 32), which is (*batch, query heads, queries, keys) in either layout"
)
SHARED = "axes of size 1 where all sequences, heads, queries or keys share it"
WINDOW = "None or a pair (left, right), each None or an int ≥ 0"
MULTIPLE = "a multiple: query head h reads key head h // (query heads / key heads)"
REPEAT = "repeating or dropping heads until it is one"


def message(came: str, expected: str, hint: str) -> str:
    """An error's text: all of them have these three parts."""
    return f"{came}; expected {expected}; try {hint}."


def sizes(*shapes: tuple[int, ...], layout: str = "BHLD") -> str:
    """How an error about sizes repeats the shapes that came."""
    return f'(shapes {", ".join(map(str, shapes))}, layout="{layout}")'


ARRAYS = {
    "query of integers": (
        {"query": spec(2, 8, 16, 64, dtype="int64")},
        TypeError,
        message("query has dtype int64", FLOATS, "casting to float32"),
    ),
    "complex key": (
        {"key": spec(2, 2, 32, 64, dtype="complex64")},
        TypeError,
        message("key has dtype complex64", FLOATS, "one of its real parts, key.real"),
    ),
    "boolean value": (
        {"value": spec(2, 2, 32, 48, dtype="bool")},
        TypeError,
        message("value has dtype bool", FLOATS, "casting to float32"),
    ),
    "dtypes that differ": (
        {"key": spec(2, 2, 32, 64, dtype="float64"), "value": spec(2, 2, 32, 48, dtype="float16")},
        TypeError,
        message(
            "query is float32, key is float64 and value is float16",
            "one dtype for all three",
            "casting them to float64",
        ),
    ),
    "the two half types": (
        {
            "query": spec(2, 8, 16, 64, dtype="bfloat16"),
            "key": spec(2, 2, 32, 64, dtype="bfloat16"),
            "value": spec(2, 2, 32, 48, dtype="float16"),
        },
        TypeError,
        message(
            "query is bfloat16, key is bfloat16 and value is float16",
            "one dtype for all three",
            "casting them to float32",
        ),
    ),
    "one axis": (
        {"query": spec(64)},
        ValueError,
        message("query has shape (64,)", AXES, "query[None, :] for a length of 1"),
    ),
    "no axis": (
        {"key": spec()},
        ValueError,
        message("key has shape ()", AXES, "an array of two axes or more"),
    ),
    "one axis, heads last": (
        {"value": spec(48), "layout": "BLHD"},
        ValueError,
        message(
            "value has shape (48,)",
            "(length, dim) or (…, length, heads, dim)",
            "value[None, :] for a length of 1",
        ),
    ),
    "ranks that differ": (
        {"query": spec(8, 16, 64)},
        ValueError,
        message(
            "query has rank 3, key 4 and value 4 (shapes (8, 16, 64), (2, 2, 32, 64), (2, 2, 32, 48))",
            "one rank for all three, (…, heads, length, dim)",
            "adding leading axes of size 1, as in key[None]",
        ),
    ),
    "transposed key": (
        {"key": spec(2, 2, 64, 32)},
        ValueError,
        message(
            "query has dim 64 and key has dim 32 " + sizes((2, 8, 16, 64), (2, 2, 64, 32), (2, 2, 32, 48)),
            "one dim for both",
            "key.swapaxes(-1, -2)",
        ),
    ),
    "key of another dim": (
        {"key": spec(2, 2, 32, 96)},
        ValueError,
        message(
            "query has dim 64 and key has dim 96 " + sizes((2, 8, 16, 64), (2, 2, 32, 96), (2, 2, 32, 48)),
            "one dim for both",
            "the key projection that belongs to this query",
        ),
    ),
    "dim 0": (
        {"query": spec(2, 8, 16, 0), "key": spec(2, 2, 32, 0)},
        ValueError,
        message(
            "query has dim 0 " + sizes((2, 8, 16, 0), (2, 2, 32, 0), (2, 2, 32, 48)),
            "at least 1",
            "an array with at least one column",
        ),
    ),
    "value of dim 0": (
        {"value": spec(2, 2, 32, 0)},
        ValueError,
        message(
            "value has dim 0 " + sizes((2, 8, 16, 64), (2, 2, 32, 64), (2, 2, 32, 0)),
            "at least 1",
            "an array with at least one column",
        ),
    ),
    "transposed value": (
        {"value": spec(2, 2, 48, 32)},
        ValueError,
        message(
            "key has length 32 and value has length 48 "
            + sizes((2, 8, 16, 64), (2, 2, 32, 64), (2, 2, 48, 32)),
            "one length for both",
            "value.swapaxes(-1, -2)",
        ),
    ),
    "shorter value": (
        {"value": spec(2, 2, 31, 48)},
        ValueError,
        message(
            "key has length 32 and value has length 31 "
            + sizes((2, 8, 16, 64), (2, 2, 32, 64), (2, 2, 31, 48)),
            "one length for both",
            "slicing both to the shorter",
        ),
    ),
    "fewer value heads": (
        {"value": spec(2, 1, 32, 48)},
        ValueError,
        message(
            "key has 2 heads and value has 1 " + sizes((2, 8, 16, 64), (2, 2, 32, 64), (2, 1, 32, 48)),
            "one number for both",
            "broadcasting the smaller",
        ),
    ),
    "no heads": (
        {"query": spec(2, 0, 16, 64)},
        ValueError,
        message(
            "query has 0 heads and key and value have 2 "
            + sizes((2, 0, 16, 64), (2, 2, 32, 64), (2, 2, 32, 48)),
            "at least 1",
            "more heads",
        ),
    ),
    "heads that do not divide": (
        {"query": spec(2, 3, 16, 64)},
        ValueError,
        message(
            "query has 3 heads and key and value have 2 "
            + sizes((2, 3, 16, 64), (2, 2, 32, 64), (2, 2, 32, 48)),
            MULTIPLE,
            REPEAT,
        ),
    ),
    "heads after lengths, unsaid": (
        {"query": spec(2, 16, 8, 64), "key": spec(2, 32, 2, 64), "value": spec(2, 32, 2, 48)},
        ValueError,
        message(
            "query has 16 heads and key and value have 32 "
            + sizes((2, 16, 8, 64), (2, 32, 2, 64), (2, 32, 2, 48)),
            MULTIPLE,
            f'layout="BLHD" if the axes are (…, length, heads, dim), or {REPEAT}',
        ),
    ),
    "heads before lengths, though said otherwise": (
        {"layout": "BLHD"},
        ValueError,
        message(
            "query has 16 heads and key and value have 32 "
            + sizes((2, 8, 16, 64), (2, 2, 32, 64), (2, 2, 32, 48), layout="BLHD"),
            MULTIPLE,
            f'layout="BHLD" if the axes are (…, heads, length, dim), or {REPEAT}',
        ),
    ),
    "batches that do not broadcast": (
        {"query": spec(3, 8, 16, 64)},
        ValueError,
        message(
            "query has batch (3,), key has batch (2,), value has batch (2,) "
            + sizes((3, 8, 16, 64), (2, 2, 32, 64), (2, 2, 32, 48)),
            "sizes that are equal or 1",
            "one call for each batch",
        ),
    ),
    "float mask": (
        {"mask": spec(16, 32)},
        TypeError,
        message(
            "mask has dtype float32",
            "bool, True where a query may attend to a key",
            "bias=mask if it is added to the scores, or mask=mask > 0 if it is 1 where a query may attend",
        ),
    ),
    "int mask": (
        {"mask": spec(16, 32, dtype="int64")},
        TypeError,
        message(
            "mask has dtype int64",
            "bool, True where a query may attend to a key",
            "mask != 0, if what is not 0 may be attended to",
        ),
    ),
    "int bias": (
        {"bias": spec(16, 32, dtype="int32")},
        TypeError,
        message("bias has dtype int32", f"{FLOATS}, added to the scores", "casting it to float32"),
    ),
    "boolean bias": (
        {"bias": spec(16, 32, dtype="bool")},
        TypeError,
        message(
            "bias has dtype bool", f"{FLOATS}, added to the scores", "mask=bias if it says who may attend"
        ),
    ),
    "a mask of keys": (
        {"mask": spec(2, 32, dtype="bool")},
        ValueError,
        message(
            "mask has shape (2, 32)", SCORES, "mask[..., None, None, :] for one row of keys per sequence"
        ),
    ),
    "a matrix per sequence": (
        {"bias": spec(2, 16, 32)},
        ValueError,
        message("bias has shape (2, 16, 32)", SCORES, "bias[..., None, :, :] for one matrix per sequence"),
    ),
    "transposed mask": (
        {"mask": spec(32, 16, dtype="bool")},
        ValueError,
        message("mask has shape (32, 16)", SCORES, "mask.swapaxes(-1, -2)"),
    ),
    "too many axes": (
        {"bias": spec(1, 2, 8, 16, 32)},
        ValueError,
        message("bias has shape (1, 2, 8, 16, 32)", SCORES, "a bias of rank 4 or less"),
    ),
    "a mask of no known shape": (
        {"mask": spec(7, dtype="bool")},
        ValueError,
        message("mask has shape (7,)", SCORES, SHARED),
    ),
    "int sinks": (
        {"sinks": spec(8, dtype="int64")},
        TypeError,
        message("sinks has dtype int64", FLOATS, "casting it to float32"),
    ),
    "a sink for each key head": (
        {"sinks": spec(2)},
        ValueError,
        message(
            "sinks has shape (2,)", "(8,), one number for each query head", "one number for each query head"
        ),
    ),
    "slopes with more axes": (
        {"alibi_slopes": spec(8, 1, 1)},
        ValueError,
        message(
            "alibi_slopes has shape (8, 1, 1)",
            "(8,), one number for each query head",
            "alibi_slopes.reshape(-1)",
        ),
    ),
    "out of another dtype": (
        {"out": spec(2, 8, 16, 48, dtype="float64")},
        TypeError,
        message("out has dtype float64", "float32, as query has", "an out of that dtype"),
    ),
    "out of another shape": (
        {"out": spec(2, 16, 8, 48)},
        ValueError,
        message("out has shape (2, 16, 8, 48)", "(2, 8, 16, 48)", "an out of that shape"),
    ),
    "float key lengths": (
        {"key_lengths": spec(2)},
        TypeError,
        message("key_lengths has dtype float32", "one int for each sequence", "ints"),
    ),
    "a mask for key lengths": (
        {"key_lengths": spec(2, 32, dtype="bool")},
        TypeError,
        message(
            "key_lengths has dtype bool",
            "one int for each sequence",
            "mask=key_lengths[..., None, None, :] if it is a mask of the keys",
        ),
    ),
    "offsets of another batch": (
        {"query_offset": spec(3, dtype="int64")},
        ValueError,
        message(
            "query_offset has shape (3,)",
            "one that broadcasts to the batch, (2,)",
            "one int for each sequence",
        ),
    ),
}

OPTIONS = {
    "layout that is no word": (
        {"layout": 3},
        TypeError,
        message("layout is 3 (int)", '"BHLD" or "BLHD"', 'layout="BHLD"'),
    ),
    "layout in small letters": (
        {"layout": "blhd"},
        ValueError,
        message('layout is "blhd"', '"BHLD" or "BLHD"', 'layout="BLHD"'),
    ),
    "unknown precision": (
        {"precision": "tf32"},
        ValueError,
        message('precision is "tf32"', '"highest" or "high" or "default"', 'precision="highest"'),
    ),
    "no precision": (
        {"precision": None},
        TypeError,
        message("precision is None (NoneType)", '"highest" or "high" or "default"', 'precision="highest"'),
    ),
    "causal by number": (
        {"causal": 1},
        TypeError,
        message("causal is 1 (int)", "True or False", "causal=True"),
    ),
    "window of one int": (
        {"window": 128},
        TypeError,
        message(
            "window is 128 (int)",
            WINDOW,
            "window=(128, 0) for 128 keys before each query and its own, or window=(127, 0) where 128 counts "
            "the query's own",
        ),
    ),
    "window of −1": (
        {"window": -1},
        TypeError,
        message("window is -1 (int)", WINDOW, "window=None for no window"),
    ),
    "window of three": (
        {"window": (1, 2, 3)},
        ValueError,
        message("window is (1, 2, 3) (tuple)", WINDOW, "window=(left, right), with None for an open side"),
    ),
    "negative window": (
        {"window": (-1, 0)},
        ValueError,
        message("window is (-1, 0), with -1 in it", WINDOW, "None for an unbounded side"),
    ),
    "window of floats": (
        {"window": (4.0, 0)},
        TypeError,
        message("a side of window=(4.0, 0) is 4.0 (float)", "None or an int ≥ 0", "an int"),
    ),
    "window of bools": (
        {"window": (True, 0)},
        TypeError,
        message("a side of window=(True, 0) is True (bool)", "None or an int ≥ 0", "an int"),
    ),
    "offset that is a float": (
        {"query_offset": 1.5},
        TypeError,
        message("query_offset is 1.5 (float)", "an int, or one int for each sequence", "an int"),
    ),
    "offset out of this world": (
        {"query_offset": 2**31 + 1},
        ValueError,
        message(
            "query_offset is 2147483649",
            "an int from −2**31 to 2**31",
            "the first query's position counted from the first key",
        ),
    ),
    "length that is a bool": (
        {"key_lengths": True},
        TypeError,
        message("key_lengths is True (bool)", "an int, or one int for each sequence", "an int"),
    ),
    "length beyond the keys": (
        {"key_lengths": 33},
        ValueError,
        message("key_lengths is 33", "an int from 0 to 32, the length of key", "32, or a longer key"),
    ),
    "scale that is a string": (
        {"scale": "auto"},
        TypeError,
        message("scale is 'auto' (str)", "a finite number", "float(scale)"),
    ),
    "scale that is a bool": (
        {"scale": True},
        TypeError,
        message("scale is True (bool)", "a finite number", "float(scale)"),
    ),
    "infinite scale": (
        {"scale": -math.inf},
        ValueError,
        message(
            "scale is -inf",
            "a finite number, no larger than 3.4e+38 for float32 inputs",
            "None for the default",
        ),
    ),
    "scale that is not a number": (
        {"scale": math.nan},
        ValueError,
        message(
            "scale is nan",
            "a finite number, no larger than 3.4e+38 for float32 inputs",
            "None for the default",
        ),
    ),
    "scale beyond float64": (
        {
            "scale": 10**400,
            "query": spec(3, 8, dtype="float64"),
            "key": spec(3, 8, dtype="float64"),
            "value": spec(3, 8, dtype="float64"),
        },
        ValueError,
        message(
            "scale is inf",
            "a finite number, no larger than 1.8e+308 for float64 inputs",
            "None for the default",
        ),
    ),
    "softcap 0": (
        {"softcap": 0},
        ValueError,
        message("softcap is 0", "None or a finite number above 0", "softcap=None for no cap"),
    ),
    "softcap below 0": (
        {"softcap": -30.0},
        ValueError,
        message("softcap is -30", "None or a finite number above 0", "softcap=None for no cap"),
    ),
    "softcap that is 0 in float32": (
        {"softcap": 1e-60},
        ValueError,
        message(
            "softcap is 1e-60",
            "None or a finite number above 0 (at least 1.2e-38 for float32 inputs)",
            "softcap=None for no cap",
        ),
    ),
    "softcap that is an array": (
        {"softcap": [30.0]},
        TypeError,
        message("softcap is [30.0] (list)", "None or a finite number above 0", "float(softcap)"),
    ),
    "causal, unequal lengths": (
        {"causal": True},
        ValueError,
        message(
            "causal=True with 16 queries and 32 keys has two readings",
            "query_offset, which says where the first query stands",
            "query_offset=0 (top-left, where the first query meets the first key: PyTorch, JAX, Keras) or "
            "query_offset=16 (bottom-right, where the last query meets the last key: FlashAttention, MLX)",
        ),
    ),
    "window and key lengths, unequal lengths": (
        {"window": (4, None), "key_lengths": spec(2, dtype="int64")},
        ValueError,
        message(
            "window=(4, None) with 16 queries and 32 keys has two readings",
            "query_offset, which says where the first query stands",
            "query_offset=0 (top-left, where the first query meets the first key: PyTorch, JAX, Keras) or "
            "query_offset=key_lengths − Lq, per sequence (bottom-right, where the last query meets the last "
            "key: FlashAttention, MLX)",
        ),
    ),
}

CASES = ARRAYS | OPTIONS


@pytest.mark.parametrize(("changes", "error", "text"), CASES.values(), ids=CASES.keys())
def test_a_call_that_makes_no_sense_says_why(
    changes: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as caught:
        problem(**changes)
    assert str(caught.value) == text


LENGTHS = "an int from 0 to 32, the length of key"
VALUES = {
    "one too long": ([4, 33], ValueError, message("key_lengths[1] is 33", LENGTHS, "32, or a longer key")),
    "one below 0": (
        np.array([-1, 33]),
        ValueError,
        message("key_lengths[0] is -1", LENGTHS, "0, or a longer key"),
    ),
    "all too long": (33, ValueError, message("key_lengths is 33", LENGTHS, "32, or a longer key")),
    "an array without axes": (
        np.array(33),
        ValueError,
        message("key_lengths is 33", LENGTHS, "32, or a longer key"),
    ),
    "bool": (
        True,
        TypeError,
        message("key_lengths is True (bool)", "an int, or one int for each sequence", "an int"),
    ),
    "text": (
        "4",
        TypeError,
        message("key_lengths is '4' (str)", "an int, or one int for each sequence", "an int"),
    ),
    "floats": (
        [4.0, 5.0],
        TypeError,
        message("key_lengths has dtype float64", "one int for each sequence", "ints"),
    ),
    "three sequences": (
        [1, 2, 3],
        ValueError,
        message(
            "key_lengths has shape (3,)",
            "one that broadcasts to the batch, (2,)",
            "one int for each sequence",
        ),
    ),
    "ragged": (
        [[1, 2], [3]],
        TypeError,
        message(
            "key_lengths is [[1, 2], [3]] (list)",
            "one int for each sequence",
            "a flat list, or a NumPy array of ints",
        ),
    ),
}


@pytest.mark.parametrize(("values", "error", "text"), VALUES.values(), ids=VALUES.keys())
def test_wrong_key_lengths_say_which_sequence(values: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        sequence_ints(values, "key_lengths", problem())
    assert str(caught.value) == text


def test_a_wrong_offset_says_which_sequence_of_a_batch_with_two_axes() -> None:
    x = spec(2, 3, 1, 5, 8)
    offsets = np.zeros((2, 3), np.int64)
    offsets[1, 2] = -(2**40)
    with pytest.raises(ValueError, match=r"^query_offset\[1, 2\] is -1099511627776; expected an int from"):
        sequence_ints(offsets, "query_offset", Problem.of(x, x, x))


def test_a_call_without_a_batch_takes_one_int() -> None:
    x = spec(1, 5, 8)
    with pytest.raises(ValueError, match=r"broadcasts to the batch, \(\); try a single int, as there is no"):
        sequence_ints([5], "key_lengths", Problem.of(x, x, x))


def test_errors_come_in_the_order_types_ranks_sizes_options() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"query": spec(2, 8, 16, 64, dtype="int64")}, "query has dtype"),
        ({"value": spec(2, 32, 48)}, "query has rank 4, key 4 and value 3"),
        ({"key": spec(2, 2, 32, 63)}, "key has dim 63"),
        ({"mask": spec(7, dtype="bool")}, "mask has shape"),
        ({"softcap": 0}, "softcap is 0"),
        ({"causal": True}, "two readings"),
        ({"out": spec(1)}, "out has shape"),
    ]
    for first in range(len(wrong)):
        changes = {name: value for change, _ in wrong[first:] for name, value in change.items()}
        with pytest.raises((TypeError, ValueError)) as caught:
            problem(**changes)
        assert wrong[first][1] in str(caught.value)
