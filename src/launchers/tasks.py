"""What has become of each run of a set, and how long the rest will take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from launchers.jobs import Job, matching_run
from launchers.progress import RunProgress
from reports.run_records import BROKEN, COMPLETED, RUNNING, RunRecord

WAITING, STARTED, ADOPTED, DONE, STOPPED, FAILED = "waiting", "running", "adopted", "done", "stopped", "failed"
ACTIVE = (STARTED, ADOPTED)


@dataclass(eq=False)
class Task:
    """A job and its state.

    Attributes:
        job: the run that is wanted.
        log: what its processes print.
        state: waiting, running (started here), adopted (another process runs it), done, stopped or failed.
        run: the run's folder, once it is known.
        note: why it is in this state, where that is not plain.
        failures: how often it failed since this launcher started.
        handle: the launcher's, while running.
        known: folders that were there before the run was started.
        progress: reads its files.
        usual_rate: environment steps per second of a finished run.
    """

    job: Job
    log: Path
    state: str = WAITING
    run: Path | None = None
    note: str = ""
    failures: int = 0
    handle: Any = None
    known: set[Path] = field(default_factory=set)
    progress: RunProgress | None = None
    usual_rate: float | None = None

    @property
    def arguments(self) -> list[str]:
        """What follows the program's name: a new run, or the continuation of the one that is there."""
        return list(self.job.arguments) if self.run is None else ["resume", str(self.run)]

    @property
    def env_steps(self) -> int:
        """How far it is."""
        if self.state == DONE:
            return self.job.t_max
        return 0 if self.progress is None else self.progress.env_steps

    @property
    def rate(self) -> float | None:
        """Environment steps per second, of the present process or of the finished run."""
        if self.state in ACTIVE and self.progress is not None:
            return self.progress.rate
        return self.usual_rate

    @property
    def planned(self) -> str:
        """What will happen to it, for the listing."""
        if self.state != WAITING:
            return self.state
        return "new" if self.run is None else "resume"

    def found(self, run: Path) -> None:
        """Its run's folder is known now."""
        self.run, self.progress = run, RunProgress(run)
        self.progress.refresh()


def make_tasks(jobs: Sequence[Job], results: Path, records: Iterable[RunRecord]) -> list[Task]:
    """Matches jobs with the runs on disk: done, adopted, to be continued, or new.

    Args:
        jobs: see :func:`launchers.jobs.make_jobs`.
        results: the folder of the set; logs go to ``logs`` in it.
        records: the runs in that folder.
    """
    records = list(records)
    tasks = []
    for job in jobs:
        task = Task(job, results / "logs" / f"{job.name}.log")
        record = matching_run(job, records)
        if record is not None:
            task.found(record.folder)
            task.state = {COMPLETED: DONE, RUNNING: ADOPTED}.get(record.status, WAITING)
            rate = (record.summary or {}).get("env_steps_per_second")
            task.usual_rate = rate if task.state == DONE else None
            task.note = "" if task.state != WAITING else record.status.lower()
        tasks.append(task)
    return tasks


def broken_runs(records: Iterable[RunRecord]) -> list[str]:
    """One note for each folder that cannot be read and is left alone."""
    return [f"{r.folder} is left alone, it cannot be read: {r.problem}" for r in records if r.status == BROKEN]


def seconds_left(tasks: Sequence[Task], slots: int) -> float | None:
    """Estimated seconds until all is done; ``None`` before any rate is known.

    A run without a rate of its own is taken to be as fast as those of its algorithm and environment, else as all.
    """
    rates: dict[tuple[str, str], list[float]] = {}
    for task in tasks:
        if task.rate:
            rates.setdefault((task.job.algorithm, task.job.environment), []).append(task.rate)
    known = [rate for group in rates.values() for rate in group]
    unfinished = [task for task in tasks if task.state in (WAITING, *ACTIVE)]
    if not known or not unfinished:
        return None if unfinished else 0.0
    needs = [
        max(0, task.job.t_max - task.env_steps)
        / (task.rate or fmean(rates.get((task.job.algorithm, task.job.environment), known)))
        for task in unfinished
    ]
    return max(sum(needs) / slots, *needs)
