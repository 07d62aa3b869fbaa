"""A picture's numbers are the reference's, in however many parts it is taken."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from command import normal
from looks import Array, assert_close
from sightline import See, reference, reference_statistics
from sightline.look import gather
from sightline.look.gather import Look, picture
from sightline.look.sizes import starts
from sightline.reference_call import read

if TYPE_CHECKING:
    from sightline.look.picture import Picture

MASK = np.random.default_rng(5).random((4, 90, 70)) < 0.6
BIAS = np.where(np.random.default_rng(6).random((90, 70)) < 0.2, -np.inf, normal(90, 70, seed=7)).astype("f4")
OPTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "causal": {"causal": True, "query_offset": -20},
    "offsets": {"causal": True, "query_offset": np.array([-20, 3])},
    "window": {"window": (9, 4), "query_offset": 0},
    "lengths": {"key_lengths": np.array([70, 31])},
    "mask": {"mask": MASK},
    "bias": {"bias": BIAS},
    "scale, softcap, sinks": {"scale": 0.7, "softcap": 3.0, "sinks": normal(4)},
    "slopes": {"alibi_slopes": abs(normal(4)), "query_offset": 5},
    "BLHD": {"layout": "BLHD"},
}
NUMBERS = ("lse", "max_score", "entropy", "distance", "received")


def expected_of(q: Array, k: Array, found: Picture, **options: Any) -> tuple[reference.Steps, Any]:
    steps = reference.attention(q, k, k, **options)
    asked: dict[str, Any] = dict.fromkeys(NUMBERS, True)
    assert found.top_keys is not None
    return steps, reference_statistics.see(steps, See(**asked, top_keys=found.top_keys.weights.shape[-1]))


def close(found: Any, expected: Any) -> None:
    __tracebackhide__ = True
    assert found is not None
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("case", OPTIONS)
@pytest.mark.parametrize("parts", ["whole", "parts"])
def test_numbers_are_the_references(case: str, parts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if parts == "parts":
        monkeypatch.setattr(gather, "PART", 1.0)
        monkeypatch.setattr(gather, "ROWS", 10)
    options = OPTIONS[case]
    q, k = normal(2, 4, 90, 8), normal(2, 2, 70, 8, seed=1)
    steps, seen = expected_of(
        q, k, picture(q, k, **{} if case == "BLHD" else options), **options | {"layout": "BHLD"}
    )
    if case == "BLHD":
        q, k = q.swapaxes(1, 2), k.swapaxes(1, 2)
    done = []
    found = picture(q, k, heads=(3, 0), sequence=1, advance=lambda: done.append(1), **options)
    assert len(done) == 2 * (9 if parts == "parts" else 1)
    assert found.heads == ("3", "0")
    assert (found.queries, found.keys) == (90, 70)
    for name in NUMBERS:
        close(getattr(found, name), getattr(seen, name)[1, [3, 0]])
    close(found.pooled, steps.weights[1, [3, 0]])
    assert found.fine is None
    assert found.top_keys is not None
    close(found.top_keys.weights, seen.top_keys.weights[1, [3, 0]])
    np.testing.assert_array_equal(found.visible, steps.seen[1, [3, 0]].sum(-1))
    offset = options.get("query_offset", 0)
    assert found.offset == (offset if isinstance(offset, int) else offset[1])


@pytest.mark.parametrize(("queries", "keys"), [(300, 300), (299, 301), (1, 600), (600, 1)])
def test_maps_of_longer_sequences(queries: int, keys: int) -> None:
    q, k = normal(2, queries, 8), normal(2, keys, 8, seed=1)
    found = picture(q, k)
    steps, _ = expected_of(q, k, found)
    close(found.fine, steps.weights)
    assert found.pooled is not None
    assert max(found.pooled.shape[1:]) <= 256
    close(found.pooled, reference_statistics.pooled(steps, *found.pooled.shape[1:]))


@pytest.mark.parametrize("length", [6000, 6007])  # blocks of three queries, and a prime: of two or three
def test_parts_have_whole_blocks(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    q = normal(1, length, 4)
    look = Look.at(read(q, q, q))
    blocks = look.sizes.fine[0]
    assert [part.rows for part in look.parts()] == [slice(0, length)]
    monkeypatch.setattr(gather, "PART", 1.0)
    rows = [part.rows for part in look.parts()]
    assert len(rows) == (5 if length == 6000 else 6)
    assert [row.start for row in rows[1:]] == [row.stop for row in rows[:-1]]
    assert all((row.start - 1) * blocks // length < row.start * blocks // length for row in rows)
    assert (rows[0].start, rows[-1].stop) == (0, length)


@pytest.mark.parametrize("queries", [4100, 4099])
def test_the_parts_of_a_long_call_are_those_of_the_whole(
    queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k = normal(1, queries, 4), normal(1, 300, 4, seed=1)
    options: dict[str, Any] = {"causal": True, "query_offset": -100}
    whole = picture(q, k, **options)
    monkeypatch.setattr(gather, "PART", 1.0)
    steps = []
    parts = picture(q, k, advance=lambda: steps.append(1), **options)
    assert len(steps) == (4 if queries == 4100 else 5)
    for name in (*NUMBERS, "pooled", "fine"):
        assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-5)
    assert parts.fine is not None
    weights = reference.attention(q, k, k, **options).weights
    expected = np.add.reduceat(weights, starts(queries, parts.fine.shape[1]), axis=1)
    close(parts.fine, expected)


def test_a_very_long_call_in_little_memory() -> None:
    q = normal(1, 131_071, 2)
    look = Look.at(read(q, q, q, window=(300, 0)))
    numbers = sum(part.rows.stop - part.rows.start for part in look.parts())
    assert numbers == 131_071
    assert max(part.rows.stop - part.rows.start for part in look.parts()) <= 1100
    tracemalloc.start()
    found = gather.take(look)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 << 20  # the picture itself has 45 MiB
    assert found.fine is not None
    assert found.fine.shape == (1, 2048, 2048)
    assert found.received is not None
    assert found.received.sum() == pytest.approx(131_071, rel=1e-4)
    last = reference.attention(q[:, -1:], q[:, -301:], q[:, -301:]).weights[0, 0]
    assert found.top_keys is not None
    close(found.top_keys.weights[0, -1], np.sort(last)[::-1][:8])
    assert found.top_keys.indices[0, -1, 0] == 131_071 - 301 + last.argmax()


def test_tokens_name_keys_and_queries() -> None:
    q, k = normal(2, 3, 8), normal(2, 5, 8, seed=1)
    found = picture(q, k, causal=True, query_offset=2, tokens=list("abcde"), title="five")
    assert found.key_tokens == tuple("abcde")
    assert found.query_tokens == tuple("cde")
    assert found.title == "five"


def test_plain_matrices_are_one_head() -> None:
    q = normal(6, 8)
    found = picture(q, q)
    assert found.heads == ("0",)
    close(found.pooled, reference.attention(q, q, q).weights[None])


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((2, 3, 8), {"heads": (0, 2)}, "heads has 2; there are 2, counted from 0"),
        ((2, 3, 8), {"heads": ()}, "nothing to look at: 0 heads of 3 queries × 3 keys"),
        ((3, 2, 3, 8), {"sequence": 3}, "sequence is 3; there are 3, counted from 0"),
        ((2, 0, 8), {}, "nothing to look at: 2 heads of 0 queries × 0 keys"),
        ((2, 3, 8), {"tokens": ["a"]}, "tokens has 1 labels; expected 3"),
        ((2, 3, 8), {"scale": "big"}, "scale"),
    ],
)
def test_errors(shape: tuple[int, ...], options: dict[str, Any], message: str) -> None:
    x = normal(*shape)
    with pytest.raises((ValueError, TypeError), match=message):
        picture(x, x, **options)
