"""The stand-in game in a folder of a test's own, and its processes: to count them, and to kill or stop them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from support import sc2_game

_REASON = "needs smac and pysc2: tests/sc2/requirements.txt says how"


def require_packages() -> None:
    """Skips the module that calls it where a package is missing."""
    for name in ("pysc2", "smac.env", "websockets"):
        pytest.importorskip(name, reason=_REASON)


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installs the stand-in, healthy, and a folder for its temporary files."""
    monkeypatch.setenv("SC2PATH", str(folder / "game"))
    monkeypatch.setenv("TMPDIR", str(folder / "temp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    for fault in sc2_game.FAULTS:
        monkeypatch.delenv(fault, raising=False)
    (folder / "temp").mkdir()
    sc2_game.install(folder / "game")


def check_nothing_is_left(folder: Path) -> None:
    """Neither a process nor a temporary folder."""
    assert games(folder) == []
    assert not list((folder / "temp").rglob("sc-*"))


def games(folder: Path) -> list[int]:
    """Processes that run the stand-in of this test: pysc2 gives them the game's folder as an argument."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if f"{folder / 'game'}".encode() in words and b"-dataDir" in words and state_of(path.name) not in ("Z", ""):
            found.append(int(path.name))
    return found


def state_of(pid: int | str) -> str:
    """The letter of /proc: S sleeps, T is stopped, Z is dead; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def strike(pid: int, what: signal.Signals) -> None:
    """Sends a signal, and waits until it has come through."""
    os.kill(pid, what)
    deadline = time.monotonic() + 5
    while state_of(pid) not in ("T", "Z", "") and time.monotonic() < deadline:
        time.sleep(0.01)
