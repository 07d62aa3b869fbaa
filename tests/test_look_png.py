"""The PNG shows the numbers it says it shows, and leaves matplotlib as it was."""

from __future__ import annotations

import struct
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pytest

from looks import taken
from sightline.look import png
from sightline.look.sizes import coarser, per_block

if TYPE_CHECKING:
    from pathlib import Path

    from sightline.look.picture import Picture

WORDS = ["[CLS]", "alice", "$was$", "pee", "##ped", "into", "the", "book"]


def panels(picture: Picture) -> dict[str, Any]:
    """The axes of the figure by their titles."""
    return {
        axes.get_title(loc="left"): axes for axes in png.figure(picture).axes if axes.get_title(loc="left")
    }


def names(axis: Any) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


@pytest.mark.parametrize("heads", [1, 2, 5, 12, 32])
def test_a_map_of_each_head_shows_its_weights(heads: int) -> None:
    picture, steps = taken(heads, 8, 8, causal=True)
    maps = [axes for title, axes in panels(picture).items() if title.startswith("head ")]
    assert len(maps) == heads
    scales = set()
    for h, axes in enumerate(maps):
        assert axes.get_title(loc="left").split()[1] == str(h)
        (image,) = axes.images
        shown = image.get_array()
        np.testing.assert_allclose(shown.filled(0.0), steps.weights[h], rtol=1e-6)
        np.testing.assert_array_equal(shown.mask, np.triu(np.ones((8, 8), bool), 1))
        assert image.get_extent() == [-0.5, 7.5, 7.5, -0.5]
        scales.add((image.norm.vmin, image.norm.vmax))
    assert scales == {(0.1 / 8, 1.0)}  # one for all: the first query gives 1 to its only key


def test_blocks_are_shares_of_the_queries_attention() -> None:
    picture, steps = taken(12, 500, 500)
    maps = [axes for title, axes in panels(picture).items() if title.startswith("head ")]
    shown = maps[3].images[0].get_array()
    assert shown.shape == (250, 250)
    expected = coarser(steps.weights.astype(np.float32), 250, 250)[3] / 2
    np.testing.assert_allclose(shown.filled(0.0), expected, rtol=1e-5)
    np.testing.assert_allclose(shown.sum(axis=1), 1.0, rtol=1e-5)
    assert any(
        axes.get_ylabel() == "share of attention to a block of 2 keys" for axes in png.figure(picture).axes
    )


def test_one_head_has_room_for_the_finer_map() -> None:
    picture, steps = taken(1, 500, 500)
    (head,) = (axes for title, axes in panels(picture).items() if title.startswith("head "))
    np.testing.assert_allclose(head.images[0].get_array().filled(0.0), steps.weights[0], rtol=1e-5)
    assert any(axes.get_ylabel() == "weight" for axes in png.figure(picture).axes)


def test_unequal_blocks_count_their_own_queries() -> None:
    picture, _ = taken(12, 499, 499)
    assert set(per_block(499, 256)) == {1, 2}
    maps = [axes for title, axes in panels(picture).items() if title.startswith("head ")]
    np.testing.assert_allclose(maps[0].images[0].get_array().sum(axis=1), 1.0, rtol=1e-5)


def test_few_heads_are_lines_along_the_sequence() -> None:
    picture, steps = taken(2, 30, 40)
    found = panels(picture)
    received = found["attention received, share of all queries'"]
    entropy = found["entropy, nats"]
    lines = [patch for patch in received.patches if patch.get_label().startswith("head")]
    assert [line.get_label() for line in lines] == ["head 0", "head 1"]
    for h, line in enumerate(lines):
        np.testing.assert_allclose(line.get_data().values, steps.weights[h].sum(0) / 30, rtol=1e-5)
        np.testing.assert_allclose(line.get_data().edges, np.arange(41) - 0.5)
    assert picture.entropy is not None
    np.testing.assert_allclose(entropy.patches[1].get_data().values, picture.entropy[0], rtol=1e-6)
    assert received.get_yscale() == "log"
    assert entropy.get_yscale() == "linear"
    assert entropy.get_xlabel() == "query"


def test_many_heads_are_stripes_along_the_sequence() -> None:
    picture, steps = taken(6, 30, 40)
    found = panels(picture)
    (received,) = found["attention received, share of all queries'"].images
    np.testing.assert_allclose(received.get_array(), steps.weights.sum(1) / 30, rtol=1e-5)
    (entropy,) = found["entropy, nats"].images
    assert picture.entropy is not None
    np.testing.assert_allclose(entropy.get_array(), picture.entropy, rtol=1e-6)
    assert received.get_extent() == [-0.5, 39.5, 5.5, -0.5]


def test_long_sequences_say_what_a_stretch_shows() -> None:
    received = np.zeros((6, 131_072), np.float32)
    received[2, 70_000] = 100.0
    entropy = np.full((6, 131_072), 2.0, np.float32)
    picture, _ = taken(6, 4, 4)
    long = replace(picture, queries=131_072, keys=131_072, received=received, entropy=entropy, pooled=None)
    found = panels(long)
    (stripes,) = found["attention received, share of all queries'; largest of 132 neighbours"].images
    assert stripes.get_array().shape == (6, 1000)
    assert stripes.get_array().max() == np.float32(100 / 131_072)  # a lonely key is seen
    assert "entropy, nats; mean of 132 neighbours" in found
    one = replace(long, heads=("0",), received=received[2:3], entropy=entropy[:1])
    assert "entropy, nats; line: mean of 132 neighbours, around it: their range" in panels(one)


def test_tokens_name_the_axes_where_there_is_room() -> None:
    expected = ["[CLS]", "alice", "$was$", "pee", "ped", "into", "the", "book"]
    picture, _ = taken(1, 8, 8, tokens=WORDS)
    head = next(axes for title, axes in panels(picture).items() if title.startswith("head "))
    assert names(head.xaxis) == expected
    assert names(head.yaxis) == expected
    assert not any(label.get_parse_math() for label in head.xaxis.get_ticklabels())
    many, _ = taken(1, 300, 300, tokens=["word"] * 300)
    head = next(axes for title, axes in panels(many).items() if title.startswith("head "))
    assert "word" not in names(head.xaxis)


def test_missing_fields_are_left_out() -> None:
    picture, _ = taken(3, 8, 8)
    assert set(panels(replace(picture, pooled=None, entropy=None))) == {
        "attention received, share of all queries'"
    }
    assert [title.split()[0] for title in panels(replace(picture, received=None, entropy=None))] == [
        "head"
    ] * 3
    empty = replace(picture, pooled=None, entropy=None, received=None)
    assert png.figure(empty).axes == []


def test_hidden_and_undefined_blocks_are_no_colour_of_a_weight() -> None:
    picture, _ = taken(1, 4, 4)
    assert picture.pooled is not None
    blocks = picture.pooled.copy()
    blocks[0, 2] = np.nan
    found = panels(replace(picture, pooled=blocks))
    shown = next(axes for title, axes in found.items() if title.startswith("head ")).images[0].get_array()
    assert shown.mask[2].all()
    assert not shown.mask[[0, 1, 3]].any()
    nothing = panels(replace(picture, pooled=np.zeros((1, 4, 4), np.float32)))
    assert next(iter(nothing.values())).images[0].get_array().mask.all()


@pytest.mark.parametrize(
    ("heads", "queries", "keys"), [(1, 1, 1), (12, 1, 300), (1, 300, 2), (7, 2, 2), (40, 8, 8), (1, 8, 8)]
)
def test_every_shape_becomes_a_file(heads: int, queries: int, keys: int, tmp_path: Path) -> None:
    picture, _ = taken(heads, queries, keys)
    png.write(picture, tmp_path / "out.png")
    data = (tmp_path / "out.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert 800 <= width <= 1600
    assert 300 <= height <= 3000


def test_letters_that_the_font_lacks_are_no_warning(tmp_path: Path) -> None:
    picture, _ = taken(1, 3, 3, tokens=["注意", "$x", "\U0001f407"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png.write(picture, tmp_path / "out.png")


def test_matplotlib_stays_as_it_was() -> None:
    picture, _ = taken(3, 8, 8)
    with mpl.rc_context({"axes.facecolor": "#000000", "text.color": "#ffffff", "font.size": 30.0}):
        before = dict(mpl.rcParams)
        made = png.figure(picture)
        assert dict(mpl.rcParams) == before
    assert mpl.colors.to_hex(made.axes[0].get_facecolor()) == "#ffffff"
    assert made.axes[0].title.get_color() != "#ffffff"
