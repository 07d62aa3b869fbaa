"""The examples' numbers are those of the papers' formulas, on weights written out in full by the reference."""

from __future__ import annotations

import importlib
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline import reference

EXAMPLES = Path(__file__).parent.parent / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("the examples come with the sources only", allow_module_level=True)
sys.path.insert(0, str(EXAMPLES))

Array = np.ndarray[Any, Any]
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py") if not path.stem.startswith("make_"))
HEADS, KEY_HEADS, LENGTH = 6, 2, 150


def example(name: str) -> Any:
    return importlib.import_module(name)


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def decoder(seed: int = 0) -> tuple[Array, Array]:
    """Two sequences, grouped heads; sharp enough that no two keys are as good as equal."""
    return 2 * numbers(2, HEADS, LENGTH, 16, seed=seed), numbers(2, KEY_HEADS, LENGTH, 16, seed=seed + 1)


def weights(query: Array, key: Array, **options: Any) -> Array:
    """(…, Hq, Lq, Lk)."""
    return np.asarray(reference.attention(query, key, key, **options).weights)


def close(got: Array, expected: Array) -> None:
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13)


def largest(scores: Array, count: int) -> list[set[int]]:
    """For each row, the places of its largest scores."""
    rows = scores.reshape(-1, scores.shape[-1])
    return [set(sorted(range(row.size), key=lambda j: -row[j])[:count]) for row in rows]


def sets(keys: Array) -> list[set[int]]:
    assert (np.diff(keys, axis=-1) > 0).all()
    return [set(row.tolist()) for row in keys.reshape(-1, keys.shape[-1])]


def test_h2o_keeps_the_heavy_hitters_and_the_recent_keys() -> None:
    query, key = decoder()
    # All queries look at the last keys but eight and nine, and then at a recent one, which must not count twice.
    query, key[..., [-9, -8], :], key[..., -6, :] = query + 1, 3.0, 6.0
    accumulated = weights(query, key, causal=True).sum(axis=-2)
    recent = set(range(LENGTH - 7, LENGTH))
    expected = [heavy | recent for heavy in largest(accumulated[..., :-7], 40)]
    assert sets(example("h2o").heavy_hitters(query, key, heavy=40, recent=7)) == expected


def test_snapkv_pools_the_votes_of_the_window() -> None:
    query, key = decoder()
    snapkv = example("snapkv")
    window, kernel, prompt = 20, 5, LENGTH - 20
    vote = weights(query, key, causal=True)[..., -window:, :-window].sum(axis=-2)
    vote = vote.reshape(2, KEY_HEADS, HEADS // KEY_HEADS, prompt).mean(axis=2)
    close(snapkv.votes(query, key, window), vote)
    pooled = np.zeros_like(vote)
    for j in range(prompt):
        pooled[..., j] = vote[..., max(j - kernel // 2, 0) : j + kernel // 2 + 1].sum(axis=-1) / kernel
    close(snapkv.pooled(vote, kernel), pooled)
    assert sets(snapkv.kept(query, key, 30, window, kernel)) == largest(pooled, 30)


def test_tova_averages_the_last_row() -> None:
    query, key = decoder()
    mean = weights(query, key, causal=True)[..., -1, :].mean(axis=-2)
    close(example("tova").scores(query, key), mean)
    assert sets(example("tova").kept(query, key, 16)) == largest(mean, 16)


def test_qk_clip_brings_the_largest_score_down_to_tau() -> None:
    query, key = decoder()
    qk_clip = example("qk_clip")
    scores = query @ np.repeat(key, HEADS // KEY_HEADS, axis=1).swapaxes(-1, -2) / np.sqrt(16)
    highest = np.where(np.tri(LENGTH, dtype=bool), scores, -np.inf).max(axis=(0, 2, 3))
    close(qk_clip.largest_scores(query, key), highest)
    tau = float(np.median(highest))
    gamma = qk_clip.factors(query, key, tau)
    close(gamma, np.minimum(1, tau / highest))
    close(qk_clip.largest_scores(query * gamma[:, None, None], key), np.minimum(highest, tau))


def test_minference_sums_columns_and_diagonals_of_the_last_queries() -> None:
    query, key = decoder()
    minference = example("minference")
    last = weights(query, key, causal=True)[..., -64:, :]
    slash = np.zeros((2, HEADS, LENGTH))
    for i, j in np.ndindex(64, LENGTH):
        if j <= LENGTH - 64 + i:
            slash[..., LENGTH - 64 + i - j] += last[..., i, j]
    vertical, diagonal = minference.vertical_and_slash(query, key)
    close(vertical, last.sum(axis=-2))
    close(diagonal, slash)
    chosen = sets(minference.largest(vertical, 40, always=30))
    best = largest(last.sum(axis=-2)[..., 30:], 10)
    assert chosen == [set(range(30)) | {j + 30 for j in row} for row in best]


def test_whisper_aligns_tokens_and_frames() -> None:
    whisper = example("whisper_alignment")
    query, key = numbers(6, 9, 16), numbers(6, 60, 16, seed=1)
    w = weights(query, key[:, :45])[[4, 1]]
    z = (w - w.mean(axis=1, keepdims=True)) / w.std(axis=1, keepdims=True)
    expected = np.zeros((9, 45))
    for j in range(45):
        frames = [abs(f) if f < 45 else 88 - f for f in range(j - 3, j + 4)]  # mirrored at both ends
        expected[:, j] = np.median(z[:, :, frames], axis=-1).mean(axis=0)
    np.testing.assert_allclose(
        whisper.alignment(query, key, heads=(4, 1), frames=45), expected, rtol=0, atol=1e-11
    )


def test_whisper_finds_the_best_monotone_path() -> None:
    matrix = numbers(3, 4)

    def best(i: int, j: int) -> float:
        before = [best(a, b) for a, b in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if a >= 0 and b >= 0]
        return float(matrix[i, j]) + (max(before) if before else 0.0)

    steps = example("whisper_alignment").path(matrix)
    assert (steps[0], steps[-1]) == ((0, 0), (2, 3))
    assert {(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(steps)} <= {(0, 1), (1, 0), (1, 1)}
    assert sum(matrix[step] for step in steps) == pytest.approx(best(2, 3))


@pytest.mark.parametrize("causal", [False, True])
def test_sinks_are_measured_over_the_queries_that_see_them(causal: bool) -> None:
    query, key = decoder()
    query, key[..., 3, :] = query + 1, 3.0  # what all queries have in common, key 3 has
    w = weights(query, key, causal=causal)
    alpha = np.stack([w[..., j if causal else 0 :, j].mean(axis=-1) for j in range(LENGTH)], axis=-1)
    close(example("sinks").mean_received(query, key, causal=causal), alpha)
    found = example("sinks").sinks(query, key, causal=causal)
    np.testing.assert_array_equal(found, alpha > 0.3)
    assert found[..., 3].any()


@pytest.mark.parametrize("blocks", [7, LENGTH])
def test_rollout_of_blocks(blocks: int) -> None:
    layers = [tuple(x[0] for x in decoder(seed)) for seed in (0, 2, 4)]
    rows = np.arange(LENGTH) * blocks // LENGTH
    member = (rows == np.arange(blocks)[:, None]).astype(float)  # (R, L)
    expected = np.eye(blocks)
    for query, key in layers:
        w = weights(query, key, causal=True).mean(axis=0)
        block = member @ w @ member.T / member.sum(axis=1, keepdims=True)
        expected = (0.5 * block + 0.5 * np.eye(blocks)) @ expected
    close(example("rollout").rollout(layers, blocks), expected)


def test_kvzip_takes_the_largest_weight_of_the_second_reading() -> None:
    query, repeated = decoder()
    cached = numbers(2, KEY_HEADS, 40, 16, seed=9)
    both = np.concatenate([cached, repeated], axis=-2)
    w = weights(query, both, causal=True, query_offset=40)[..., :40]
    expected = w.reshape(2, KEY_HEADS, HEADS // KEY_HEADS, LENGTH, 40).max(axis=(2, 3))
    close(example("kvzip").scores(query, cached, repeated), expected)


# ── The scripts ──


@pytest.mark.parametrize("name", NAMES)
def test_each_script_runs_and_tells_something(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    example(name).main()
    assert len(capsys.readouterr().out) > 40


@pytest.mark.parametrize("name", NAMES)
def test_each_script_is_short_and_names_its_source(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text("utf-8")
    assert len(text.splitlines()) < 60
    assert "https://arxiv.org/abs/" in str(example(name).__doc__)


def test_every_script_is_on_the_page() -> None:
    page = EXAMPLES.parent / "docs" / "seeing.md"
    shown = page.read_text("utf-8")
    assert [name for name in NAMES if f"(../examples/{name}.py)" not in shown] == []
