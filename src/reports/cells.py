"""Rows, columns and cells: an algorithm with its label, an environment with its arguments, the seeds of both."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reports.run_records import RunRecord

ABSENT = "absent"


@dataclass(frozen=True, order=True)
class Row:
    """An algorithm: ``name`` and ``label`` of the configuration."""

    name: str
    label: str = ""

    @property
    def title(self) -> str:
        """As in the folder's name, without saying twice what the label begins with."""
        if self.label.startswith(self.name) and self.label != self.name:
            return self.label
        return "_".join(filter(None, (self.name, self.label)))


@dataclass(frozen=True)
class Column:
    """An environment with its arguments.

    Attributes:
        env: its name.
        env_args: its arguments, JSON with sorted keys.
        title: what an experiment set calls it, otherwise its name; and the arguments that differ between the columns
            that are called the same.
    """

    env: str
    env_args: str
    title: str = field(compare=False)

    def order(self) -> tuple[Any, ...]:
        """Sorts by name, then by arguments, sizes as numbers: 10 landmarks after 3."""
        values = [
            (key, value, "") if isinstance(value, int | float) else (key, 0.0, shown_value(value))
            for key, value in sorted(json.loads(self.env_args).items())
        ]
        return self.env, values


Cell = tuple[Row, Column]


@dataclass(frozen=True)
class Note:
    """A remark that every format shows, and the rows, columns and cells that it is about (none: all)."""

    text: str
    at: tuple[Row | Column | Cell, ...] = ()


def row_of(run: RunRecord) -> Row:
    """The row that a run belongs to."""
    return Row(run.algorithm, run.label)


def group(runs: Iterable[RunRecord]) -> dict[Cell, list[RunRecord]]:
    """The runs of each cell, in the given order; cells sorted by row, then column."""
    runs = list(runs)
    columns = _columns(runs)
    found: dict[Cell, list[RunRecord]] = {}
    for run in runs:
        found.setdefault((row_of(run), columns[_column_key(run)]), []).append(run)
    return dict(sorted(found.items(), key=lambda item: (item[0][0], item[0][1].order())))


def shown_value(value: Any) -> str:
    """A configuration value as the command line would have it."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _column_key(run: RunRecord) -> tuple[str, str]:
    return run.env, json.dumps(run.config.get("env_args", {}), sort_keys=True)


def _columns(runs: Iterable[RunRecord]) -> dict[tuple[str, str], Column]:
    settings: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        settings.setdefault(_column_key(run), set()).add(run.setting)
    called = {key: (min(found) if len(found) == 1 else "") or key[0] for key, found in settings.items()}
    columns = {}
    for (env, text), title in called.items():
        siblings = [json.loads(other) for (_, other), name in called.items() if name == title]
        own = json.loads(text)
        names = sorted({name for arguments in siblings for name in arguments})
        differing = [name for name in names if len({_shown(arguments, name) for arguments in siblings}) > 1]
        words = [f"{name}={_shown(own, name)}" for name in differing]
        columns[env, text] = Column(env, text, " ".join([title, *words]))
    return columns


def _shown(arguments: Mapping[str, Any], name: str) -> str:
    return shown_value(arguments.get(name, ABSENT))
