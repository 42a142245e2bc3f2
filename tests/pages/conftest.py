"""One browser for all tests of a session's pages."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from support.browser import OpenPage, chromium, missing_browser, open_file


@pytest.fixture(scope="session")
def _driver() -> Iterator[Any]:
    reason = missing_browser()
    if reason:
        pytest.skip(reason)
    with chromium() as driver:
        yield driver


@pytest.fixture
def browser(_driver: Any) -> OpenPage:
    """``browser(path)`` opens a file at 1280 x 800 and returns the Selenium driver."""
    return partial(open_file, _driver)
