"""Results as long CSV files, for further work: one line per cell, per seed, per point of a curve."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from typing import Any

from reports.cells import Cell
from reports.run_records import RunRecord
from reports.scores import LearningCurve, Results, Scores
from reports.statistics import Estimate


def table_csv(results: Results) -> str:
    """One line per cell, with every number in full."""
    return _csv(_table_line(results, cell, scores) for cell, scores in results.scores.items())


def seeds_csv(results: Results) -> str:
    """One line per run, with its whole final evaluation."""
    return _csv({**_names(cell), **_run_line(run)} for cell, runs in results.runs.items() for run in runs)


def curves_csv(results: Results) -> str:
    """One line per point of each learning curve."""
    return _csv(line for cell, curve in results.curves.items() for line in _curve_lines(results, cell, curve))


def _names(cell: Cell) -> dict[str, Any]:
    row, column = cell
    return {"algorithm": row.name, "label": row.label, "environment": column.title, "env_args": column.env_args}


def _table_line(results: Results, cell: Cell, scores: Scores) -> dict[str, Any]:
    line = _names(cell) | {"metric": results.metric, "runs": len(scores.values), "std": _number(scores.std)}
    for name, estimate in scores.estimates.items():
        line |= _bounds(name, estimate)
    if results.baseline is not None:
        line["baseline"] = results.baseline.title
        line |= _bounds("improvement", results.improvement.get(cell))
    return line | {"flags": "; ".join(results.flags(cell))}


def _bounds(name: str, estimate: Estimate | None) -> dict[str, Any]:
    values = ["", "", ""] if estimate is None else [float(estimate.value), float(estimate.low), float(estimate.high)]
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _run_line(run: RunRecord) -> dict[str, Any]:
    summary = run.summary or {}
    known = ("env_version", "env_steps", "updates", "cpu_seconds", "wall_seconds")
    recorded = {key: summary.get(key, "") for key in known}
    final = {key: curve[-1][1] for key, curve in sorted(run.metrics.items()) if key.startswith("final_")}
    commit = {key: run.commit.get(key, "") for key in ("commit", "dirty", "env_commit", "env_dirty")}
    return {"seed": run.seed, "folder": str(run.folder), **commit, **recorded, **final}


def _curve_lines(results: Results, cell: Cell, curve: LearningCurve) -> Iterable[dict[str, Any]]:
    about = {"metric": results.metric, "statistic": results.statistic, "seeds": len(curve.seeds)}
    estimate = curve.estimate
    for t, *values in zip(curve.env_steps, estimate.value, estimate.low, estimate.high, strict=True):
        shown = dict(zip(("value", "low", "high"), map(float, values), strict=True))
        yield {**_names(cell), **about, "env_steps": int(t), **shown}


def _number(value: float) -> float | str:
    return "" if math.isnan(value) else value


def _csv(lines: Iterable[Mapping[str, Any]]) -> str:
    found = list(lines)
    # Runs may have metrics of their own: every key that any line has, in the order of their appearance.
    keys = list(dict.fromkeys(key for line in found for key in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, keys, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()
