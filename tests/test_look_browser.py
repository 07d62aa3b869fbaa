"""The page in a browser: heads, layers and tokens show what was given, by pointer and by keyboard."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from browser import DIGITS, brightness, expect_top_rows, fact, focused, to_number, tones
from pictures import small
from test_look_page import HOSTILE

# Of the text on a shaded token, as WCAG 2 defines contrast.
LOWEST_CONTRAST = """(() => {
  const luminance = (colour) => colour.match(/\\d+/g).slice(0, 3).map((part) => part / 255)
    .map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4))
    .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0.05);
  const tokens = [...document.querySelectorAll(".token")].filter((token) => token.style.backgroundColor);
  return Math.min(...tokens.map(({ style }) => {
    const [text, ground] = [luminance(style.color), luminance(style.backgroundColor)];
    return Math.max(text, ground) / Math.min(text, ground);
  }));
})()"""


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
        assert browser.js(LOWEST_CONTRAST) > 4.5, mode
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
