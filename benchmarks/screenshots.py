"""Takes the pictures of docs/images from a finished ``experiments first_day``, with a headless Chromium.

python src/main.py experiments first_day && python benchmarks/screenshots.py
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.browser import chromium  # noqa: E402

IMAGES = ROOT / "docs" / "images"
# Name -> page below the results, and what its address asks for.
PAGES = {
    "runs": ("runs.html", ""),
    "replay": ("sacred/constrained_navigation/lpmarl/1/replay.html", "#episode=2&step=6"),
}


def main() -> None:
    """Writes one PNG of 1280 x 800 for each page, and copies the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="?", type=Path, default=ROOT / "results" / "experiments" / "first_day")
    results = parser.parse_args().results.resolve()
    IMAGES.mkdir(exist_ok=True)
    with chromium() as driver:
        for name, (page, fragment) in PAGES.items():
            driver.get("about:blank")
            driver.get((results / page).as_uri() + fragment)
            driver.save_screenshot(str(IMAGES / f"{name}.png"))
    shutil.copy(results / "report" / "curves.png", IMAGES / "curves.png")


if __name__ == "__main__":
    main()
