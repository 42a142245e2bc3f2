"""The report of finished runs: tables, curves and all numbers behind them, in one folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.files import write_json_atomic, write_text_atomic
from reports.agreement import env_commit
from reports.cells import Cell, Column, Row
from reports.comparable import compare
from reports.csv_files import curves_csv, seeds_csv, table_csv
from reports.plots import draw_curves, save_figure
from reports.run_records import RunRecord
from reports.scores import Results, choose_metric, evaluate, final_value
from reports.statistics import CONFIDENCE, CURVE_REPETITIONS, REPETITIONS, SEED, Estimate
from reports.tables import latex, markdown


def write_report(
    runs: Sequence[RunRecord],
    metric: str | None,
    output: Path,
    *,
    statistic: str = "iqm",
    baseline: str | None = None,
    mixed: bool = False,
    show_seeds: bool = False,
    command: str = "",
) -> str:
    """Writes table.{csv,md,tex}, seeds.csv, curves.{csv,png,svg} and report.json.

    Args:
        runs: of any state, in any order: the numbers do not depend on it.
        metric: without ``final_`` and ``_mean``; ``None`` takes "success" where it is there, else "return".
        output: the folder; made where it is absent, files of an earlier report are replaced.
        statistic: "iqm" or "mean".
        baseline: title or name of the row that the others are compared with.
        mixed: flag runs that may not stand in one table, instead of refusing them.
        show_seeds: draw every seed's own curve too.
        command: what to repeat to get this report, for report.json.

    Returns:
        The Markdown table.

    Raises:
        UserError: no run to report, runs that may not stand in one table, unknown metric, statistic or baseline, or
            a folder that cannot be written.
    """
    # What must agree comes before what the runs have: a table of other runs may have other metrics.
    comparison = compare(runs, mixed)
    reported = [run for found in comparison.cells.values() for run in found]
    results = evaluate(comparison, choose_metric(reported, metric), statistic, baseline)
    text = markdown(results)
    figure = draw_curves(results, show_seeds)
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_text_atomic(output / "table.md", text)
        write_text_atomic(output / "table.tex", latex(results))
        write_text_atomic(output / "table.csv", table_csv(results))
        write_text_atomic(output / "seeds.csv", seeds_csv(results))
        write_text_atomic(output / "curves.csv", curves_csv(results))
        for suffix in ("png", "svg"):
            save_figure(figure, output / f"curves.{suffix}")
        write_json_atomic(output / "report.json", _document(results) | {"mixed": mixed, "command": command})
    except OSError as error:
        raise UserError(f"the report cannot be written into {output}: {error.strerror or error}") from error
    return text


def _document(results: Results) -> dict[str, Any]:
    runs = [run for found in results.runs.values() for run in found]
    return {
        "metric": results.metric,
        "statistic": results.statistic,
        "bootstrap": {
            "confidence": CONFIDENCE,
            "repetitions": REPETITIONS,
            "curve_repetitions": CURVE_REPETITIONS,
            "seed": SEED,
        },
        "cells": [_cell(results, cell) for cell in results.scores],
        "baseline": None if results.baseline is None else results.baseline.title,
        "notes": [{"text": note.text, "at": [_place(anchor) for anchor in note.at]} for note in results.notes],
        "commits": sorted({str(run.commit.get("commit", "unknown")) for run in runs}),
        "env_commits": sorted({env_commit(run) for run in runs}),
        "machines": machines(runs),
    }


def _cell(results: Results, cell: Cell) -> dict[str, Any]:
    scores, curve = results.scores[cell], results.curves.get(cell)
    improvement = results.improvement.get(cell)
    return {
        **_place(cell),
        "env_args": cell[1].env_args,
        "runs": [
            {"seed": run.seed, "value": _plain(final_value(run, results.metric)), "folder": str(run.folder)}
            for run in results.runs.get(cell, [])
        ],
        "std": _plain(scores.std),
        **{name: _estimate(found) for name, found in scores.estimates.items()},
        "improvement": None if improvement is None else _estimate(improvement),
        "curve": None if curve is None else {"env_steps": curve.env_steps.tolist(), **_estimate(curve.estimate)},
        "flags": results.flags(cell),
    }


def _place(anchor: Row | Column | Cell) -> dict[str, str]:
    if isinstance(anchor, Row):
        return {"row": anchor.title}
    if isinstance(anchor, Column):
        return {"column": anchor.title}
    return {"row": anchor[0].title, "column": anchor[1].title}


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value.tolist(), "low": estimate.low.tolist(), "high": estimate.high.tolist()}


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def machines(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """CPU, system and Python of the runs, each combination once."""
    hosts = [run.run.get("host", {}) for run in runs]
    found = {
        (str(host.get("cpu")), " ".join(map(str, host.get("os") or [])), str(host.get("python_version")))
        for host in hosts
    }
    return [dict(zip(("cpu", "os", "python"), machine, strict=True)) for machine in sorted(found)]
