"""The page in a browser: its map, very long and very short inputs, and how it looks."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from browser import brightness, expect_top_rows, fact, focused, to_number
from pictures import long, small

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
    picture = dataclasses.replace(small(length, heads=1), heads=("7",))
    browser = show(picture)
    assert browser.text("#map-heading") == "Map of head 7"
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
