"""``python src/main.py experiments SET``: run what is missing of a set, then its table, curves and pages."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from commands.arguments import Parser, split_overrides
from components.command_line import show
from components.errors import UserError
from launchers.display import Display, LineDisplay, TableDisplay
from launchers.experiment_set import ExperimentSet, find_set, list_sets, read_set
from launchers.jobs import Job, make_jobs
from launchers.local import LocalLauncher, usable_cpus
from launchers.scheduler import run_tasks
from launchers.set_report import write_set_report
from launchers.tasks import DONE, FAILED, WAITING, Task, broken_runs, make_tasks
from reports.run_records import RunRecord, find_runs
from utils.logging import get_logger
from utils.run_lock import RunLock, lock_owner
from utils.signals import StopRequested

PROGRAM = (sys.executable, str(Path(__file__).resolve().parents[1] / "main.py"))
RESULTS = Path("results/experiments")
LOCK = "launcher.lock"


def main(argv: Sequence[str]) -> None:
    """Runs the set; prints its table and where everything is.

    Raises:
        UserError: wrong arguments or set; runs that failed, after the report of the others is written.
        StopRequested: stopped by a signal; the runs have saved their state.
    """
    parser = Parser(
        prog="main.py experiments",
        description="Runs what is missing of an experiment set on the cores of this machine, then writes its table,\n"
        "curves and pages. Finished runs are never repeated, stopped ones go on where they were: the same\n"
        "command goes on after Ctrl-C, a crash or a reboot. key=value after 'with' overrides options of all runs.\n\n"
        + list_sets(),
    )
    parser.add_argument("set", nargs="?", help="the set's file, or its name in benchmarks/")
    parser.add_argument("--jobs", type=int, help="runs at a time (default: the set's 'jobs', else the usable CPUs)")
    parser.add_argument("--results", type=Path, help=f"folder of the set's runs (default: {RESULTS}/<set>)")
    parser.add_argument("--retries", type=int, default=1, help="how often a run that crashed is continued (default: 1)")
    parser.add_argument("--dry-run", action="store_true", help="only list the runs, their state and command")
    parser.add_argument("--report-only", action="store_true", help="only write the report of what is finished")
    words, overrides = split_overrides(argv)
    arguments = parser.parse_args(words)
    if arguments.set is None:
        show(list_sets())
        return
    if arguments.retries < 0 or (arguments.jobs is not None and arguments.jobs < 1):
        raise UserError("--retries must be >= 0 and --jobs >= 1")
    experiment_set = read_set(find_set(arguments.set))
    results = arguments.results or RESULTS / experiment_set.name
    jobs = make_jobs(experiment_set, results, overrides)
    slots = arguments.jobs or experiment_set.jobs or usable_cpus()
    if arguments.dry_run:
        show(listing(make_tasks(jobs, results, _records(results)), slots))
    elif arguments.report_only:
        _report(experiment_set, results, make_tasks(jobs, results, _records(results)))
    else:
        _conclude(experiment_set, results, run_missing(jobs, results, slots, arguments.retries))


def run_missing(
    jobs: Sequence[Job], results: Path, slots: int, retries: int, program: Sequence[str] = PROGRAM
) -> list[Task]:
    """Runs what is missing, on this machine; only one launcher at a time may do so in a folder.

    Args:
        jobs: all runs of the set.
        results: its folder.
        slots: runs at a time.
        retries: how often a run that crashed is continued.
        program: the command before a run's arguments.

    Returns:
        What has become of each.

    Raises:
        UserError: another launcher is at work in the folder.
        StopRequested: stopped by a signal.
    """
    results.mkdir(parents=True, exist_ok=True)
    with _locked(results):
        records = _records(results)
        tasks = make_tasks(jobs, results, records)
        for note in broken_runs(records):
            get_logger().warning("%s", note)
        try:
            run_tasks(tasks, LocalLauncher(slots), program, retries, _display(slots))
        except StopRequested:
            print("stopped; the same command goes on", file=sys.stderr)
            raise
    return tasks


def listing(tasks: Sequence[Task], slots: int) -> str:
    """One block for each run: its name, state, folder and, where something is to be done, its command."""
    lines = []
    for task in tasks:
        where = f"  {task.run} ({task.env_steps:,} of {task.job.t_max:,} env steps)" if task.run else ""
        lines.append(f"{task.planned:<8} {task.job.name}{where}")
        if task.state == WAITING:
            lines.append(f"         {command_of(task)}")
    missing = sum(task.state != DONE for task in tasks)
    return "\n".join([*lines, f"{len(tasks)} runs, {missing} to be done, {slots} at a time"])


def command_of(task: Task) -> str:
    """What starts or continues the task's run."""
    return shlex.join(["python", os.path.relpath(PROGRAM[1]), *task.arguments])


def _locked(results: Path) -> RunLock:
    try:
        return RunLock(results, LOCK)
    except UserError as error:
        owner = lock_owner(results, LOCK)
        raise UserError(
            f"another launcher is at work in {results}: process {owner.get('pid', '?')} on "
            f"{owner.get('host', 'another host')}; wait for it, stop it, or give another folder with --results"
        ) from error


def _display(slots: int) -> Display:
    console = Console(stderr=True)
    return TableDisplay(console, slots) if console.is_terminal else LineDisplay(get_logger(), slots)


def _records(results: Path) -> list[RunRecord]:
    runs = results / "sacred"
    return find_runs(runs) if runs.is_dir() else []


def _conclude(experiment_set: ExperimentSet, results: Path, tasks: Sequence[Task]) -> None:
    """Reports what is done, then raises ``UserError`` for what is not: a fault of the one must not hide the other."""
    faults = []
    try:
        _report(experiment_set, results, tasks)
    except UserError as error:
        faults.append(str(error))
    faults += _unfinished(tasks)
    if faults:
        raise UserError("\n".join(faults))


def _report(experiment_set: ExperimentSet, results: Path, tasks: Sequence[Task]) -> None:
    if any(task.state == DONE for task in tasks):
        show(write_set_report(experiment_set, results, tasks))
    else:
        get_logger().warning("no run is done: there is nothing to report")


def _unfinished(tasks: Sequence[Task]) -> list[str]:
    unfinished = [task for task in tasks if task.state != DONE]
    if not unfinished:
        return []
    failed = sum(task.state == FAILED for task in unfinished)
    lines = [f"{failed} of {len(tasks)} runs failed, {len(unfinished) - failed} were stopped; the same command goes on"]
    for task in unfinished:
        lines.append(f"{task.job.name} {task.state}, log {task.log}")
        lines += [f"    {line}" for line in task.note.splitlines()]
    return lines
