"""What the runs of a cell, a row and a column must agree on, and what a reader must know where they differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from reports.cells import ABSENT, Cell, Column, Note, row_of, shown_value
from reports.run_records import RunRecord

ENOUGH_SEEDS = 5
UPDATE_RATIO = 1.1
SHOWN_NAMES = 4
UNKNOWN = "unknown"
# How a run is tested, while and after training; test episodes are always greedy.
EVALUATION = ("test_nepisode", "test_interval", "final_nepisode")
# Before records named the version of their environment; the code of this commit plays version 1 of all of them.
LAST_WITHOUT_VERSION = "3462d0f3012a488e8a6d19393ecc6524a61030b4"
# What may differ between the seeds of a cell, since it changes nothing of what a run computes but rounding.
FREE = {
    *("seed", "label", "local_results_path", "use_tensorboard", "log_interval", "replay_nepisode"),
    *("torch_threads", "use_cuda"),
}
FREE_PREFIXES = ("save_", "checkpoint_")

Cells = Mapping[Cell, Sequence[RunRecord]]


def settings(run: RunRecord) -> dict[str, Any]:
    """What the seeds of a cell have in common: the configuration without what changes no result."""
    kept = {key: value for key, value in run.config.items() if key not in FREE and not key.startswith(FREE_PREFIXES)}
    # Each seed starts from its own checkpoint; whether there was one is a setting.
    return kept | {"checkpoint_path": "given" if run.config.get("checkpoint_path") else "none"}


def different_settings(cells: Cells) -> list[Note]:
    """Cells whose runs are not seeds of one experiment."""
    notes = []
    for (row, column), runs in cells.items():
        # The column's check tells how runs were tested.
        lines = _disagreements([(_who(run), settings(run)) for run in runs], EVALUATION)
        if lines:
            text = f"{row.title} in {column.title}: its runs have different settings: {'; '.join(lines)}"
            notes.append(Note(text, ((row, column),)))
    return notes


def different_tests(cells: Cells) -> list[Note]:
    """Columns whose runs were tested differently or played on different environment code."""
    notes = []
    for column, runs in _by_column(cells).items():
        rules = [(_who(run), {key: run.config.get(key, ABSENT) for key in EVALUATION}) for run in runs]
        versions = [(_who(run), version) for run in runs for version in [_played(run)] if version]
        for problem, lines in (
            ("the runs were not tested alike", _disagreements(rules)),
            ("the runs played different versions of the environment", _disagreements(versions)),
        ):
            if lines:
                notes.append(Note(f"{column.title}: {problem}: {'; '.join(lines)}", (column,)))
    return notes


def remarks(cells: Cells) -> list[Note]:
    """What may differ or be missing and must be seen."""
    return [
        *_few_seeds(cells),
        *_kinds_of_runs(cells),
        *_different_lengths(cells),
        *_different_update_ratios(cells),
        *_different_between_columns(cells),
        *_commits(cells),
    ]


def env_commit(run: RunRecord) -> str:
    """The last commit that touched the environments, or ``"unknown"``."""
    return str(run.commit.get("env_commit") or UNKNOWN)


def _played(run: RunRecord) -> dict[str, Any]:
    """Which version of its environment a run played; for older records the commit of its code; nothing if unknown."""
    version = (run.summary or {}).get("env_version")
    commit = env_commit(run)
    if version is not None or commit == LAST_WITHOUT_VERSION:
        return {"env_version": version or 1}
    return {"env_commit": commit[:12]} if commit != UNKNOWN else {}


def _few_seeds(cells: Cells) -> list[Note]:
    few = tuple(cell for cell, runs in cells.items() if len(runs) < ENOUGH_SEEDS)
    text = f"fewer than {ENOUGH_SEEDS} seeds: the interval is too narrow, take it as a sketch"
    return [Note(text, few)] if few else []


def _kinds_of_runs(cells: Cells) -> list[Note]:
    kinds = {
        "the commit of the environment's code is unknown": lambda run: env_commit(run) == UNKNOWN,
        "the environment's code had uncommitted changes": lambda run: bool(run.commit.get("env_dirty")),
        "the code had uncommitted changes": lambda run: (
            bool(run.commit.get("dirty")) and not run.commit.get("env_dirty")
        ),
        "evaluated only, not trained in this run": lambda run: bool(run.config.get("evaluate")),
        "trained with use_cuda": lambda run: bool(run.config.get("use_cuda")),
        "training started from a checkpoint": lambda run: (
            bool(run.config.get("checkpoint_path")) and not run.config.get("evaluate")
        ),
    }
    found = {
        text: tuple(cell for cell, runs in cells.items() if any(map(is_so, runs))) for text, is_so in kinds.items()
    }
    return [Note(text, at) for text, at in found.items() if at]


def _different_lengths(cells: Cells) -> list[Note]:
    found: dict[str, list[Column]] = {}
    for column, runs in _by_column(cells).items():
        for line in _disagreements([(row_of(run).title, {"t_max": run.config.get("t_max", ABSENT)}) for run in runs]):
            found.setdefault(f"trained for different numbers of environment steps: {line}", []).append(column)
    return [Note(text, tuple(columns)) for text, columns in found.items()]


def _different_update_ratios(cells: Cells) -> list[Note]:
    found: dict[str, list[Column]] = {}
    for column in _by_column(cells):
        ratios = {
            row.title: ratio
            for (row, own), runs in cells.items()
            if own == column and (ratio := _updates_per_step(runs)) is not None
        }
        if ratios and max(ratios.values()) > UPDATE_RATIO * min(ratios.values()):
            alike: dict[str, list[str]] = {}
            for title, ratio in ratios.items():
                alike.setdefault(f"{ratio:.2g}", []).append(title)
            shown = ", ".join(f"{ratio} ({_names(titles)})" for ratio, titles in alike.items())
            found.setdefault(f"updates per environment step differ: {shown}", []).append(column)
    return [Note(text, tuple(columns)) for text, columns in found.items()]


def _names(titles: Sequence[str]) -> str:
    """The first few; a search has dozens."""
    more = len(titles) - SHOWN_NAMES
    return ", ".join(titles[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def _updates_per_step(runs: Iterable[RunRecord]) -> float | None:
    counted = [((run.summary or {}).get("updates"), run.env_steps) for run in runs]
    ratios = [updates / steps for updates, steps in counted if updates and steps]
    return median(ratios) if ratios else None


def _different_between_columns(cells: Cells) -> list[Note]:
    notes = []
    for row in {row: None for row, _ in cells}:
        given = [(column.title, settings(runs[0])) for (own, column), runs in cells.items() if own == row]
        lines = _disagreements(given, ("env", "env_args", "t_max", *EVALUATION))
        if lines:
            notes.append(Note(f"{row.title}: its settings differ between environments: {'; '.join(lines)}", (row,)))
    return notes


def _commits(cells: Cells) -> list[Note]:
    commits = [
        (row_of(run).title, {"commit": str(run.commit.get("commit") or UNKNOWN)[:12]})
        for runs in cells.values()
        for run in runs
    ]
    return [Note(f"runs of different commits: {line}") for line in _disagreements(commits)]


def _by_column(cells: Cells) -> dict[Column, list[RunRecord]]:
    found: dict[Column, list[RunRecord]] = {}
    for (_, column), runs in cells.items():
        found.setdefault(column, []).extend(runs)
    return found


def _disagreements(given: Sequence[tuple[str, Mapping[str, Any]]], skipped: Iterable[str] = ()) -> list[str]:
    """``key = value (whose), value (whose)`` for each key on which mappings differ.

    Args:
        given: (whose, mapping); several may be of one owner.
        skipped: keys that may differ.
    """
    lines = []
    for key in sorted({key for _, values in given for key in values} - set(skipped)):
        owners: dict[str, list[str]] = {}
        for owner, values in given:
            owners.setdefault(shown_value(values.get(key, ABSENT)), []).append(owner)
        if len(owners) > 1:
            shown = (f"{value} ({', '.join(dict.fromkeys(whose))})" for value, whose in owners.items())
            lines.append(f"{key} = {', '.join(shown)}")
    return lines


def _who(run: RunRecord) -> str:
    return f"{row_of(run).title} seed {run.seed}"
