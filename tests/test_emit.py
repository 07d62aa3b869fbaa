"""Small programs through `emit`, run on every instruction set of this machine, against NumPy.

What `formats` and `transpose` make of them is in test_formats.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from programs import RUNNABLE, Array, compiled, run
from sightline.cpu.kinds import BOOL, BYTE, DOUBLE, FLOAT, HALF, I16, I32, INT, bytes_of, vector
from sightline.cpu.values import Table, Value

if TYPE_CHECKING:
    from collections.abc import Callable

    from sightline.cpu.emit import Function
    from sightline.cpu.isa import Isa
    from sightline.cpu.kinds import Type
    from sightline.cpu.values import Pointer

pytestmark = pytest.mark.parametrize("here", RUNNABLE, ids=lambda isa: isa.name)
KINDS = {np.float32: FLOAT, np.float64: DOUBLE, np.int32: I32, np.int64: INT, np.int16: I16, np.uint8: BYTE}
LANES = 8


def lanes_of(x: Array) -> Type:
    """A vector of eight of x's numbers: more than a register holds, on purpose, on some machines."""
    return vector(KINDS[x.dtype.type], LANES)


def applied(here: Isa, function: Callable[..., Value], result: Any, *operands: Array) -> Array:
    """What `function` makes of eight numbers of each operand at once, as an array of type `result`."""
    made = np.zeros(LANES, result)

    def write(f: Function, target: Pointer, *given: Pointer) -> None:
        values = [p.load(lanes_of(x)) for p, x in zip(given, operands, strict=True)]
        answer = function(*values)
        target.store(answer.unsigned(BYTE) if answer.kind.element == BOOL else answer)

    run(here, write, made, *operands)
    return made


# ── Numbers ──

A = np.array([1.5, -2.25, 0.0, -0.0, np.inf, -np.inf, np.nan, 7.0])
B = np.array([0.5, 3.0, 0.0, 1.0, 2.0, np.nan, 1.0, -7.0])
M = np.array([5, -5, 0, 1, 2**31 - 1, -(2**31), 100, -1])
N = np.array([3, 2, 7, 1, 1, 3, 100, 5])
FLOATING: dict[str, Callable[..., Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "negative": lambda a, b: -a,
    "constants": lambda a, b: a * 2.0 - 1.0,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "NaN": lambda a, b: a != a,  # noqa: PLR0124
}


@np.errstate(all="ignore")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FLOATING)
def test_floating_point_operators_are_numpys(here: Isa, name: str, dtype: Any) -> None:
    a, b = A.astype(dtype), B.astype(dtype)
    want = FLOATING[name](a, b)
    result = np.uint8 if want.dtype == bool else dtype
    np.testing.assert_array_equal(applied(here, FLOATING[name], result, a, b), want)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_division_and_the_sign_of_zero(here: Isa, dtype: Any) -> None:
    a, b = np.array([1, -1, 0.0, -0.0, 1, 10, -7, 1e30], dtype), np.array([3, 3, 5, 5, -3, -4, 2, 7], dtype)
    quotient = applied(here, lambda x, y: x / y, dtype, a, b)
    np.testing.assert_array_equal(quotient.view(np.uint8), (a / b).view(np.uint8))
    negated = applied(here, lambda x: -x, dtype, a)
    np.testing.assert_array_equal(np.signbit(negated), ~np.signbit(a))


INTEGER: dict[str, Callable[..., Any]] = {
    "+": lambda m, n: m + n,
    "-": lambda m, n: m - n,
    "*": lambda m, n: m * n,
    "&": lambda m, n: m & n,
    "|": lambda m, n: m | n,
    "~": lambda m, n: ~m,
    "negative": lambda m, n: -m,
    "<<": lambda m, n: n << 3,
    "<": lambda m, n: m < n,
    ">=": lambda m, n: m >= n,
    "==": lambda m, n: m == n,
    "!=": lambda m, n: m != n,
}


@np.errstate(all="ignore")
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("name", INTEGER)
def test_integer_operators_are_numpys_and_compare_with_sign(here: Isa, name: str, dtype: Any) -> None:
    m, n = M.astype(dtype), N.astype(dtype)
    want = INTEGER[name](m, n)
    result = np.uint8 if want.dtype == bool else dtype
    np.testing.assert_array_equal(applied(here, INTEGER[name], result, m, n), want)


UNSIGNED: dict[str, Callable[..., Any]] = {
    "//": lambda m, n: m // n,
    "%": lambda m, n: m % n,
    ">>": lambda m, n: m >> 3,
}


@pytest.mark.parametrize("name", UNSIGNED)
def test_division_and_right_shift_are_unsigned(here: Isa, name: str) -> None:
    m, n = M.astype(np.int32), N.astype(np.int32)
    want = UNSIGNED[name](m.view(np.uint32), n.view(np.uint32)).view(np.int32)
    np.testing.assert_array_equal(applied(here, UNSIGNED[name], np.int32, m, n), want)


def test_below_compares_without_sign(here: Isa) -> None:
    m, n = M.astype(np.int32), N.astype(np.int32)
    got = applied(here, lambda x, y: x.below(y), np.uint8, m, n)
    np.testing.assert_array_equal(got, m.view(np.uint32) < n.view(np.uint32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_max_and_min_take_the_other_where_self_is_nan(here: Isa, dtype: Any) -> None:
    a, b = A.astype(dtype), B.astype(dtype)
    larger = np.where(np.isnan(a), b, np.where(a > b, a, b))
    smaller = np.where(np.isnan(a), b, np.where(a < b, a, b))
    np.testing.assert_array_equal(applied(here, lambda x, y: x.max(y), dtype, a, b), larger)
    np.testing.assert_array_equal(applied(here, lambda x, y: x.min(y), dtype, a, b), smaller)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fma_rounds_once(here: Isa, dtype: Any) -> None:
    one_more = dtype(1) + np.finfo(dtype).eps
    a = np.full(LANES, one_more, dtype)
    got = applied(here, lambda x: x.fma(x, -1.0 - 2 * float(np.finfo(dtype).eps)), dtype, a)
    np.testing.assert_array_equal(got, np.full(LANES, np.finfo(dtype).eps ** 2, dtype))  # rounded twice: 0


def test_where_chooses_lane_by_lane_between_values_and_numbers(here: Isa) -> None:
    a, b = A.astype(np.float32), B.astype(np.float32)
    np.testing.assert_array_equal(
        applied(here, lambda x, y: (x > y).where(x, y), np.float32, a, b), np.where(a > b, a, b)
    )
    np.testing.assert_array_equal(
        applied(here, lambda x, y: (x > y).where(x, -1.0), np.float32, a, b),
        np.where(a > b, a, np.float32(-1)),
    )
    np.testing.assert_array_equal(
        applied(here, lambda x, y: (x > y).where(-1.0, y), np.float32, a, b),
        np.where(a > b, np.float32(-1), b),
    )


def test_where_of_two_plain_numbers_has_no_type(here: Isa) -> None:
    with pytest.raises(TypeError, match="one side"):
        applied(here, lambda x: (x > 0.0).where(1.0, 2.0), np.float32, A.astype(np.float32))


@pytest.mark.parametrize("hot", [None, 0, 3, 7])
def test_any_sees_every_lane(here: Isa, hot: int | None) -> None:
    x, found = np.zeros(LANES, np.float32), np.full(1, -1)
    if hot is not None:
        x[hot] = 1

    def write(f: Function, given: Pointer, out: Pointer) -> None:
        out.store((given.load(lanes_of(x)) > 0.0).any().unsigned(INT))

    run(here, write, x, found)
    assert found[0] == (hot is not None)


def test_splat_and_shuffled(here: Isa) -> None:
    a, b = np.arange(LANES, dtype=np.float32), np.arange(LANES, 2 * LANES, dtype=np.float32)
    order = [15, 0, 8, 7, 1, 1, 14, 3]
    got = applied(here, lambda x, y: x.shuffled(y, order), np.float32, a, b)
    np.testing.assert_array_equal(got, np.concatenate([a, b])[order])
    made = np.zeros(LANES, np.float32)
    run(here, lambda f, x, y: y.store((x + 12).load(FLOAT).splat(LANES)), a, made)
    np.testing.assert_array_equal(made, np.full(LANES, 3, np.float32))


# ── Conversions ──


def test_bits_and_back(here: Isa) -> None:
    a = A.astype(np.float32)
    np.testing.assert_array_equal(applied(here, lambda x: x.bits(), np.int32, a), a.view(np.int32))
    back = applied(here, lambda n: n.as_bits_of(vector(FLOAT, LANES)), np.float32, a.view(np.int32))
    np.testing.assert_array_equal(back.view(np.int32), a.view(np.int32))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (np.int32, np.int64),
        (np.int64, np.int32),
        (np.int32, np.int16),
        (np.int32, np.float32),
        (np.int64, np.float64),
        (np.float32, np.float64),
        (np.float64, np.float32),
        (np.float32, np.int32),
        (np.float64, np.int64),
    ],
)
def test_to_converts_as_numpy_does(here: Isa, source: Any, target: Any) -> None:
    numbers = np.array([0, 1, -1, 70_000, -70_001, 16_777_217, -2_000_000_003, 3])
    if source in {np.float32, np.float64}:
        numbers = numbers + 1 / 3
    x = numbers.astype(source)
    np.testing.assert_array_equal(applied(here, lambda v: v.to(KINDS[target]), target, x), x.astype(target))


def test_unsigned_widens_without_the_sign(here: Isa) -> None:
    x = np.array([0, 1, 127, 128, 255, 200, 2, 3], np.uint8)
    np.testing.assert_array_equal(applied(here, lambda v: v.unsigned(I32), np.int32, x), x.astype(np.int32))


# ── Control ──


@pytest.mark.parametrize(("start", "end", "step"), [(0, 5, 1), (0, 0, 1), (5, 3, 1), (-2, 9, 4), (3, 4, 10)])
def test_a_loop_is_pythons_range(here: Isa, start: int, end: int, step: int) -> None:
    bounds, seen, count = np.array([start, end, step]), np.zeros(16, np.int64), np.zeros(1, np.int64)

    def write(f: Function, given: Pointer, out: Pointer, times: Pointer) -> None:
        first, last, stride = (Table(given, INT, 8)[i] for i in range(3))
        n = f.variable(f.value(0))
        with f.loop(first, last, stride) as i:
            Table(out, INT, 8)[n.value] = i
            n.value = n.value + 1
        times.store(n.value)

    run(here, write, bounds, seen, count)
    assert seen[: count[0]].tolist() == list(range(start, end, step))


def test_loops_in_loops_with_branches_inside(here: Isa) -> None:
    table, size = np.zeros((5, 7), np.int64), 8

    def write(f: Function, out: Pointer) -> None:
        entry = Table(out, INT, 7 * size, size)
        with f.loop(0, 5) as i, f.loop(0, 7) as j, f.either((i + j) % 2 == 0) as (then, otherwise):
            with then:
                entry[i, j] = i * 10 + j
            with otherwise, f.when(i > j):
                entry[i, j] = -(i + j)

    run(here, write, table)
    i, j = np.indices((5, 7))
    np.testing.assert_array_equal(table, np.where((i + j) % 2 == 0, i * 10 + j, np.where(i > j, -(i + j), 0)))


@pytest.mark.parametrize("condition", [0, 1])
def test_when_and_either_take_one_way(here: Isa, condition: int) -> None:
    given, out = np.array([condition]), np.zeros(3, np.int64)

    def write(f: Function, flag: Pointer, made: Pointer) -> None:
        yes = flag.load(INT) != 0
        with f.when(yes):
            made.store(f.value(1))
        with f.either(yes) as (then, otherwise):
            with then:
                (made + 8).store(f.value(10))
            with otherwise:
                (made + 16).store(f.value(100))

    run(here, write, given, out)
    assert out.tolist() == ([1, 10, 0] if condition else [0, 0, 100])


def test_variables_in_loops_start_again_each_time(here: Isa) -> None:
    sums = np.zeros(4, np.float64)

    def write(f: Function, out: Pointer) -> None:
        with f.loop(0, 4) as i:
            total = f.variable(f.value(0.5, DOUBLE))  # declared once, set to 0.5 at every turn
            with f.loop(0, i) as j:
                total.value = total.value + j.to(DOUBLE)
            Table(out, DOUBLE, 8)[i] = total.value

    run(here, write, sums)
    np.testing.assert_array_equal(sums, [0.5, 0.5, 1.5, 3.5])


def test_functions_call_each_other_and_return_early(here: Isa) -> None:
    x, y = np.array([3, 12, -4]), np.zeros(3, np.int64)

    def write(f: Function, given: Pointer, out: Pointer) -> None:
        with f.module.function("clamp", INT, INT, returns=INT) as part:
            value, most = part.arguments()
            part.give_if(value < 0, -1)
            part.give_if(value > most, most)
            part.give(value * 2)
        with f.loop(0, 3) as i:
            Table(out, INT, 8)[i] = f.call(part, Table(given, INT, 8)[i], 10)

    run(here, write, x, y)
    assert y.tolist() == [6, 10, -1]


# ── Memory ──


def test_a_table_reaches_entries_by_numbers_and_by_values(here: Isa) -> None:
    x, y = np.arange(24, dtype=np.float32).reshape(4, 6), np.zeros((6, 4), np.float32)

    def write(f: Function, given: Pointer, out: Pointer) -> None:
        source, target = Table(given, FLOAT, 24, 4), Table(out, FLOAT, 16, 4)
        with f.loop(0, 4) as i:
            for j in range(6):
                target[j, i] = source[i, j]
        target[0, 0] = source[3, 5]

    run(here, write, x, y)
    want = x.T.copy()
    want[0, 0] = 23
    np.testing.assert_array_equal(y, want)


def test_pointers_move_by_bytes_follow_and_know_their_address(here: Isa) -> None:
    x, out = np.arange(10, dtype=np.int32), np.zeros(4, np.int64)
    table = np.array([x.ctypes.data + 12, 3])

    def write(f: Function, given: Pointer, made: Pointer) -> None:
        made.store(given.follow().load(I32).to(INT))
        (made + 8).store((given.follow() + (given + 8).load(INT) * 4).load(I32).to(INT))
        (made + 16).store((given + 0).address())
        (made + 24).store(given.load(INT).as_pointer().load(I32).to(INT))

    run(here, write, table, out)
    assert out.tolist() == [3, 6, table.ctypes.data, 3]


def test_vectors_may_lie_at_any_address(here: Isa) -> None:
    x, y = np.arange(LANES * 4 + 3, dtype=np.uint8), np.zeros(LANES * 4 + 3, np.uint8)
    run(here, lambda f, a, b: (b + 1).store((a + 3).load(vector(I32, LANES))), x, y)
    np.testing.assert_array_equal(y[1:-2], x[3:])


def test_claims_of_several_threads_share_out_every_number_once(here: Isa) -> None:
    counter, each, threads = np.zeros(1, np.int64), 300_000, 3
    taken = [np.zeros(each, np.int64) for _ in range(threads)]

    def write(f: Function, shared: Pointer, out: Pointer) -> None:
        with f.loop(0, each) as i:
            Table(out, INT, 8)[i] = shared.claim(2)

    program, together = compiled(here, write, 2), threading.Barrier(threads)

    def work(own: Array) -> None:
        together.wait()
        program(counter, own)

    workers = [threading.Thread(target=work, args=(own,)) for own in taken]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert counter[0] == 2 * each * threads
    np.testing.assert_array_equal(np.sort(np.concatenate(taken)), np.arange(0, counter[0], 2))


def test_bytes_of_types(here: Isa) -> None:
    kinds = [BOOL, BYTE, I16, I32, INT, HALF, FLOAT, DOUBLE, vector(FLOAT, here.lanes(4))]
    assert [bytes_of(kind) for kind in kinds] == [1, 1, 2, 4, 8, 2, 4, 8, here.vector_bytes]
