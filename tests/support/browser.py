"""A headless Chromium that opens the project's pages: no network, errors of the console collected."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 1280, 800
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--force-device-scale-factor=1",
    f"--window-size={WIDTH},{HEIGHT}",
    # No name resolves: a page that asks for anything outside its own file fails visibly.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--disable-background-networking",
    "--no-first-run",
)

OpenPage = Callable[[Path], Any]


def missing_browser() -> str:
    """Why no page can be opened on this machine; empty where one can."""
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if absent:
        return f"{' and '.join(absent)} not on PATH: the tests of the pages need Chromium and its driver"
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed: pip install -r requirements-dev.txt"
    return ""


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser whose page area is 1280 x 800."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for option in OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.set_page_load_timeout(30)
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False},
        )
        yield driver
    finally:
        driver.quit()


def open_file(driver: Any, path: Path) -> Any:
    """Opens a file from an empty console and an empty store; returns the driver."""
    driver.get("about:blank")
    driver.get_log("browser")
    driver.get(Path(path).resolve().as_uri())
    return driver


def console_errors(driver: Any) -> list[str]:
    """What the page complained of since it was opened or since the last call."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def requested(driver: Any) -> list[str]:
    """What the page loaded beside itself."""
    return list(driver.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)"))


def load_milliseconds(driver: Any) -> float:
    """From the start of the navigation to the end of the load event."""
    timing = "const page = performance.getEntriesByType('navigation')[0]; return page.loadEventEnd - page.startTime"
    return float(driver.execute_script(timing))


def overflowing(driver: Any) -> list[int]:
    """Pixels that the page needs beyond the window, across and down; [0, 0] when everything fits."""
    script = """
        const root = document.documentElement
        return [Math.max(0, root.scrollWidth - innerWidth), Math.max(0, root.scrollHeight - innerHeight)]"""
    return list(driver.execute_script(script))
