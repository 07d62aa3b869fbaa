"""What all tests share: the matrix unit where the processor has none, and one browser for the HTML page."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest

import matrix_unit
from browser import Browser, why_not
from sightline.look import page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sightline.look.picture import Picture

matrix_unit.stand_in()  # before tests ask what runs here
gc.set_threshold(100_000, 50, 100)  # to look for garbage took a seventh of the time


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser; without one, the test is skipped."""
    if reason := why_not():
        pytest.skip(reason)
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.driver.quit()


@pytest.fixture
def show(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Shows pictures; in the end the console must be empty, and nothing fetched but the file."""

    def shown(*pictures: Picture, budget: int = page.BUDGET) -> Browser:
        path = tmp_path_factory.mktemp("page") / "page.html"
        page.write(pictures, path, budget=budget)
        browser.console()
        browser.open(path)
        return browser

    yield shown
    assert browser.console() == []
    assert browser.requested() <= {"file", "data", "blob"}
