"""The runs page: every run below a folder in one file, to sort, filter, compare and diff."""

from __future__ import annotations

import math
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from components.checkpoint_folders import MODELS, RESUME, checkpoints_in
from components.errors import UserError
from components.files import write_text_atomic
from reports.agreement import EVALUATION, FREE, FREE_PREFIXES
from reports.embedding import page_with_data, require_replaceable
from reports.run_records import BROKEN, DEAD, FAILED, INTERRUPTED, Curve, RunRecord, find_runs
from reports.thinning import thin
from utils.run_lock import lock_owner

PAGE = "runs.html"
GENERATOR = "lpmarl runs"
# A curve keeps at most so many points; fewer, but never below the second number, where all of them together
# would pass TOTAL_POINTS (about 8 MB).
MOST_POINTS, LEAST_POINTS, TOTAL_POINTS = 150, 30, 500_000
# Training metrics kept per run, besides the test metrics and the clocks.
TRAINING_CURVES = 10
CLOCKS = ("cpu_seconds", "wall_seconds")
TRACE_LENGTH = 4000


def write_runs_page(folder: Path) -> Path:
    """Writes ``runs.html`` into a results folder and returns its path.

    Raises:
        UserError: there is no such folder, or no run in it.
    """
    return save_runs_page(find_runs(folder), folder, Path(folder) / PAGE)


def save_runs_page(records: Sequence[RunRecord], folder: Path, path: Path) -> Path:
    """Writes the page of these runs to ``path``, whole or not at all.

    Raises:
        UserError: there are no runs, or the page cannot be written.
    """
    folder = Path(folder)
    if not records:
        entries = sorted(entry.name for entry in folder.iterdir() if entry.name != PAGE)
        there = ", ".join(entries[:12]) + (f" and {len(entries) - 12} more" if len(entries) > 12 else "")
        raise UserError(
            f"no run in {folder}: a run's folder holds config.json and run.json, as in "
            f"{folder}/sacred/<env>/<name>/1; there is: {there or 'nothing'}"
        )
    require_replaceable(path, GENERATOR)
    try:
        write_text_atomic(path, runs_page(records, folder, path.parent))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def runs_page(records: Sequence[RunRecord], folder: Path, page_folder: Path | None = None) -> str:
    """The page as HTML.

    Args:
        records: the runs, in the order in which they are shown first.
        folder: the results folder, which holds all of them.
        page_folder: where the page will lie, so that its links are relative to it; ``folder`` by default.
    """
    return page_with_data(PAGE, page_data(records, Path(folder), Path(page_folder or folder)))


def page_data(records: Sequence[RunRecord], folder: Path, page_folder: Path) -> dict[str, Any]:
    """What the page shows, as plain JSON values.

    ``machines`` and ``packages`` are tables that the runs index, since most runs share them.
    """
    chosen = [_chosen_curves(record) for record in records]
    total = sum(len(curves) for curves in chosen)
    points = max(LEAST_POINTS, min(MOST_POINTS, TOTAL_POINTS // max(total, 1)))
    machines, packages = _Table(), _Table()
    runs = [
        _entry(record, folder, machines, packages) | _packed(curves, points)
        for record, curves in zip(records, chosen, strict=True)
    ]
    return {
        "folder": str(folder),
        "base": Path(os.path.relpath(folder, page_folder)).as_posix(),
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "bookkeeping": sorted({key for record in records for key in record.config if _is_free(key)}),
        "observing": (*EVALUATION, "log_interval"),
        "clocks": CLOCKS,
        "points": points,
        "machines": machines.rows,
        "packages": packages.rows,
        "runs": runs,
    }


def status_counts(records: Sequence[RunRecord]) -> str:
    """``12 runs: 9 COMPLETED, 1 DEAD, 2 BROKEN``, the most frequent first."""
    counts = Counter(record.status for record in records).most_common()
    return f"{len(records)} run{'s' * (len(records) != 1)}: " + ", ".join(f"{n} {status}" for status, n in counts)


class _Table:
    """Values that many runs share, stored once."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self._index: dict[str, int] = {}

    def index(self, value: Any) -> int:
        key = repr(value)
        if key not in self._index:
            self._index[key] = len(self.rows)
            self.rows.append(value)
        return self._index[key]


def _is_free(key: str) -> bool:
    """Whether runs of one experiment may differ in this setting."""
    return key in FREE or key.startswith(FREE_PREFIXES)


def _entry(record: RunRecord, folder: Path, machines: _Table, packages: _Table) -> dict[str, Any]:
    """One run without its curves; whatever its files hold, it appears on the page."""
    entry: dict[str, Any] = {
        "path": Path(os.path.relpath(record.folder, folder)).as_posix(),
        "id": record.folder.name,
        "env": record.env,
        "algorithm": record.algorithm,
        "label": record.label,
        "seed": record.seed,
        "status": record.status,
        "problem": _why(record),
        "config": _flat(record.config),
        "final": {},
        "files": _files(record.folder),
        "checkpoints": _env_steps_of(record.folder / MODELS),
    }
    if record.status in (DEAD, INTERRUPTED, FAILED):
        entry["resume"] = f"python src/main.py resume {shlex.quote(str(record.folder))}"
        entry["full_states"] = _env_steps_of(record.folder / RESUME)
    try:
        entry |= _recorded(record, machines, packages)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        entry |= {"status": BROKEN, "problem": f"run.json or summary.json is not as a run writes it: {error}"}
    return entry


def _recorded(record: RunRecord, machines: _Table, packages: _Table) -> dict[str, Any]:
    """What run.json and summary.json say."""
    run, summary = record.run, record.summary or {}
    started, stopped = run.get("start_time"), run.get("stop_time")
    seconds = _seconds_between(started, stopped or run.get("heartbeat"))
    cpu = summary.get("cpu_seconds", _last(record.metrics.get("cpu_seconds", [])))
    host = run.get("host") or {}
    steps = record.env_steps
    return {
        "started": started,
        "stopped": stopped,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "env_steps": steps,
        "t_max": record.config.get("t_max"),
        "speed": summary.get("env_steps_per_second", round(steps / seconds, 1) if seconds and steps else None),
        "commit": record.commit,
        "final": {key: value for key, value in (summary.get("test") or {}).items() if value is not None},
        "test_episodes": summary.get("test_episodes"),
        "updates": summary.get("updates"),
        "device": summary.get("device"),
        "trace": "".join(str(line) for line in run.get("fail_trace") or [])[-TRACE_LENGTH:],
        "machine": machines.index({key: host.get(key) for key in ("hostname", "cpu", "os", "python_version")}),
        "packages": packages.index(list((run.get("experiment") or {}).get("dependencies") or [])),
    }


def _why(record: RunRecord) -> str:
    if record.status == DEAD:
        owner = lock_owner(record.folder)
        process = (
            f"process {owner['pid']} on {owner.get('host', 'an unknown host')}" if "pid" in owner else "its process"
        )
        return f"{process} is gone and has recorded no end"
    if record.status == BROKEN:
        return record.problem or "run.json holds no status"
    return record.problem or ("stopped before its end" if record.status == INTERRUPTED else "")


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _env_steps_of(folder: Path) -> list[int]:
    """Of the checkpoints in a folder, fewest first."""
    return sorted(int(path.name) for path in checkpoints_in(folder))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings under dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _seconds_between(start: str | None, end: str | None) -> float | None:
    if not start or not end:
        return None
    return round((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds(), 1)


def _last(curve: Curve) -> float | None:
    return next((value for _, value in reversed(curve) if math.isfinite(value)), None)


def _chosen_curves(record: RunRecord) -> dict[str, Curve]:
    """All test metrics, the clocks, and the training metrics that say most."""
    try:
        metrics = {key: _clean(curve) for key, curve in record.metrics.items()}
    except (TypeError, ValueError):  # a line that holds JSON, but no metric
        return {}
    test = sorted(key for key in metrics if key.startswith("test_"))
    other = {key for key in metrics if not key.startswith(("test_", "final_")) and key not in (*CLOCKS, "episode")}
    training = sorted(other, key=lambda key: (f"test_{key}" not in test, "loss" not in key, key))
    clocks = [key for key in CLOCKS if key in metrics]
    return {key: metrics[key] for key in (*test, *clocks, *training[:TRAINING_CURVES])}


def _clean(curve: Curve) -> Curve:
    """By rising steps, each once (the later line counts), infinities as NaN."""
    by_step = {int(step): float(value) for step, value in curve}
    return [(step, value if math.isfinite(value) else math.nan) for step, value in sorted(by_step.items())]


def _packed(curves: Mapping[str, Curve], points: int) -> dict[str, Any]:
    """Thinned curves as ``key: [index of their steps, values]``: most metrics are logged at the same steps."""
    steps = _Table()
    packed = {}
    for key, curve in curves.items():
        kept = thin(curve, points)
        values = [None if math.isnan(value) else float(f"{value:.5g}") for _, value in kept]
        packed[key] = [steps.index([step for step, _ in kept]), values]
    return {"curves": packed, "steps": steps.rows}
