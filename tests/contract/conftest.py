"""Runs that several files of faults compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.faults import interrupted, left_by, run_in, start


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the small run leaves when nothing happens to it."""
    results = tmp_path_factory.mktemp("whole")
    assert start(results) == 0
    return left_by(run_in(results))


@pytest.fixture(scope="session")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, interrupted with two full states; to be copied, not changed."""
    return interrupted(tmp_path_factory.mktemp("stopped"))
