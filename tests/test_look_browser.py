"""The page in a browser: what it shows is what was given, by pointer and by keyboard, at any length."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import browser as chromium
from browser import to_number
from pictures import long, small
from sightline.look import page
from test_look_page import HOSTILE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from browser import Browser
    from sightline.look.picture import Picture

pytestmark = pytest.mark.skipif(chromium.why_not() is not None, reason=str(chromium.why_not()))

DIGITS = 5e-4  # of numbers that are shown with four digits


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    yield from chromium.opened(tmp_path_factory.mktemp("profile"))


@pytest.fixture
def show(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Show pictures; in the end the console must be empty, and nothing fetched but the file."""

    def shown(*pictures: Picture, budget: int = page.BUDGET) -> Browser:
        path = tmp_path_factory.mktemp("page") / "page.html"
        page.write(pictures, path, budget=budget)
        browser.console()
        browser.open(path)
        return browser

    yield shown
    assert browser.console() == []
    assert browser.requested() <= {"file", "data", "blob"}


def top_rows(browser: Browser) -> list[tuple[int, str, float]]:
    rows = browser.js(
        "[...document.querySelectorAll('#top-rows tr')].map(r => [...r.cells].map(c => c.textContent))"
    )
    return [(int(key), token, to_number(weight)) for key, token, weight, _ in rows]


def expect_top_rows(browser: Browser, picture: Picture, head: int, query: int) -> None:
    """The table has exactly the query's top keys, with their tokens and weights."""
    assert picture.top_keys is not None
    assert picture.key_tokens is not None
    indices, weights = (part[head, query] for part in picture.top_keys)
    rows = top_rows(browser)
    assert [row[0] for row in rows] == indices[indices >= 0].tolist()
    assert [row[1] for row in rows] == [picture.key_tokens[key] for key in indices if key >= 0]
    np.testing.assert_allclose([row[2] for row in rows], weights[indices >= 0], rtol=DIGITS)


def fact(browser: Browser, name: str) -> float:
    facts = browser.js(
        "Object.fromEntries([...document.querySelectorAll('#facts div')]"
        ".map(f => [f.querySelector('dt').textContent, f.querySelector('b').textContent]))"
    )
    return to_number(facts[name])


def focused(browser: Browser) -> str | None:
    index = browser.js("document.activeElement.dataset.index")
    return None if index is None else str(index)


def tones(browser: Browser) -> dict[int, str]:
    """The colours of the tokens in view that have one."""
    found = browser.js(
        "[...document.querySelectorAll('.token')].map(t => [+t.dataset.index, t.style.backgroundColor])"
    )
    return {index: colour for index, colour in found if colour}


def brightness(colour: str) -> int:
    """The sum of red, green and blue of "rgb(…)"."""
    return sum(map(int, colour[4:-1].split(",")))


# ---- Heads and layers ----


def test_heads_are_chosen_by_pointer_and_keyboard(show: Any) -> None:
    picture = small(12)
    browser = show(picture)
    assert picture.entropy is not None
    browser.click("#tokens [data-index='7']")
    for head in range(3):
        if head == 1:
            browser.click("[data-head='1']")
        elif head == 2:
            browser.press("ARROW_RIGHT")
        browser.until(f"document.querySelector('[data-head=\"{head}\"]').ariaChecked === 'true'")
        browser.until(f"document.getElementById('map-heading').textContent === 'Map of head {head}'")
        assert fact(browser, "Entropy") == pytest.approx(picture.entropy[head, 7], rel=DIGITS)
        expect_top_rows(browser, picture, head, 7)
    assert browser.js("document.activeElement.dataset.head") == "2"
    assert browser.js("document.querySelectorAll('.head[tabindex=\"0\"]').length") == 1


def test_layers_are_chosen(show: Any) -> None:
    layers = [dataclasses.replace(small(n, heads=5 - n // 2), title=f"layer {n}") for n in (8, 6)]
    browser = show(*layers)
    assert browser.js("document.getElementById('layer').options.length") == 2
    browser.js("document.getElementById('layer').focus()")
    browser.press("ARROW_DOWN")
    browser.until("document.querySelectorAll('.head').length === 2")
    browser.until("document.querySelectorAll('.token').length === 6")
    assert browser.text("#title") == "layer 6"
    browser.click("#tokens [data-index='5']")
    expect_top_rows(browser, layers[1], 0, 5)


def test_a_layer_of_two_sequences_after_one_of_one(show: Any) -> None:
    nothing: dict[str, Any] = {"pooled": None, "fine": None}
    bare = dataclasses.replace(small(4), title="bare", **nothing)
    crossed = dataclasses.replace(small(5, 9), title="crossed")
    browser = show(bare, crossed, bare)
    assert not browser.find("#map").is_displayed()
    for value, title in ((1, "crossed"), (2, "bare"), (1, "crossed")):
        browser.js(f"(document.getElementById('layer').value = {value})")
        browser.js("document.getElementById('layer').dispatchEvent(new Event('change'))")
        browser.until(f"document.querySelectorAll('.pane').length === {1 + value % 2}")
        assert browser.text("#title") == title
        browser.until(f"document.getElementById('map-part').hidden === {str(value == 2).lower()}")
    assert browser.js("document.querySelectorAll('#tokens h3').length") == 2
    assert browser.js("document.querySelector('.ramp').width") > 100
    expect_top_rows(browser, crossed, 0, 3)  # the last query of the four before


def test_the_last_of_hasty_choices_wins(show: Any) -> None:
    browser = show(small(12))
    # What the first choice opens comes late: its reading waits for half a second.
    browser.js(
        "(() => { const read = Response.prototype.arrayBuffer; window.late = 0;"
        "  Response.prototype.arrayBuffer = function () {"
        "    return new Promise((done) => setTimeout(done, 500)).then(() => read.call(this))"
        "      .finally(() => window.late++); };"
        "  document.querySelector('[data-head=\"1\"]').click();"
        "  Response.prototype.arrayBuffer = read;"
        "  document.querySelector('[data-head=\"2\"]').click(); })()"
    )
    browser.until("document.getElementById('map-heading').textContent === 'Map of head 2'")
    browser.until("window.late > 0")
    browser.driver.execute_async_script("setTimeout(arguments[0], 100)")
    assert browser.text("#map-heading") == "Map of head 2"
    expect_top_rows(browser, small(12), 2, 11)


# ---- Tokens ----


def test_every_number_of_a_token_is_the_one_given(show: Any) -> None:
    picture = small(12)
    browser = show(picture)
    browser.click("#tokens [data-index='9']")
    names = {
        "Entropy": picture.entropy,
        "Received": picture.received,
        "Distance": picture.distance,
        "lse": picture.lse,
        "Largest score": picture.max_score,
    }
    for name, values in names.items():
        assert values is not None
        assert fact(browser, name) == pytest.approx(values[0, 9], rel=DIGITS), name


def test_hover_shows_a_tokens_top_keys_and_gives_back_the_chosen_ones(show: Any) -> None:
    picture = small(12)
    browser = show(picture)
    browser.click("#tokens [data-index='9']")
    browser.point("#tokens [data-index='3']")
    expect_top_rows(browser, picture, 0, 3)
    browser.point("h1")
    expect_top_rows(browser, picture, 0, 9)


def test_the_keyboard_walks_from_token_to_token(show: Any) -> None:
    picture = small(300)
    browser = show(picture)
    browser.js("document.querySelector('.token[tabindex=\"0\"]').focus()")
    for key, index in (("HOME", 0), ("ARROW_LEFT", 0), ("ARROW_RIGHT", 1), ("END", 299), ("ARROW_LEFT", 298)):
        browser.press(key)
        assert focused(browser) == str(index)
        expect_top_rows(browser, picture, 0, index)
        assert browser.js("document.querySelectorAll('.token[tabindex=\"0\"]').length") == 1
        assert f"({index})" in browser.text("#spoken")
    browser.press("ARROW_UP", "ARROW_DOWN", "PAGE_UP", "PAGE_DOWN")
    assert int(str(focused(browser))) > 280
    browser.js("document.body.focus()")
    outline = browser.js(
        "getComputedStyle(document.querySelector('.token[aria-selected=true]')).outlineStyle"
    )
    assert outline == "solid"


def test_shades_follow_the_weights(show: Any) -> None:
    picture = small(12)
    browser = show(picture)
    assert picture.pooled is not None
    assert picture.received is not None
    browser.click("#tokens [data-index='9']")
    for mode, values in (
        ("from", picture.pooled[0, 9]),
        ("to", picture.pooled[0, :, 9]),
        ("received", picture.received[0]),
    ):
        browser.click(f"[value={mode}]")
        shaded = tones(browser)
        light = [brightness(shaded.get(i, "rgb(255, 255, 255)")) for i in range(12)]
        order = np.argsort(-values)
        assert light[order[0]] == min(light), mode
        assert np.all(np.diff(np.array(light)[order]) >= 0), mode
        label = browser.js(f"document.querySelector('#tokens [data-index=\"{order[0]}\"]').ariaLabel")
        assert to_number(label.partition(": ")[2]) == pytest.approx(values.max(), rel=6e-3)
        assert to_number(browser.text("#shade-note").rpartition(" is ")[2]) == pytest.approx(
            values.max(), rel=6e-3
        )


def test_queries_and_keys_of_two_sequences_have_a_pane_each(show: Any) -> None:
    picture = small(5, 9)
    browser = show(picture)
    assert picture.received is not None
    assert browser.js("document.querySelectorAll('.pane').length") == 2
    browser.click(".pane:nth-of-type(1) [data-index='2']")
    browser.click(".pane:nth-of-type(2) [data-index='6']")
    expect_top_rows(browser, picture, 0, 2)
    assert fact(browser, "Received") == pytest.approx(picture.received[0, 6], rel=DIGITS)


def test_keys_that_no_query_stands_at(show: Any) -> None:
    whole = small(9, 9)
    late: dict[str, Any] = {
        name: getattr(whole, name)[:, 6:] for name in ("entropy", "distance", "lse", "max_score")
    }
    assert whole.top_keys is not None
    assert whole.key_tokens is not None
    top = type(whole.top_keys)(*(part[:, 6:] for part in whole.top_keys))
    picture = dataclasses.replace(
        whole,
        queries=3,
        offset=6,
        query_tokens=whole.key_tokens[6:],
        top_keys=top,
        **late,
    )
    browser = show(picture)
    browser.click("#tokens [data-index='7']")
    expect_top_rows(browser, picture, 0, 1)
    browser.click("#tokens [data-index='2']")
    assert "key only" in browser.text("#shade-note")
    assert browser.js("document.getElementById('top').hidden")


def test_hostile_tokens_are_only_shown(show: Any) -> None:
    names: dict[str, Any] = {"title": HOSTILE[2], "heads": HOSTILE[:3], "options": HOSTILE[3:6]}
    browser = show(dataclasses.replace(small(8, tokens=HOSTILE), **names))
    assert browser.text("#title") == HOSTILE[2]
    assert browser.text("#tokens [data-index='3']") == HOSTILE[3]
    assert browser.text("#tokens [data-index='0']") == HOSTILE[0][:31] + "…"
    assert browser.text("#tokens [data-index='7']") == "∅"
    assert browser.js("document.querySelectorAll('img, b:not(#facts b)').length") == 0
    assert not set(browser.text("#tokens [data-index='5']")) & set("\u2028\u202e\0")


def test_finding_by_number_and_by_text(show: Any) -> None:
    browser = show(small(40))
    for typed, index in (("31", "31"), ("waistcoat", "32"), ("WAISTCOAT", "8")):
        browser.find("#find").clear()
        browser.click("#find")
        browser.press(*typed, "ENTER")
        assert browser.js("document.querySelector('.token[aria-selected=true]').dataset.index") == index
    browser.press("x", "ENTER")
    assert browser.js("document.getElementById('find').ariaInvalid") == "true"


# ---- Map ----


def test_the_readout_has_the_cells_numbers(show: Any) -> None:
    picture = long(4096, fine=512)
    browser = show(picture)
    assert picture.pooled is not None
    assert picture.fine is not None
    browser.js("document.getElementById('map').focus()")
    assert browser.js("document.getElementById('map').dataset.level") == "coarse"
    browser.press("ARROW_DOWN", *["ARROW_DOWN"] * 3)  # the first one enters the map
    assert "queries 48–63 " in browser.text("#readout")
    assert "keys 0–15 " in browser.text("#readout")
    shown = to_number(browser.text("#readout").rpartition("weight sum ")[2])
    assert shown == pytest.approx(picture.pooled[0, 3, 0], rel=8e-3)
    browser.press("+", "+")
    browser.until("document.getElementById('map').dataset.level === 'fine'")
    browser.press("ARROW_DOWN")
    assert "queries 56–63 " in browser.text("#readout")
    shown = to_number(browser.text("#readout").rpartition("weight sum ")[2])
    assert shown == pytest.approx(picture.fine[0, 7, 0], rel=8e-3)
    browser.press("0")
    assert browser.js("document.getElementById('map').dataset.zoom") == "1.00"
    assert browser.js("document.getElementById('map').dataset.level") == "coarse"


def test_buttons_wheel_and_drag_move_the_view(show: Any) -> None:
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    browser = show(long(4096, fine=512))
    zoom = "Number(document.getElementById('map').dataset.zoom)"
    browser.click("#zoom-in")
    assert browser.js(zoom) == pytest.approx(1.6)
    browser.click("#zoom-out")
    assert browser.js(zoom) == 1
    canvas = browser.find("#map")
    origin = ScrollOrigin.from_element(canvas)
    browser.actions().scroll_from_origin(origin, 0, -240).perform()
    assert browser.js(zoom) == 1  # without the focus, the wheel scrolls the page
    browser.js("document.getElementById('map').focus()")
    browser.actions().scroll_from_origin(origin, 0, -240).perform()
    browser.until(f"{zoom} > 1.5")
    browser.point("#map")
    before = browser.text("#readout")
    browser.actions().click_and_hold(canvas).move_by_offset(-150, -100).release().perform()
    browser.point("#map")
    assert browser.text("#readout") != before


def test_a_click_on_the_map_chooses_its_query(show: Any) -> None:
    picture = small(12)
    browser = show(picture)
    browser.js("document.getElementById('map').focus()")
    browser.press("ARROW_DOWN", *["ARROW_DOWN"] * 5, "ENTER")
    assert browser.js("document.querySelector('.token[aria-selected=true]').dataset.index") == "5"
    expect_top_rows(browser, picture, 0, 5)
    browser.point("#map", 0, 150)
    assert "query “" in browser.text("#readout")
    row = int(browser.text("#readout").partition("(")[2].partition(")")[0])
    assert row > 5
    browser.actions().click().perform()
    browser.point("h1")
    assert browser.js("document.querySelector('.token[aria-selected=true]').dataset.index") == str(row)
    expect_top_rows(browser, picture, 0, row)


def test_the_maps_pixels_are_the_ramps_colours(show: Any) -> None:
    """Zero is the paper; of two cells the larger is the darker."""
    picture = small(2, heads=1)
    weights = np.array([[[1.0, 0.0], [0.05, 0.95]]], np.float32)
    browser = show(dataclasses.replace(picture, pooled=weights))
    colours = browser.js(
        "(() => { const map = document.getElementById('map');"
        "  const [left, top, width, height] = map.dataset.plot.split(' ').map((n) => n * devicePixelRatio);"
        "  const pixels = map.getContext('2d').getImageData(left, top, width, height);"
        "  const at = (query, key) => Math.floor((query + 0.2) * pixels.height / 2) * pixels.width"
        "    + Math.floor((key + 0.2) * pixels.width / 2);"
        "  const colour = (cell) => [...pixels.data.subarray(4 * at(...cell), 4 * at(...cell) + 3)];"
        "  return [[0, 0], [0, 1], [1, 0]].map(colour); })()"
    )
    full, none, little = (sum(colour) for colour in colours)
    assert none == 3 * 255
    assert full < 250 < little < none


# ---- Long, short, bare ----


def test_131072_tokens_load_and_respond(show: Any) -> None:
    picture = long()
    browser = show(picture)
    assert browser.js("document.querySelectorAll('.token').length") < 1500
    browser.js("document.querySelector('.token[tabindex=\"0\"]').focus()")
    browser.press("END")
    assert focused(browser) == "131071"
    assert browser.js("document.querySelectorAll('.token').length") < 1500
    browser.js("document.querySelector('.scroll').scrollTop = 1e5")
    browser.until("+document.querySelector('.token').dataset.index > 10000")
    browser.find("#find").send_keys("70002\n")
    assert picture.entropy is not None
    assert fact(browser, "Entropy") == pytest.approx(picture.entropy[0, 70002], rel=1e-3)
    expect_top_rows(browser, picture, 0, 70002)
    browser.click("[data-head='1']")
    browser.until("document.getElementById('map-heading').textContent === 'Map of head 1'")
    expect_top_rows(browser, picture, 1, 70002)


def test_a_page_without_every_querys_top_keys_leads_to_the_nearest(show: Any) -> None:
    picture = long(20_000, heads=1, fine=256)
    browser = show(picture, budget=900_000)
    every = int(
        to_number(browser.js("document.getElementById('notes').textContent.match(/every (.*?) query/)[1]"))
    )
    assert every > 2
    browser.click(f"#tokens [data-index='{3 * every}']")
    expect_top_rows(browser, picture, 0, 3 * every)
    browser.press("ARROW_RIGHT")
    assert browser.js("document.getElementById('top').hidden")
    assert "in the mean over blocks of 7" in browser.text("#shade-note")  # ⌈20000 / 256⌉ = 79 or 78 queries
    browser.click("#nearest")
    expect_top_rows(browser, picture, 0, 3 * every)
    browser.click("[value=to]")
    assert "in the mean over blocks of 7" in browser.text("#shade-note")
    assert "keys" in browser.text("#shade-note")


def test_the_smallest_and_the_largest_of_quantised_numbers(show: Any) -> None:
    picture = long(270_000, heads=1, fine=256, count=1)  # more numbers than are kept as they are
    browser = show(picture)
    assert "16 bits" in browser.text("#notes")
    assert picture.entropy is not None
    for index in (picture.entropy[0].argmin(), picture.entropy[0].argmax()):
        browser.find("#find").clear()
        browser.find("#find").send_keys(f"{index}\n")
        assert fact(browser, "Entropy") == pytest.approx(picture.entropy[0, index], rel=1e-3)


@pytest.mark.parametrize("length", [1, 2])
def test_almost_no_tokens(show: Any, length: int) -> None:
    picture = small(length, heads=1)
    browser = show(picture)
    browser.click(f"#tokens [data-index='{length - 1}']")
    expect_top_rows(browser, picture, 0, length - 1)


def test_a_picture_of_nothing_but_names(show: Any) -> None:
    names = (
        "entropy",
        "received",
        "distance",
        "lse",
        "max_score",
        "top_keys",
        "pooled",
        "query_tokens",
        "key_tokens",
    )
    nothing: dict[str, Any] = dict.fromkeys(names)
    browser = show(dataclasses.replace(small(30), **nothing))
    for mode in ("from", "to", "received"):
        browser.click(f"[value={mode}]")
        assert browser.text("#shade-note")
    assert browser.text("#tokens [data-index='29']") == "29"
    assert not browser.find("#map").is_displayed()


def test_undefined_and_blind_queries(show: Any) -> None:
    picture = small(4, heads=1)
    strange = [
        np.array([[np.nan, 0.0, 1.0, 2.0]], np.float32),
        np.array([[-np.inf, np.nan, 0.5, 1.0]], np.float32),
    ]
    browser = show(dataclasses.replace(picture, entropy=strange[0], lse=strange[1]))
    browser.click("#tokens [data-index='0']")
    facts = browser.text("#facts")
    assert "undefined" in facts
    assert "−∞" in facts


# ---- Looks ----


def test_light_and_dark(show: Any) -> None:
    browser = show(small())
    paper = "getComputedStyle(document.body).backgroundColor"
    light = browser.js(paper)
    assert brightness(light) > 600
    browser.click("#theme")
    assert brightness(browser.js(paper)) < 100
    browser.click("#theme")
    assert browser.js(paper) == light


def test_the_systems_theme_is_followed(show: Any) -> None:
    browser = show(small())
    features = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
    try:
        browser.until("document.getElementById('theme-name').textContent === 'Light'")
        assert brightness(browser.js("getComputedStyle(document.body).backgroundColor")) < 100
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.parametrize("width", [380, 820, 1900])
def test_any_width_shows_everything_without_scrolling_sideways(show: Any, width: int) -> None:
    browser = show(small(40, heads=14))
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 2, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        browser.until(f"innerWidth === {width}")
        assert browser.js("document.documentElement.scrollWidth") <= width
        for part in ("#heads-part", "#map-part", "#tokens-part", "#charts"):
            assert browser.find(part).is_displayed()
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_tab_reaches_every_part(show: Any) -> None:
    browser = show(small())
    browser.js("document.body.focus()")
    reached = []
    for _ in range(24):
        browser.press("TAB")
        at = "document.activeElement"
        reached.append(browser.js(f"{at}.id || {at}.className || {at}.name"))
    wanted = [
        "skip",
        "theme",
        "head",
        "zoom-out",
        "zoom-in",
        "zoom-all",
        "map",
        "find",
        "mode",
        "token",
        "jump",
    ]
    assert [name for name in wanted if name in reached] == wanted
    assert [reached.index(name) for name in wanted] == sorted(reached.index(name) for name in wanted)
    assert reached.count("token") == 1  # one stop for all tokens: the arrow keys walk among them
    names = browser.js(
        "[...document.querySelectorAll('button, input, select, canvas:not([aria-hidden])')]"
        ".filter(e => !e.hidden && !e.ariaLabel && !e.textContent.trim() && !e.labels?.length).map(e => e.id)"
    )
    assert names == []
