"""From a Seen to its picture, and `Seen.plot`."""

from __future__ import annotations

import struct
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import sightline
from command import python
from looks import assert_close
from sightline import See, Seen, reference, reference_statistics
from sightline.look.seen import picture_of

if TYPE_CHECKING:
    from pathlib import Path

ALL = See(lse=True, max_score=True, entropy=True, distance=True, received=True, top_keys=3, pooled=(6, 5))
WORDS = ["once", "upon", "a", "time", "there", "was", "."]
FIELDS = ("lse", "max_score", "entropy", "distance", "received", "pooled")


def seen_of(*batch: int, queries: int = 7, keys: int = 7, see: See = ALL, **options: Any) -> Seen:
    rng = np.random.default_rng(0)
    q, k = (rng.standard_normal((*batch, length, 8)) for length in (queries, keys))
    return reference_statistics.see(reference.attention(q, k, k, **options), see)


def test_every_field_arrives() -> None:
    seen = seen_of(2, 3, queries=7, keys=9)
    picture = picture_of(seen, sequence=1, title="two")
    assert (picture.title, picture.heads, picture.queries, picture.keys) == ("two", ("0", "1", "2"), 7, 9)
    for name in FIELDS:
        assert getattr(picture, name).dtype == np.float32
        assert_close(getattr(picture, name), getattr(seen, name)[1])
    assert picture.top_keys is not None
    assert seen.top_keys is not None
    np.testing.assert_array_equal(picture.top_keys.indices, seen.top_keys.indices[1])
    assert_close(picture.top_keys.weights, seen.top_keys.weights[1])
    assert picture.fine is None


def test_sequences_are_counted_through_all_axes_of_the_batch() -> None:
    seen = seen_of(2, 2, 3)
    assert_close(picture_of(seen, sequence=2).received, seen.received[1, 0])
    assert_close(picture_of(seen, sequence=2).pooled, seen.pooled[1, 0])


def test_plain_matrices_are_one_head() -> None:
    seen = seen_of()
    picture = picture_of(seen, tokens=WORDS)
    assert picture.heads == ("0",)
    assert picture.query_tokens is picture.key_tokens
    assert_close(picture.received, seen.received[None])
    assert_close(picture.pooled, seen.pooled[None])
    assert picture.top_keys is not None
    assert picture.top_keys.indices.shape == (1, 7, 3)


def test_heads_are_chosen_and_named() -> None:
    seen = seen_of(4)
    picture = picture_of(seen, heads=[3, 1], names=[10, 11, 12, 13])
    assert picture.heads == ("13", "11")
    assert_close(picture.entropy, seen.entropy[[3, 1]])
    assert picture.top_keys is not None
    assert picture.top_keys.weights.shape == (2, 7, 3)


def test_what_was_not_asked_for_is_not_there() -> None:
    picture = picture_of(Seen(lse=np.zeros((2, 4)), received=np.ones((2, 5))))
    assert (picture.queries, picture.keys) == (4, 5)
    for name in ("entropy", "distance", "max_score", "top_keys", "pooled", "fine", "visible", "key_tokens"):
        assert getattr(picture, name) is None


@pytest.mark.parametrize("blocks", [(7, 7), (9, 8), (7, 20), (3, 20)])
def test_blocks_without_a_query_or_key_are_no_part_of_the_picture(blocks: tuple[int, int]) -> None:
    picture = picture_of(seen_of(2, see=replace(ALL, pooled=blocks)))
    expected = seen_of(2, see=replace(ALL, pooled=(min(blocks[0], 7), min(blocks[1], 7))))
    assert_close(picture.pooled, expected.pooled)


@pytest.mark.parametrize(
    ("length", "blocks", "pooled"), [(600, 600, 200), (600, 512, 256), (600, 300, 150), (600, 257, 1)]
)
def test_large_maps_get_an_overview(length: int, blocks: int, pooled: int) -> None:
    seen = seen_of(1, queries=length, keys=length, see=See(received=True, lse=True, pooled=(blocks, blocks)))
    picture = picture_of(seen)
    assert_close(picture.fine, seen.pooled)
    whole = seen_of(1, queries=length, keys=length, see=See(pooled=(pooled, pooled)))
    assert_close(picture.pooled, whole.pooled, rtol=1e-5)


@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
def test_tensors(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    q, k, v = torch.randn(3, 1, 2, 7, 8)
    _, seen = sightline.attention(q, k, v, see=("entropy", "distance"))
    assert_close(picture_of(seen, tokens=WORDS).entropy, seen.entropy[0].numpy())
    seen.plot(tokens=WORDS)
    assert "distance" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seen", "labels", "message"),
    [
        (Seen(), {}, r"nothing to draw in this Seen; expected fields such as see=\("),
        (
            Seen(entropy=np.ones((2, 4))),
            {},
            "how many keys there are; try asking for received too, or tokens=",
        ),
        (Seen(received=np.ones((2, 4))), {}, "how many queries there are; try asking for lse too"),
        (Seen(lse=np.ones((2, 4)), received=np.ones((1, 4))), {}, r"lse has 2, received has 1.*per_group"),
        (seen_of(2), {"heads": [2]}, "heads has 2; this Seen has 2, counted from 0"),
        (seen_of(2), {"heads": [-1]}, "heads has -1"),
        (seen_of(2), {"names": ["a"]}, "names has 1 of them; this Seen has 2 heads"),
        (seen_of(3, 2), {"sequence": 3}, "sequence is 3; this Seen has 3, counted from 0"),
        (seen_of(2), {"tokens": ["a"]}, "tokens has 1 labels; expected 7, one for each key"),
        (seen_of(2), {"path": "x.pdf"}, "path is 'x.pdf'; expected a name that ends in .png or .html"),
    ],
)
def test_errors_say_what_to_ask_for(seen: Seen, labels: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        seen.plot(**labels)


def test_plot_prints(capsys: pytest.CaptureFixture[str]) -> None:
    seen_of(2).plot(tokens=WORDS, title="not shown here")
    out = capsys.readouterr().out
    assert "once upon a time there was ." in out
    assert "sharpest" in out


def test_plot_writes_a_png(tmp_path: Path) -> None:
    seen_of(2).plot(tmp_path / "seen.PNG", tokens=WORDS)
    data = (tmp_path / "seen.PNG").read_bytes()
    assert struct.unpack(">II", data[16:24])[0] > 800


def test_plot_writes_a_page(tmp_path: Path) -> None:
    seen_of(2).plot(str(tmp_path / "seen.html"), tokens=WORDS, title="A Title & More")
    assert "A Title &amp; More" in (tmp_path / "seen.html").read_text("utf-8")


@pytest.mark.parametrize(("package", "path"), [("rich", None), ("matplotlib", "x.png"), ("jinja2", "x.html")])
def test_a_missing_package_is_named(package: str, path: str | None) -> None:
    hide = f"import sys; sys.modules[{package!r}] = None"
    done = python("-c", f"{hide}; import sightline; sightline.Seen().plot({path!r})")
    assert f"ImportError: pictures need {package}" in done.stderr
    assert "pip install 'sightline[look]'" in done.stderr
