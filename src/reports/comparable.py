"""Which runs may stand in one table: what must agree is refused where it does not, what may differ is told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.errors import UserError
from reports.agreement import Cells, different_settings, different_tests, remarks, settings
from reports.cells import Cell, Column, Note, Row, group
from reports.run_records import BROKEN, COMPLETED, RunRecord

_HINT = "give them different labels (label=...), choose with --where key=value, or show them all the same with --mixed"


@dataclass(frozen=True)
class Comparison:
    """Runs that may be compared.

    Attributes:
        cells: the runs of each experiment, sorted by seed; a pair of row and column that was not run is absent.
        notes: what the reader must know.
    """

    cells: Mapping[Cell, tuple[RunRecord, ...]]
    notes: tuple[Note, ...]

    @property
    def rows(self) -> list[Row]:
        """The algorithms, sorted."""
        return list(dict.fromkeys(row for row, _ in self.cells))

    @property
    def columns(self) -> list[Column]:
        """The environments, sorted."""
        return sorted({column for _, column in self.cells}, key=Column.order)


def compare(runs: Sequence[RunRecord], mixed: bool = False) -> Comparison:
    """Sorts runs into a table.

    Args:
        runs: of any state, in any order; those that are not COMPLETED are left out.
        mixed: flag what must agree and does not, instead of refusing it.

    Raises:
        UserError: no run is completed; seeds of one cell have different settings; runs of one column were tested
            differently or on different versions of the environment.
    """
    completed = [run for run in runs if run.status == COMPLETED and run.summary is not None]
    left_out = _left_out(runs, completed)
    if not completed:
        raise UserError(f"nothing to report: no run is completed ({left_out or 'there are no runs'})")
    grouped = group(sorted(completed, key=_age))
    refused = [*different_settings(grouped), *different_tests(grouped)]
    if refused and not mixed:
        raise UserError("\n".join([*(note.text for note in refused), _HINT]))
    cells, repeated = _without_duplicates(grouped)
    notes = [Note(f"MIXED: {note.text}", note.at) for note in refused] + remarks(cells) + repeated
    if left_out:
        notes.append(Note(f"left out, not completed: {left_out}"))
    return Comparison(cells, tuple(notes))


def _age(run: RunRecord) -> tuple[str, int, str]:
    number = int(run.folder.name) if run.folder.name.isdigit() else 0
    return str(run.run.get("start_time", "")), number, str(run.folder)


def _left_out(runs: Sequence[RunRecord], completed: Sequence[RunRecord]) -> str:
    kept = {id(run) for run in completed}
    # A completed run without a readable summary was damaged afterwards.
    states = Counter(BROKEN if run.status == COMPLETED else run.status for run in runs if id(run) not in kept)
    return ", ".join(f"{count} {status}" for status, count in sorted(states.items()))


def _without_duplicates(cells: Cells) -> tuple[dict[Cell, tuple[RunRecord, ...]], list[Note]]:
    kept = {}
    notes = []
    for cell, runs in cells.items():
        newest: dict[str, RunRecord] = {}
        repeated = []
        for run in runs:  # oldest first
            key = json.dumps([run.seed, settings(run)], sort_keys=True)
            if key in newest:
                repeated.append(str(run.seed))
            newest[key] = run
        kept[cell] = tuple(sorted(newest.values(), key=lambda run: (run.seed or 0, str(run.folder))))
        if repeated:
            seeds = ", ".join(dict.fromkeys(repeated))
            notes.append(Note(f"run more than once, the newest is taken: seed {seeds}", (cell,)))
    return kept, notes
