"""The page's data: what is written is what was given, to the stated error; text stays text; size is kept."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import sys
import zlib
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pictures import long, small
from sightline.look import page
from sightline.look.page.codec import Codec, best, pack, quantised
from sightline.look.page.payload import one_sequence, payload

pytest.importorskip("jinja2")

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sightline.look.picture import Picture

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "<img src=x onerror=alert(1)>",
    "&lt;b&gt;",
    "'\"`${alert(1)}{{ 7*7 }}{% raw %}",
    "\u2028\u202eright to left\0",
    "\ud800",
    "",
)


class Elements(HTMLParser):
    """The elements of a document and the text of its scripts."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.inside: dict[str, str] = {}
        self._open = ""
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._open = dict(attrs).get("id") or tag

    def handle_data(self, data: str) -> None:
        self.inside[self._open] = self.inside.get(self._open, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""


class Carried:
    """What a page carries, read as the page's own script reads it."""

    def __init__(self, pictures: Sequence[Picture], **options: Any) -> None:
        self.document = page.html(pictures, **options)
        self.elements = Elements(self.document)
        self.pictures = json.loads(self.elements.inside["manifest"])["pictures"]

    def raw(self, block: int) -> bytes:
        return zlib.decompress(base64.b64decode(self.elements.inside[f"block-{block}"]))

    def words(self, block: int, kind: str) -> Any:
        planes = np.frombuffer(self.raw(block), np.uint8).reshape(np.dtype(kind).itemsize, -1)
        return np.ascontiguousarray(planes.T).view(kind).reshape(-1)

    def numbers(self, array: dict[str, Any]) -> Any:
        codec = Codec(**{name: array["codec"][name] for name in ("kind", "bits", "low", "step")})
        return np.stack([codec.decode(self.words(block, codec.dtype.str)) for block in array["blocks"]])

    def tokens(self, block: int) -> Any:
        return tuple(json.loads(self.raw(block)))


# ---- Numbers ----


def test_small_pictures_are_carried_to_the_bit() -> None:
    picture = small(12)
    carried = Carried([picture])
    (manifest,) = carried.pictures
    for name, array in manifest["series"].items():
        np.testing.assert_array_equal(carried.numbers(array), getattr(picture, name), err_msg=name)
    assert set(manifest["series"]) == {"entropy", "received", "distance", "lse", "max_score"}
    (one,) = manifest["maps"]
    assert picture.pooled is not None
    np.testing.assert_array_equal(carried.numbers(one), picture.pooled.reshape(3, -1))
    assert (one["rows"], one["columns"], manifest["queries"], manifest["keys"]) == (12, 12, 12, 12)


def test_top_keys_are_carried_to_the_bit() -> None:
    picture = small(12)
    carried = Carried([picture])
    top = carried.pictures[0]["topKeys"]
    assert picture.top_keys is not None
    assert (top["every"], top["count"]) == (1, 8)
    np.testing.assert_array_equal(carried.numbers(top), picture.top_keys.weights.reshape(3, -1))
    indices = np.stack([carried.words(block, "<u4") for block in top["indices"]])
    np.testing.assert_array_equal(indices.astype(np.int32), picture.top_keys.indices.reshape(3, -1))
    assert (indices == 2**32 - 1).any()  # the first queries of a causal call see fewer keys


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_logarithmic_codes_keep_their_stated_error(bits: int) -> None:
    values = np.random.default_rng(0).lognormal(-4, 1.5, 10_000).astype(np.float32)
    values[:4] = 0.0, np.nan, values.max() * 1e-15, -1e-9
    codec = quantised(values, bits)
    again = codec.decode(codec.encode(values))
    assert codec.error < {8: 0.04, 12: 0.0026, 16: 2.2e-4}[bits]
    np.testing.assert_allclose(again[4:], values[4:], rtol=codec.error * 1.001)
    assert again[0] == 0
    assert np.isnan(again[1])
    assert 0 < again[2] <= 1.0001e-6 * values[4:].max()  # as small as it gets, but not 0
    assert again[3] == 0


def test_linear_codes_keep_their_stated_error() -> None:
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32) * 30
    values[:2] = -np.inf, np.nan
    codec = quantised(values, 16, signed=True)
    again = codec.decode(codec.encode(values))
    assert codec.error < 0.003
    np.testing.assert_allclose(again[2:], values[2:], rtol=0, atol=codec.error * 1.001)
    assert again[0] == -np.inf
    assert np.isnan(again[1])


@pytest.mark.parametrize("values", [np.zeros(3), np.full(3, np.nan), np.full(3, 0.25), np.zeros(0)])
@pytest.mark.parametrize("signed", [False, True])
def test_codes_of_arrays_with_nothing_to_tell_apart(values: Any, *, signed: bool) -> None:
    codec = quantised(values, 8, signed=signed)
    np.testing.assert_allclose(codec.decode(codec.encode(values)), values, rtol=1e-12)


def test_large_arrays_are_quantised_and_small_ones_are_not() -> None:
    assert best(np.ones(1 << 18)).kind == "float32"
    assert best(np.ones((1 << 18) + 1)).kind == "log"
    assert best(np.ones((1 << 18) + 1), signed=True).kind == "linear"


def test_alike_bytes_stand_together() -> None:
    assert zlib.decompress(base64.b64decode(pack(np.array([0x0201, 0x0403], "<u2")))) == bytes([1, 3, 2, 4])


# ---- Maps ----


def test_halved_maps_add_up() -> None:
    picture = dataclasses.replace(long(4096, heads=1, fine=1024), top_keys=None)
    assert picture.fine is not None
    whole = payload([picture], 50_000_000)[0]["pictures"][0]["maps"][1]
    assert (whole["rows"], whole["codec"]["bits"]) == (1024, 12)
    carried = Carried([picture], budget=600_000)
    finer = carried.pictures[0]["maps"][1]
    assert (finer["rows"], finer["columns"], finer["codec"]["bits"]) == (512, 512, 8)
    sums = picture.fine.reshape(1, 512, 2, 512, 2).sum((2, 4)).reshape(1, -1)
    large = sums > sums.max() * 1e-6
    np.testing.assert_allclose(
        carried.numbers(finer)[large], sums[large], rtol=finer["codec"]["error"] * 1.01
    )


def test_maps_with_more_rows_than_queries_lose_the_empty_blocks() -> None:
    picture = small(5, 3)
    assert picture.pooled is not None
    wide = np.zeros((3, 8, 4), np.float32)
    wide[:, np.arange(5)[:, None] * 8 // 5, np.arange(3) * 4 // 3] = picture.pooled
    carried = Carried([dataclasses.replace(picture, pooled=wide)])
    (one,) = carried.pictures[0]["maps"]
    assert (one["rows"], one["columns"]) == (5, 3)
    np.testing.assert_array_equal(carried.numbers(one), picture.pooled.reshape(3, -1))


def test_a_picture_of_nothing_but_names() -> None:
    nothing: dict[str, Any] = dict.fromkeys(
        ("entropy", "received", "distance", "lse", "max_score", "top_keys", "pooled")
    )
    picture = dataclasses.replace(small(4), query_tokens=None, key_tokens=None, **nothing)
    carried = Carried([picture])
    (manifest,) = carried.pictures
    assert (manifest["series"], manifest["maps"], manifest["topKeys"], manifest["scale"]) == (
        {},
        [],
        None,
        None,
    )
    assert manifest["oneSequence"]


@pytest.mark.parametrize(
    ("changed", "one"),
    [
        ({}, True),
        ({"query_tokens": tuple("bcd"), "key_tokens": tuple("abcd"), "queries": 3, "offset": 1}, True),
        ({"query_tokens": tuple("bcd"), "key_tokens": tuple("abcd"), "queries": 3, "offset": 0}, False),
        ({"query_tokens": None}, False),
        ({"offset": 1}, False),
        ({"offset": -1}, False),
    ],
)
def test_one_sequence_or_two(changed: dict[str, Any], *, one: bool) -> None:
    assert one_sequence(dataclasses.replace(small(4), **changed)) is one


# ---- Size ----


def test_eight_heads_of_131072_tokens_stay_below_25_megabytes() -> None:
    picture = long(heads=8, fine=1024)
    assert picture.top_keys is not None
    carried = Carried([picture])
    assert len(carried.document.encode()) < 25_000_000
    (manifest,) = carried.pictures
    every = manifest["topKeys"]["every"]
    assert 1 < every <= 6
    weights = picture.top_keys.weights[:, ::every].reshape(8, -1)
    codec = manifest["topKeys"]["codec"]
    np.testing.assert_allclose(carried.numbers(manifest["topKeys"]), weights, rtol=codec["error"] * 1.001)
    assert codec["error"] < 1e-3
    assert len(manifest["maps"]) == 2
    assert manifest["notes"] == []


def test_what_does_not_fit_is_left_out_and_said() -> None:
    (manifest,) = payload([small(300)], 1000)[0]["pictures"]
    assert manifest["topKeys"] is None
    assert len(manifest["maps"]) == 1
    assert [note.split(" was")[0].split(" were")[0] for note in manifest["notes"]] == [
        "The finer map",
        "The top keys",
    ]


def test_layers_share_the_budget_and_their_tokens() -> None:
    picture = dataclasses.replace(long(8192, fine=512), fine=None)
    manifest, blocks = payload([picture, picture], 1_500_000)
    first, second = manifest["pictures"]
    assert first["topKeys"]["every"] == second["topKeys"]["every"] > 1
    assert first["keyTokens"] == first["queryTokens"] == second["keyTokens"]
    assert sum(map(len, blocks)) <= 1_500_000


# ---- Text ----


def test_hostile_text_stays_text() -> None:
    names: dict[str, Any] = {"title": HOSTILE[0], "heads": HOSTILE[:3], "options": HOSTILE[3:6]}
    picture = dataclasses.replace(small(8, tokens=HOSTILE), **names)
    plain = Carried([small(8)])
    carried = Carried([picture])
    assert carried.elements.tags == plain.elements.tags
    (manifest,) = carried.pictures
    assert carried.tokens(manifest["keyTokens"]) == HOSTILE
    assert tuple(manifest["heads"]) == HOSTILE[:3]
    assert carried.elements.inside["title"].endswith(HOSTILE[0])
    assert "alert(1)<" not in carried.document


def test_only_the_pages_own_script_and_style_may_run() -> None:
    carried = Carried([small()])
    names = [
        value for name, value in carried.elements.attributes if name == "content" and "src" in str(value)
    ]
    policy = str(names[0])
    assert policy.startswith("default-src 'none'")
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        text = carried.elements.inside[tag]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{rule} 'sha256-{digest}'" in policy
    assert carried.elements.tags.count("style") == 1
    assert not [name for name, _ in carried.elements.attributes if name.startswith("on") or name == "style"]


def test_nothing_is_fetched() -> None:
    carried = Carried([small()])
    links = [value for name, value in carried.elements.attributes if name in {"src", "href", "srcset"}]
    assert links
    assert all(str(link).startswith(("#", "data:")) for link in links)
    code = carried.elements.inside["script"] + carried.elements.inside["style"]
    assert not re.search(
        r"https?:|//\w+\.|\burl\(|\bimport\b|\bfetch\(|XMLHttpRequest|innerHTML|\beval\b", code
    )


def test_the_ramp_reads_without_telling_hues_apart() -> None:
    stops = re.search(r"const STOPS = \[(.*?)\];", Carried([small()]).elements.inside["script"], re.DOTALL)
    assert stops
    colours = [bytes.fromhex(colour) for colour in re.findall(r"#(\w{6})", stops[1])]
    lightness = [_lightness(colour) for colour in colours]
    steps = -np.diff(lightness)
    assert lightness[0] > 95
    assert lightness[-1] < 20
    assert steps.min() > 0.7 * steps.max()


def _lightness(colour: bytes) -> float:
    """CIE L*: 0 for black, 100 for white."""
    linear = [
        x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4
        for x in np.frombuffer(colour, np.uint8) / 255
    ]
    luminance = float(np.dot(linear, [0.2126, 0.7152, 0.0722]))
    return float(116 * luminance ** (1 / 3) - 16)


# ---- The two functions ----


def test_write_makes_the_same_page(tmp_path: Path) -> None:
    page.write([small()], tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes().decode() == page.html([small()])


def test_no_picture_is_an_error() -> None:
    with pytest.raises(ValueError, match="no picture to make a page of; expected at least one Picture"):
        page.html([])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"entropy": np.zeros((3, 7), np.float32)}, r"entropy has shape \(3, 7\); expected \(3, 8\)"),
        ({"received": np.zeros((2, 8), np.float32)}, r"received has shape \(2, 8\); expected \(3, 8\)"),
        ({"key_tokens": ("a",) * 9}, "key_tokens has 9 labels; expected 8"),
        ({"query_tokens": ()}, "query_tokens has 0 labels; expected 8"),
        ({"heads": ()}, "0 heads, 8 queries and 8 keys; expected at least one of each"),
    ],
)
def test_pictures_that_contradict_themselves(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        page.html([dataclasses.replace(small(8), **changed)])


def test_without_jinja_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"pip install 'sightline\[look\]'"):
        page.html([small()])
