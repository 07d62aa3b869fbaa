"""A headless Chromium for the tests of the page, shut off from every network, and what it is asked."""

from __future__ import annotations

import json
import re
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-extensions", "--disable-default-apps", "--hide-scrollbars", "--window-size=1400,1500"),
)
PATIENCE = 20  # seconds


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


def opened(profile: Path) -> Iterator[Browser]:
    """A browser, closed in the end."""
    browser = Browser(profile)
    try:
        yield browser
    finally:
        browser.driver.quit()
