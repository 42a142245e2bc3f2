"""What is there of the runs and measurements that tables and figures need."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from launchers.tasks import DONE, Task
from reports.run_records import RunRecord, read_run
from reports.scores import final_value
from reproduction.points import Found, Point, Store
from reproduction.specs import DECISIONS, EPISODES, EVENTS, PATH, Metric, Runs, Source

# Enough for a figure; their cost grows with the steps that the environments simulate.
_MOST = {DECISIONS: 60, PATH: 16, EVENTS: 16}


@dataclass
class Study:
    """The runs of the sets and what was measured of them.

    Attributes:
        store: the measurements.
        tasks: experiment set -> its tasks that are needed.
        faults: why measurements failed, by the key of their point.
    """

    store: Store
    tasks: Mapping[str, Sequence[Task]]
    faults: dict[str, str] = field(default_factory=dict)
    _records: dict[str, RunRecord] = field(default_factory=dict)

    def wanted(self, runs: Runs) -> list[Task]:
        """The tasks of these runs, done or not, in the order of their seeds."""
        found = [
            task
            for task in self.tasks.get(runs.experiment_set, ())
            if (task.job.algorithm, task.job.environment) == (runs.algorithm, runs.environment)
        ]
        return found[:1] if runs.first_seed else found

    def done(self, runs: Runs) -> list[RunRecord]:
        """The finished ones."""
        return [self._record(task) for task in self.wanted(runs) if task.state == DONE and task.run is not None]

    def points(self, source: Source) -> list[Point]:
        """What must be measured for a source; none where the runs' own final evaluation says it."""
        if source.kind == EPISODES and not source.overrides:
            return []
        return [
            Point(
                run,
                source.kind,
                source.overrides,
                min(int(run.config["final_nepisode"]), _MOST.get(source.kind, 10**9)),
            )
            for run in self.done(source.runs)
        ]

    def measured(self, source: Source) -> dict[int, Found]:
        """Seed -> what was measured, as far as it is there."""
        found = {int(point.run.seed or 0): self.store.read(point) for point in self.points(source)}
        return {seed: value for seed, value in found.items() if value is not None}

    def values(self, source: Source, metric: Metric) -> dict[int, float]:
        """Seed -> the scaled metric, without those that have none."""
        if source.overrides:
            found = {seed: float(row.get(metric.name, math.nan)) for seed, row in self.measured(source).items()}
        else:
            found = {int(run.seed or 0): _own_value(run, metric) for run in self.done(source.runs)}
        return {seed: metric.scale * value for seed, value in found.items() if math.isfinite(value)}

    def is_complete(self, source: Source) -> bool:
        """Whether all runs are done and measured."""
        measured = all(self.store.read(point) is not None for point in self.points(source))
        return measured and len(self.done(source.runs)) == len(self.wanted(source.runs)) > 0

    def missing_points(self, sources: Iterable[Source]) -> list[Point]:
        """What is not measured of finished runs, each once."""
        points = {point.key: point for source in sources for point in self.points(source)}
        return [point for point in points.values() if self.store.read(point) is None]

    def _record(self, task: Task) -> RunRecord:
        key = str(task.run)
        if key not in self._records:
            self._records[key] = read_run(task.run)  # type: ignore[arg-type]
        return self._records[key]


def _own_value(run: RunRecord, metric: Metric) -> float:
    if not metric.training:
        return final_value(run, metric.name)
    curve = run.metrics.get(metric.name, [])
    return curve[-1][1] if curve else math.nan
