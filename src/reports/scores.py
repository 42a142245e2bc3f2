"""From runs to numbers: one value and one curve per seed, one estimate per cell, against a baseline where asked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.errors import UserError
from components.registry import did_you_mean
from reports.cells import Cell, Column, Note, Row
from reports.comparable import Comparison
from reports.run_records import COMPLETED, Curve, RunRecord
from reports.statistics import (
    CURVE_REPETITIONS,
    Estimate,
    FloatArray,
    Strata,
    bootstrap,
    improvement,
    iqm,
    mean,
    on_grid,
    standard_deviation,
)

STATISTICS = {"iqm": iqm, "mean": mean}
NAMES = {"iqm": "IQM", "mean": "mean"}  # as tables and plots show them
# Taken where no metric is asked for: the first that the runs have.
PREFERRED = ("success", "return")
# The column over all environments; its arguments are no JSON, so that no environment can be meant.
ALL = Column("all environments", "", "all environments")


@dataclass(frozen=True)
class Scores:
    """The numbers of one cell.

    Attributes:
        values: [n], one per run.
        estimates: statistic's name -> the statistic with its interval.
        std: sample standard deviation over the seeds; NaN for one seed and over all environments.
    """

    values: FloatArray
    estimates: Mapping[str, Estimate]
    std: float


@dataclass(frozen=True)
class LearningCurve:
    """A statistic over the seeds of one cell.

    Attributes:
        env_steps: [P].
        estimate: of shape [P].
        seeds: each seed's own tests.
    """

    env_steps: NDArray[np.int64]
    estimate: Estimate
    seeds: Sequence[Curve]


@dataclass(frozen=True)
class Results:
    """Everything that tables and plots show.

    Attributes:
        metric: its name without ``final_`` and ``_mean``.
        statistic: "iqm" or "mean".
        rows: the algorithms.
        columns: the environments; :data:`ALL` is last where they are aggregated.
        runs: the runs of each cell that have the metric.
        scores: of each cell, :data:`ALL` included.
        curves: of each cell whose runs tested the metric while training.
        baseline: what the others are compared with, or ``None``.
        improvement: cell -> probability that a run of it has a larger value than one of the baseline.
        notes: what the reader must know.
    """

    metric: str
    statistic: str
    rows: Sequence[Row]
    columns: Sequence[Column]
    runs: Mapping[Cell, Sequence[RunRecord]]
    scores: Mapping[Cell, Scores]
    curves: Mapping[Cell, LearningCurve]
    baseline: Row | None
    improvement: Mapping[Cell, Estimate]
    notes: Sequence[Note]

    def flags(self, cell: Cell) -> list[str]:
        """The notes that concern a cell."""
        about = {cell, *cell}
        return [note.text for note in self.notes if not note.at or about & set(note.at)]


def metric_names(runs: Sequence[RunRecord]) -> list[str]:
    """The metrics of the final evaluations, sorted."""
    keys = {key for run in runs if run.status == COMPLETED for key in run.metrics}
    return sorted(
        key[len("final_") : -len("_mean")] for key in keys if key.startswith("final_") and key.endswith("_mean")
    )


def choose_metric(runs: Sequence[RunRecord], asked: str | None = None) -> str:
    """The metric that is asked for, or "success", "return" or the first one.

    Raises:
        UserError: no completed run has it.
    """
    known = metric_names(runs)
    if not known:
        raise UserError("nothing to report: no completed run has a final evaluation (final_nepisode = 0?)")
    if asked is None:
        return next((name for name in PREFERRED if name in known), known[0])
    if asked not in known:
        raise UserError(f"unknown metric {asked!r}{did_you_mean(asked, known)}")
    return asked


def final_value(run: RunRecord, metric: str) -> float:
    """The mean of the final evaluation; NaN where it applied to no episode."""
    curve = run.metrics.get(f"final_{metric}_mean", [])
    return curve[-1][1] if curve else math.nan


def evaluate(comparison: Comparison, metric: str, statistic: str = "iqm", baseline: str | None = None) -> Results:
    """All numbers of a comparison.

    Args:
        comparison: see :func:`reports.comparable.compare`.
        metric: see :func:`choose_metric`.
        statistic: "iqm" or "mean", of the curves; a cell has both.
        baseline: title or name of a row.

    Raises:
        UserError: unknown statistic or baseline, or no run with a value.
    """
    if statistic not in STATISTICS:
        raise UserError(f"unknown statistic {statistic!r}{did_you_mean(statistic, list(STATISTICS))}")
    runs, notes = _with_value(comparison, metric)
    if not runs:
        raise UserError(f"nothing to report: {metric!r} applied to no episode of any run")
    values = {cell: np.array([final_value(run, metric) for run in found]) for cell, found in runs.items()}
    rows, columns = comparison.rows, comparison.columns
    against = _baseline(rows, baseline)
    scores = {cell: _scores([found]) for cell, found in values.items()}
    compared = {} if against is None else _improvements(values, against)
    if _can_be_aggregated(columns, values):
        strata = {
            row: [values[row, column] for column in columns] for row in rows if _is_complete(row, columns, values)
        }
        scores |= {(row, ALL): _scores(found) for row, found in strata.items()}
        if against in strata:
            compared |= {
                (row, ALL): improvement(found, strata[against]) for row, found in strata.items() if row != against
            }
        columns = [*columns, ALL]
        notes = [*_also_over_all([*comparison.notes, *notes], list(strata)), *_unequal_weights(strata)]
    else:
        notes = [*comparison.notes, *notes]
    curves = {cell: curve for cell, found in runs.items() if (curve := _curve(found, metric, statistic)) is not None}
    return Results(metric, statistic, rows, columns, runs, scores, curves, against, compared, notes)


def _with_value(comparison: Comparison, metric: str) -> tuple[dict[Cell, list[RunRecord]], list[Note]]:
    kept, notes = {}, []
    for cell, runs in comparison.cells.items():
        found = [run for run in runs if math.isfinite(final_value(run, metric))]
        if found:
            kept[cell] = found
        if len(found) < len(runs):
            # Not at random: steps_to_success is absent just where there was no success.
            text = f"{len(runs) - len(found)} of {len(runs)} seeds have no {metric}: the number is of the others only"
            notes.append(Note(text, (cell,)))
    return kept, notes


def _scores(strata: Strata) -> Scores:
    estimates = {name: bootstrap(strata, statistic) for name, statistic in STATISTICS.items()}
    std = float(standard_deviation(strata[0])) if len(strata) == 1 else math.nan
    return Scores(np.concatenate(list(strata)), estimates, std)


def _baseline(rows: Sequence[Row], asked: str | None) -> Row | None:
    if asked is None:
        return None
    found = [row for row in rows if row.title == asked] or [row for row in rows if row.name == asked]
    if len(found) != 1:
        titles = [row.title for row in found or rows]
        raise UserError(
            f"--baseline {asked}: " + ("several rows" if found else "no such row") + did_you_mean(asked, titles)
        )
    return found[0]


def _improvements(values: Mapping[Cell, FloatArray], baseline: Row) -> dict[Cell, Estimate]:
    return {
        (row, column): improvement([found], [values[baseline, column]])
        for (row, column), found in values.items()
        if row != baseline and (baseline, column) in values
    }


def _can_be_aggregated(columns: Sequence[Column], values: Mapping[Cell, FloatArray]) -> bool:
    # Shares, such as success, have one scale in every environment; returns do not.
    return len(columns) > 1 and all(((found >= 0) & (found <= 1)).all() for found in values.values())


def _is_complete(row: Row, columns: Sequence[Column], values: Mapping[Cell, FloatArray]) -> bool:
    return all((row, column) in values for column in columns)


def _also_over_all(notes: Sequence[Note], rows: Sequence[Row]) -> list[Note]:
    """What is said of a cell holds for the aggregate that it is part of."""
    found = []
    for note in notes:
        marked = {anchor[0] for anchor in note.at if isinstance(anchor, tuple)}
        found.append(Note(note.text, (*note.at, *((row, ALL) for row in rows if row in marked))))
    return found


def _unequal_weights(strata: Mapping[Row, Strata]) -> list[Note]:
    at = tuple((row, ALL) for row, found in strata.items() if len({len(values) for values in found}) > 1)
    return [Note("environments with more seeds weigh more in the IQM over all", at)] if at else []


def _curve(runs: Sequence[RunRecord], metric: str, statistic: str) -> LearningCurve | None:
    # A resumed or restarted run may have tested twice at the same step: the later one counts.
    seeds = [sorted(dict(run.metrics.get(f"test_{metric}_mean", [])).items()) for run in runs]
    spacing = max(int(run.config.get("test_interval") or 1) for run in runs)
    env_steps, values = on_grid(seeds, spacing)
    if len(env_steps) == 0:
        return None
    return LearningCurve(env_steps, bootstrap([values], STATISTICS[statistic], CURVE_REPETITIONS), seeds)
