"""The door: any kind of array in, the same kind out; calls that repeat; errors before anything is written."""

from __future__ import annotations

import array
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import sightline
from sightline import calls, reference

Array = np.ndarray[Any, Any]


def three(*shape: int, dtype: Any = np.float32) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(7)
    q, k, v = rng.standard_normal((3, *shape)).astype(dtype)
    return q, k, v


def close(got: Any, want: Array, dtype: Any = np.float32) -> None:
    bound = {2: 2e-3, 4: 2e-6, 8: 1e-14}[np.dtype(dtype).itemsize]
    np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=0, atol=bound)


# ── Arrays in, arrays out ──


def test_a_buffer_gives_numpy() -> None:
    q, k, v = three(1, 9, 8)
    views = [x.data for x in (q, k, v)]
    got = sightline.attention(*views)
    assert type(got) is np.ndarray
    close(got, reference.attention(q, k, v).output)


def test_out_may_be_a_buffer() -> None:
    q, k, v = three(9, 8)
    memory = array.array("f", [0.0] * 72)
    out = memoryview(memory).cast("B").cast("f", (9, 8))
    assert sightline.attention(q, k, v, out=out) is out
    close(np.array(memory).reshape(9, 8), reference.attention(q, k, v).output)


def test_out_is_written_in_any_layout_and_returned() -> None:
    q, k, v = three(2, 4, 33, 24)
    want = reference.attention(q, k, v).output
    wide = np.full((2, 33, 4, 48), 7.0, np.float32)
    out = wide[..., ::-2].transpose(0, 2, 1, 3)
    assert sightline.attention(q, k, v, out=out) is out
    close(out, want)
    assert (wide[..., ::2] == 7.0).all(), "written outside of out"


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_a_tensor_gives_a_tensor(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    q, k, v = (torch.from_numpy(x).to(getattr(torch, dtype)) for x in three(2, 3, 17, 40))
    got = sightline.attention(q, k, v, causal=True)
    assert isinstance(got, torch.Tensor)
    assert got.dtype == q.dtype
    wide = [x.double().numpy() for x in (q, k, v)]
    error = abs(got.double().numpy() - reference.attention(*wide, causal=True).output).max()
    assert error < {"float64": 1e-14, "float32": 2e-6, "float16": 2e-3, "bfloat16": 2e-2}[dtype]


def test_a_tensor_that_wants_gradients_gets_them_also_after_a_call_without() -> None:
    torch = pytest.importorskip("torch")
    q, k, v = (torch.from_numpy(x) for x in three(1, 5, 8))
    plain = sightline.attention(q, k, v)
    assert not plain.requires_grad
    q.requires_grad_()
    for _ in range(2):
        out = sightline.attention(q, k, v)
        assert out.requires_grad
        assert torch.equal(out, plain)
    with torch.no_grad():
        assert not sightline.attention(q, k, v).requires_grad


def test_inputs_may_be_read_only_and_are_not_changed() -> None:
    q, k, v = three(2, 65, 40)
    before = [x.copy() for x in (q, k, v)]
    for x in (q, k, v):
        x.flags.writeable = False
    close(sightline.attention(q, k, v), reference.attention(q, k, v).output)
    for x, y in zip((q, k, v), before, strict=True):
        np.testing.assert_array_equal(x, y)


def test_inputs_may_lie_at_odd_addresses() -> None:
    arrays = []
    for x in three(2, 37, 20):
        memory = np.zeros(x.nbytes + 1, np.uint8)
        odd = memory[1:].view(np.float32).reshape(x.shape)
        odd[...] = x
        assert not odd.flags.aligned
        arrays.append(odd)
    close(sightline.attention(*arrays), reference.attention(*arrays).output)


# ── Calls that repeat ──


def test_a_repeated_call_is_prepared_once_and_reads_the_new_numbers() -> None:
    calls._ready.clear()
    q, k, v = three(2, 11, 16)
    for scale in (1.0, 2.0, 3.0):
        close(sightline.attention(q * np.float32(scale), k, v), reference.attention(q * scale, k, v).output)
    assert len([x for x in calls._ready.values() if isinstance(x, calls.Ready)]) == 1


def test_buffers_are_prepared_once_too(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = three(2, 11, 16)
    sightline.attention(q.data, k.data, v.data)
    monkeypatch.delattr(calls, "_prepare")
    close(sightline.attention((2 * q).data, k.data, v.data), reference.attention(2 * q, k, v).output)


def test_the_environment_is_part_of_what_a_call_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = three(1, 11, 16)
    close(sightline.attention(q, k, v), reference.attention(q, k, v).output)
    monkeypatch.setenv("SIGHTLINE_ISA", "mmx")
    with pytest.raises(ValueError, match="'mmx' is not an instruction set"):
        sightline.attention(q, k, v)


def test_lengths_and_offsets_are_read_at_every_call() -> None:
    q, k, v = three(2, 3, 11, 16)
    for lengths, offsets in ([3, 11], [0, 2]), ([9, 0], [5, 1]):
        options: dict[str, Any] = {"key_lengths": np.array(lengths), "query_offset": offsets, "causal": True}
        close(sightline.attention(q, k, v, **options), reference.attention(q, k, v, **options).output)


def test_one_length_for_all_is_part_of_the_prepared_call() -> None:
    q, k, v = three(2, 3, 11, 16)
    for length in (4, 7, 4):
        close(
            sightline.attention(q, k, v, key_lengths=length),
            reference.attention(q, k, v, key_lengths=length).output,
        )


def test_what_equals_a_valid_option_is_still_an_error() -> None:
    q, k, v = three(1, 6, 8)
    sightline.attention(q, k, v, causal=True)
    sightline.attention(q, k, v, key_lengths=1)
    sightline.attention(q, k, v, window=(1, 0))
    wrong: list[dict[str, Any]] = [{"causal": 1}, {"key_lengths": True}, {"window": (True, False)}]
    for options in wrong:
        with pytest.raises(TypeError):
            sightline.attention(q, k, v, **options)


def test_the_store_of_prepared_calls_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MOST_READY", 4)
    calls._ready.clear()
    for length in range(1, 12):
        q, k, v = three(length, 8)
        close(sightline.attention(q, k, v), reference.attention(q, k, v).output)
        assert len(calls._ready) <= 4


# ── Errors ──


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ({"query": None}, TypeError, "query is a NoneType, which does not show its memory"),
        ({"value": None}, TypeError, "value is a NoneType, which does not show its memory"),
        ({"mask": [[True]]}, TypeError, r"mask is a list; .* try np\.asarray\(mask, dtype=bool\)"),
        (
            {"window": np.array([3, 4])},
            TypeError,
            r"window is array\(\[3, 4\]\) \(ndarray\); expected None or",
        ),
        (
            {"key_lengths": [[1], [2, 3]]},
            TypeError,
            r"key_lengths is \[\[1\], \[2, 3\]\] \(list\); .* a flat list",
        ),
        ({"query_offset": []}, ValueError, r"query_offset has shape \(0,\); expected one that broadcasts"),
    ],
)
def test_wrong_arguments_are_told_in_our_words_by_door_and_reference(
    wrong: dict[str, Any], error: type[Exception], text: str
) -> None:
    call = dict(zip(("query", "key", "value"), three(2, 1, 4, 8), strict=True)) | wrong
    for attend in (sightline.attention, sightline.explain, reference.attention):
        with pytest.raises(error, match=text):
            attend(**call)


def test_a_tensor_that_numpy_cannot_read_is_told_in_our_words() -> None:
    torch = pytest.importorskip("torch")
    q, k, v = three(2, 1, 4, 8)
    for tensor in (torch.ones(2, dtype=torch.bfloat16), torch.ones(2, device="meta", dtype=torch.int64)):
        with pytest.raises(TypeError, match=r"key_lengths is tensor\(.*; expected one int for each sequence"):
            sightline.attention(q, k, v, key_lengths=tensor)


def test_what_is_not_there_yet_says_so_by_name() -> None:  # the fields of See: test_see.py
    q, k, v = three(4, 8)
    with pytest.raises(NotImplementedError, match="score_mod= is not there yet"):
        sightline.attention(q, k, v, score_mod=lambda s, b, h, p, j: s)


@pytest.mark.parametrize("name", ["query", "key", "value"])
def test_out_may_not_share_memory_with_an_input(name: str) -> None:
    arrays: dict[str, Any] = dict(zip(("query", "key", "value"), three(2, 6, 8), strict=True))
    for _ in range(2):
        with pytest.raises(ValueError, match=f"out shares memory with {name}"):
            sightline.attention(**arrays, out=arrays[name])


def test_out_may_lie_between_the_inputs_of_one_buffer() -> None:
    fused = np.random.default_rng(3).standard_normal((2, 33, 4, 4, 16)).astype(np.float32)
    q, k, v, out = (fused[:, :, i] for i in range(4))
    want = reference.attention(q, k, v, layout="BLHD").output
    before = fused[:, :, :3].copy()
    assert sightline.attention(q, k, v, layout="BLHD", out=out) is out
    close(out, want)
    np.testing.assert_array_equal(fused[:, :, :3], before)
    with pytest.raises(ValueError, match="out shares memory with key"):
        sightline.attention(q[:, 1:], k[:, :-1], v[:, 1:], layout="BLHD", out=k[:, 1:])


def test_out_may_not_be_read_only_or_overlap_itself() -> None:
    q, k, v = three(2, 6, 8)
    out = np.empty_like(q)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        sightline.attention(q, k, v, out=out)
    folded = np.lib.stride_tricks.as_strided(np.empty(8, np.float32), (2, 6, 8), (0, 0, 4))
    with pytest.raises(ValueError, match="overlaps itself"):
        sightline.attention(q, k, v, out=folded)


def test_a_failed_call_writes_nothing() -> None:
    q, k, v = three(2, 6, 8)
    out = np.full_like(q, 5.0)
    with pytest.raises(ValueError, match="key_lengths"):
        sightline.attention(q, k, v, key_lengths=[3, 99], out=out)
    with pytest.raises(ValueError, match="key_lengths"):
        sightline.attention(q[None], k[None], v[None], key_lengths=[99], out=out[None])
    assert (out == 5.0).all()


@pytest.mark.parametrize(
    ("shape", "key_shape"),
    [((2, 0, 8), (2, 5, 8)), ((2, 5, 8), (2, 0, 8)), ((0, 2, 5, 8), (0, 2, 5, 8))],
)
def test_empty_arrays_have_an_answer(shape: tuple[int, ...], key_shape: tuple[int, ...]) -> None:
    q, k = np.ones(shape, np.float32), np.ones(key_shape, np.float32)
    got = sightline.attention(q, k, k)
    assert got.shape == shape
    assert (got == 0).all()


# ── Long calls ──


def test_ctrl_c_ends_a_long_call() -> None:
    """A call of many seconds; SIGINT arrives 1 s into it, from a timer of the operating system."""
    program = """
import signal, time, numpy as np, sightline
x = np.ones((8, 60000, 64), np.float32)
sightline.attention(x[:, :64], x[:, :64], x[:, :64])
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 1.0)
try:
    sightline.attention(x, x, x)
except KeyboardInterrupt:
    print("interrupted", sightline.attention(x[:1, :4], x[:1, :4], x[:1, :4]).sum())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.split() == ["interrupted", "256.0"], done.stderr


def test_a_forked_child_computes_too() -> None:
    program = """
import os, numpy as np, sightline
x = np.random.default_rng(0).standard_normal((4, 2000, 64), dtype=np.float32)
want = sightline.attention(x, x, x)
child = os.fork()
same = bool((sightline.attention(x, x, x) == want).all())
if child == 0:
    os._exit(0 if same else 1)
print(same, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.split() == ["True", "0"], done.stderr
