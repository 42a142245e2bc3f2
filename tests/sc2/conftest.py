"""The stand-in game for every test here."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.sc2_processes import check_nothing_is_left, install


@pytest.fixture(autouse=True)
def game(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The stand-in is installed, and no process of it is left afterwards."""
    install(tmp_path, monkeypatch)
    yield tmp_path
    check_nothing_is_left(tmp_path)
