"""A headless Chromium for the tests of the page, shut off from every network, and what it is asked."""

from __future__ import annotations

import json
import re
import shutil
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from sightline.look.picture import Picture

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-extensions", "--disable-default-apps", "--hide-scrollbars", "--window-size=1400,1500"),
)
PATIENCE = 20  # seconds
DIGITS = 5e-4  # the relative error of numbers that are shown with four digits


def why_not() -> str | None:
    """What is missing for a browser, None if nothing is."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed"
    if not CHROMIUM or not DRIVER:
        return "chromium or its driver is not installed (Debian: chromium, chromium-driver)"
    return None


class Browser:
    """One browser, and the page that it shows."""

    def __init__(self, profile: Path) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        nowhere = "--host-resolver-rules=MAP * ~NOTFOUND"
        for flag in (*FLAGS, nowhere, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        # A driver that is named is not looked for, and so not downloaded.
        self.driver: Any = webdriver.Chrome(options=options, service=Service(executable_path=str(DRIVER)))
        self.driver.get("about:blank")  # instead of the browser's own first page

    def open(self, path: Path) -> None:
        """Show a file, and wait until it is drawn."""
        self.driver.get_log("performance")  # what came before is forgotten
        self.driver.get(path.as_uri())
        self.until("document.documentElement.dataset.ready === 'true'")

    def js(self, expression: str, *arguments: object) -> Any:
        """The value of an expression in the page."""
        return self.driver.execute_script(f"return {expression}", *arguments)

    def until(self, condition: str) -> None:
        """Wait for something to become true in the page."""
        end = time.monotonic() + PATIENCE
        while not self.js(condition):
            if time.monotonic() > end:
                pytest.fail(f"never became true: {condition}; the console has {self.console()}")
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        """The text of an element."""
        return str(self.js("document.querySelector(arguments[0]).textContent", selector))

    def number(self, selector: str) -> float:
        """An element's text as a number."""
        return to_number(self.text(selector))

    def click(self, selector: str) -> None:
        """Click on an element as a user does: it has to be visible."""
        element = self.find(selector)
        self.js("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def find(self, selector: str) -> Any:
        """An element."""
        return self.driver.find_element("css selector", selector)

    def point(self, selector: str, x: int = 0, y: int = 0) -> None:
        """Move the pointer over an element, so far from its centre."""
        element = self.find(selector)
        self.js("arguments[0].scrollIntoView({block: 'center'})", element)
        self.actions().move_to_element_with_offset(element, x, y).perform()

    def press(self, *names: str) -> None:
        """Press keys, by name ("ARROW_DOWN") or as characters, wherever the focus is."""
        from selenium.webdriver import Keys

        keys = [getattr(Keys, name) if len(name) > 1 else name for name in names]
        self.actions().send_keys(*keys).perform()

    def actions(self) -> Any:
        """Further things that a user does."""
        from selenium.webdriver import ActionChains

        return ActionChains(self.driver, duration=0)

    def console(self) -> list[str]:
        """What the console says: errors, warnings, violations of the page's policy."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requested(self) -> set[str]:
        """The schemes of everything that was fetched since the page was opened."""
        found = set()
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.add(message["params"]["request"]["url"].partition(":")[0])
        return found


def to_number(text: str) -> float:
    """The first number of a text, as the page writes numbers."""
    found = re.search(r"−?\d[\d,]*(\.\d+)?(e[−+]?\d+)?", text)
    assert found, text
    return float(found[0].replace("−", "-").replace(",", ""))


# ---- What the page shows ----


def top_rows(browser: Browser) -> list[tuple[int, str, float]]:
    """The table of top keys: indices, tokens, weights."""
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
    """The number of that name that is said of the current token."""
    facts = browser.js(
        "Object.fromEntries([...document.querySelectorAll('#facts div')]"
        ".map(f => [f.querySelector('dt').textContent, f.querySelector('b').textContent]))"
    )
    return to_number(facts[name])


def focused(browser: Browser) -> str | None:
    """The index of the token that has the focus."""
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
