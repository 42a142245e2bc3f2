"""Reads a results folder: whatever a run, a killed run or a half-written folder left there."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from components.errors import UserError
from utils.logging import metric_lines
from utils.run_lock import is_locked, lock_owner

# A run of another host, or on a file system without locks, counts as dead when its record is so old (it is written
# every 10 s).
SILENT_SECONDS = 120.0

COMPLETED, FAILED, INTERRUPTED, RUNNING = "COMPLETED", "FAILED", "INTERRUPTED", "RUNNING"
DEAD = "DEAD"  # recorded as RUNNING, but its process is gone
BROKEN = "BROKEN"  # its records cannot be read

Curve = list[tuple[int, float]]


@dataclass(frozen=True)
class RunRecord:
    """One run's folder.

    Attributes:
        folder: ``.../sacred/<env>/<name[_label]>/<id>``.
        status: COMPLETED, FAILED, INTERRUPTED, RUNNING, DEAD or BROKEN.
        problem: why it is FAILED or BROKEN, one line; otherwise empty.
        config: the recorded configuration: flat keys, ``env_args`` nested; empty when BROKEN.
        run: Sacred's ``run.json``; empty when BROKEN.
        summary: ``summary.json``, or ``None`` before the final evaluation.
        setting: what an experiment set calls the run's environment; empty outside of one.
    """

    folder: Path
    status: str
    problem: str
    config: dict[str, Any]
    run: dict[str, Any]
    summary: dict[str, Any] | None
    setting: str = ""

    @property
    def algorithm(self) -> str:
        """The configuration's ``name``."""
        return str(self.config.get("name", self.folder.parent.name))

    @property
    def label(self) -> str:
        """The configuration's ``label``."""
        return str(self.config.get("label", ""))

    @property
    def env(self) -> str:
        """The configuration's ``env``."""
        return str(self.config.get("env", self.folder.parent.parent.name))

    @property
    def seed(self) -> int | None:
        """The run's seed."""
        return self.config.get("seed")

    @property
    def commit(self) -> dict[str, Any]:
        """``{"commit", "dirty", "env_commit"}`` as far as they were recorded."""
        repositories = self.run.get("experiment", {}).get("repositories") or [{}]
        return dict(repositories[0])

    @property
    def env_steps(self) -> int:
        """How far the run is, in environment steps; up to a heartbeat (10 s) old while it goes on."""
        if self.summary is not None:
            return int(self.summary.get("env_steps", 0))
        logged = max((curve[-1][0] for curve in self.metrics.values() if curve), default=0)
        beat = self.run.get("result")
        return max(logged, beat) if isinstance(beat, int) else logged

    @cached_property
    def metrics(self) -> dict[str, Curve]:
        """Key -> [(environment steps, value)], from ``metrics.jsonl``; NaN where a value was not finite."""
        curves: dict[str, Curve] = {}
        for key, t, value in metric_lines(self.folder / "metrics.jsonl"):
            curves.setdefault(key, []).append((t, value))
        return curves


def find_runs(results: Path) -> list[RunRecord]:
    """All runs below a folder, oldest first within an experiment; half-written ones are BROKEN.

    Raises:
        UserError: there is no such folder.
    """
    results = Path(results)
    if not results.is_dir():
        raise UserError(f"no results in {results}: there is no such folder")
    folders = {path.parent for name in ("run.json", "config.json", "run.lock") for path in results.rglob(name)}
    return [read_run(folder) for folder in sorted(folders, key=_order)]


def read_run(folder: Path) -> RunRecord:
    """Reads one run's folder; never raises for what is in it."""
    folder = Path(folder)
    try:
        config, run = _json_object(folder / "config.json"), _json_object(folder / "run.json")
        if run.get("status") == RUNNING and not is_locked(folder):
            run = _json_object(folder / "run.json")  # it may have ended in between
        if "status" not in run:
            raise ValueError(f"{folder / 'run.json'} has no status")
    except ValueError as error:
        return RunRecord(folder, BROKEN, str(error), {}, {}, None)
    try:
        summary = _json_object(folder / "summary.json")
    except ValueError:
        summary = None
    trace = run.get("fail_trace") or []
    problem = str(trace[-1]).strip() if trace else ""
    return RunRecord(folder, _status(folder, str(run["status"])), problem, config, run, summary)


def _status(folder: Path, recorded: str) -> str:
    if recorded != RUNNING or is_locked(folder):
        return recorded
    # The system has released the lock of a process of this host: no clock is asked.
    owner = lock_owner(folder)
    if owner.get("host") == socket.gethostname() and owner.get("locks", True):
        return DEAD
    silent = time.time() - (folder / "run.json").stat().st_mtime
    return DEAD if silent > SILENT_SECONDS else RUNNING


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} does not hold a JSON object")
    return content


def _order(folder: Path) -> tuple[str, int, str]:
    return str(folder.parent), int(folder.name) if folder.name.isdigit() else 0, folder.name
