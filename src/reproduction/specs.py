"""What a table or figure is made of: runs of experiment sets, and measurements of them in other settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# What is measured of a trained run: see commands.measure.
EPISODES, DECISIONS, PATH, EVENTS = "episodes", "decisions", "path", "events"


@dataclass(frozen=True)
class Runs:
    """One algorithm on one environment of an experiment set, by the set's names.

    Attributes:
        experiment_set: a file of ``benchmarks/``, without ``.yaml``.
        algorithm: a name of that set.
        environment: a name of that set.
        first_seed: only the set's first seed is needed.
    """

    experiment_set: str
    algorithm: str
    environment: str
    first_seed: bool = False


@dataclass(frozen=True)
class Source:
    """Where numbers come from.

    Attributes:
        runs: the trained runs.
        overrides: ``key=value`` texts of the setting that they are measured in; none: as they were trained.
        kind: what is measured; episodes without overrides are the run's own final evaluation.
    """

    runs: Runs
    overrides: tuple[str, ...] = ()
    kind: str = EPISODES


@dataclass(frozen=True)
class Metric:
    """A number of a run.

    Attributes:
        name: as evaluations call it.
        title: with its unit.
        scale: what it is multiplied by.
        decimals: that are shown.
        training: the last value logged while training, instead of that of an evaluation.
        in_paper: the paper's tables have it.
    """

    name: str
    title: str
    scale: float = 1.0
    decimals: int = 1
    training: bool = False
    in_paper: bool = True


SUCCESS = Metric("success", "success, %", 100.0)
WON = Metric("battle_won", "battles won, %", 100.0)
MIN_DISTANCE = Metric("min_distance", "min_distance (at the end, each agent to its nearest landmark)", 1.0, 3)
STEPS = Metric("steps_to_success", "steps to success", in_paper=False)
AGREEMENT = Metric("agreement", "agents with the same first task as by LP-distance, %", 100.0, in_paper=False)
IMITATION = Metric("imitation_accuracy", "imitation accuracy, %", 100.0, training=True)


@dataclass(frozen=True)
class Table:
    """A table of methods in settings.

    Attributes:
        name: of the files, and in the paper's numbers.
        title: one line.
        metrics: one grid each.
        rows: methods, key -> title.
        columns: settings, key -> title.
        cells: (row, column) -> source; pairs without one are left blank.
        in_paper: the paper's numbers stand beside ours.
        settings_down: settings are the lines of the grid, methods its columns.
        note: what the reader must know.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    rows: Mapping[str, str]
    columns: Mapping[str, str]
    cells: Mapping[tuple[str, str], Source]
    in_paper: bool = True
    settings_down: bool = False
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A curve over training: mean and interval over the seeds of some runs.

    Attributes:
        runs: whose.
        title: in the legend.
        look: index of its color.
        dash: index of its dashes.
        paper: (row, column) of the paper's final value, drawn as a thin line.
    """

    runs: Runs
    title: str
    look: int
    dash: int = 0
    paper: tuple[str, str] | None = None


@dataclass(frozen=True)
class Panel:
    """Curves in one pair of axes.

    Attributes:
        title: above it.
        ylabel: beside it.
        key: of ``metrics.jsonl``.
        lines: what is drawn.
        scale: what values are multiplied by.
        share: the axis goes from 0 to 100 %.
    """

    title: str
    ylabel: str
    key: str
    lines: tuple[Line, ...]
    scale: float = 1.0
    share: bool = False


@dataclass(frozen=True)
class Curves:
    """A figure of panels, ``across`` of them in a row."""

    name: str
    title: str
    panels: tuple[Panel, ...]
    across: int
