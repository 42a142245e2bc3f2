"""What stands at the end of a set: its table and curves, the page of its runs, and where they are."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from launchers.experiment_set import ExperimentSet
from launchers.tasks import DONE, Task
from reports.run_records import RunRecord, read_run

REPORT, REPLAY = "report", "replay.html"


def write_set_report(experiment_set: ExperimentSet, results: Path, tasks: Sequence[Task]) -> str:
    """Writes ``report/`` and ``runs.html`` into the folder of the set.

    The table is that of the set's runs alone: others in the folder, of earlier settings, are in ``runs.html`` only.

    Args:
        experiment_set: names metric, statistic and baseline.
        results: the folder of the set.
        tasks: at least one is done.

    Returns:
        The table and a list of the files, for the screen.

    Raises:
        UserError: runs that may not stand in one table, or an unknown metric.
    """
    # Imported here: the plots cost a second that no run should wait for.
    from reports.report import write_report
    from reports.runs_page import write_runs_page

    chosen = experiment_set.report
    page = write_runs_page(results)
    table = write_report(
        [_record(task) for task in tasks if task.run is not None],
        chosen.get("metric"),
        results / REPORT,
        statistic=chosen.get("statistic", "iqm"),
        baseline=_baseline(chosen.get("baseline"), tasks),
        command=shlex.join(["python", "src/main.py", "experiments", experiment_set.name, "--report-only"]),
    )
    places = [("table, curves", results / REPORT), ("runs", page), *_replays(tasks)]
    return "\n".join([table.rstrip(), "", *(f"{what:<14} {path}" for what, path in places)])


def _record(task: Task) -> RunRecord:
    """The task's run under the names that the set gives it now; it may have been recorded under another label."""
    record = replace(read_run(task.run or Path()), setting=task.job.environment)
    return replace(record, config=record.config | {"label": task.job.values["label"]}) if record.config else record


def _baseline(name: str | None, tasks: Sequence[Task]) -> str | None:
    """The baseline's title in the table; ``None`` while no run of it is done."""
    for task in tasks:
        if task.job.algorithm == name and task.state == DONE:
            return task.job.title
    return None


def _replays(tasks: Sequence[Task]) -> list[tuple[str, Path]]:
    """One replay of each algorithm and environment, where there is one."""
    found: dict[tuple[str, str], Path] = {}
    for task in tasks:
        if task.run is not None and (task.run / REPLAY).is_file():
            found.setdefault((task.job.algorithm, task.job.environment), task.run / REPLAY)
    return [("replay", path) for path in found.values()]
