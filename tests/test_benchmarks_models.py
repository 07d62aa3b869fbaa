"""benchmarks.models: which answers agree, and what is made of the figures. No timing in tests."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("the benchmarks are in the repository only", allow_module_level=True)
sys.path.insert(0, str(ROOT))
torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers")

from benchmarks import model_tasks, models  # noqa: E402
from benchmarks.models import OURS, THEIRS, Took  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:transformers")
LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 90,
}


def bert() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.BertConfig(**sizes, vocab_size=30000)
    return transformers.BertModel._from_config(config, attn_implementation="sdpa").eval()


@pytest.fixture
def inside() -> models.Inside:
    """Each look at the clock is a second later."""
    ticks = itertools.count()
    return models.Inside(lambda: float(next(ticks)))


def test_both_ways_write_the_same_tokens_and_attention_is_clocked_alone(inside: models.Inside) -> None:
    task = model_tasks.writing("float32", 9, 4, LLAMA)
    (took, theirs), (again, ours) = (inside.turn(task, way) for way in models.WAYS)
    assert ours == theirs
    assert len(ours) == 4
    assert (
        took == again == Took(seconds=2 * 2 * 4 + 1, inside=2 * 4)
    )  # two layers, four tokens, the prompt not


def test_tokens_that_differ_are_too_much_in_float32_alone() -> None:
    for dtype, wrong in ("float32", True), ("bfloat16", False):
        differ = model_tasks.writing(dtype, 9, 4, LLAMA).differ
        assert differ([1, 2, 3, 4], [1, 2, 3, 4]) == (False, "the first 4 of 4 tokens are the same")
        assert differ([1, 2, 3, 4], [1, 2, 5, 4]) == (wrong, "the first 2 of 4 tokens are the same")


def test_embeddings_have_to_agree(inside: models.Inside) -> None:
    task = model_tasks.encoding("float32", 3, 20, bert)
    (_, theirs), (_, ours) = (inside.turn(task, way) for way in models.WAYS)
    assert ours.shape == (3, 32)
    assert torch.allclose(ours.norm(dim=-1), torch.ones(3, dtype=torch.float64))
    assert not task.differ(theirs, ours)[0]
    assert not task.differ(theirs, theirs + 0.9e-5)[0]
    assert task.differ(theirs, theirs + 1.1e-5)[0]


def test_in_half_precision_ours_may_be_off_by_little_more_than_theirs(inside: models.Inside) -> None:
    exact = inside.turn(model_tasks.encoding("float32", 3, 20, bert), THEIRS)[1]
    task = model_tasks.encoding("bfloat16", 3, 20, bert)
    (_, theirs), (_, ours) = (inside.turn(task, way) for way in models.WAYS)
    wrong, text = task.differ(theirs, ours)
    assert not wrong
    assert "× torch's" in text
    assert task.differ(theirs, exact + 1.3 * (theirs - exact))[0]


def test_wrong_answers_are_not_timed(inside: models.Inside, capsys: pytest.CaptureFixture[str]) -> None:
    task = model_tasks.writing("float32", 9, 4, LLAMA)
    wrong = model_tasks.Task(**{**vars(task), "differ": lambda *_: (True, "all of them")})
    assert models.measured(wrong, 1, 2, inside) == []
    assert "! decode 4 after 9, float32: all of them; not timed" in capsys.readouterr().out
    found = models.measured(task, 1, 2, inside)
    assert [row.way for row in found] == [THEIRS, OURS]


def test_ratios_are_taken_inside_each_round() -> None:
    task = model_tasks.Task("decode", "float32", "tokens", 10, None, list, list, lambda *_: (False, ""))
    turns = [
        {THEIRS: Took(seconds, inside), OURS: Took(1.0, 0.5)}
        for seconds, inside in ((2.0, 1.0), (4.0, 0.5), (3.0, 2.0))
    ]
    first = {way: Took(9.0, 8.0) for way in models.WAYS}
    theirs, ours = models.rows(task, 1, turns, first)
    assert (theirs.ms, theirs.per_second, theirs.attention_ms) == (3000.0, 10 / 3.0, 1000.0)
    assert (theirs.ours_faster, theirs.attention_faster, theirs.share) == (3.0, 2.0, 1 / 3)
    assert (ours.ours_faster, ours.attention_faster, ours.share) == (1.0, 1.0, 0.5)
    assert (ours.first_ms, ours.first_attention_ms) == (9000.0, 8000.0)
    assert "33.3%" in models.line(theirs)
    assert set(vars(theirs)) <= set(models.COLUMNS)
