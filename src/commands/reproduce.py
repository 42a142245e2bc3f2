"""``python src/main.py reproduce table1``: run, measure and render what a table or figure of the paper needs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from commands.arguments import Parser, split_overrides
from commands.experiments import RESULTS, command_of, run_missing
from commands.measure import measure
from components.command_line import show
from components.errors import UserError
from components.registry import did_you_mean
from launchers.experiment_set import find_set, read_set
from launchers.jobs import Job, make_jobs
from launchers.local import usable_cpus
from launchers.tasks import DONE, FAILED, WAITING, Task, make_tasks
from reports.run_records import find_runs
from reproduction.artifacts import Artifact
from reproduction.catalog import ALL, ARTIFACTS, PLACES, TABLES
from reproduction.output import Output, about
from reproduction.paper import PaperNumbers, read_paper_numbers
from reproduction.points import Store, measure_missing
from reproduction.specs import Runs
from reproduction.study import Study
from utils.logging import get_logger
from utils.run_record import git_commit

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = Path("results/reproduction")
QUICK_OUTPUT = Path("results/reproduction_quick")
# So short that starting is most of a run's time; nothing is learned well.
QUICK = ("t_max=1600", "test_interval=800", "log_interval=800", "test_nepisode=16", "final_nepisode=30")

_EXAMPLES = """examples:
  python src/main.py reproduce table1
  python src/main.py reproduce fig2 fig7 --jobs 4
  python src/main.py reproduce all --quick
  python src/main.py reproduce table3 --env=sc2
  python src/main.py reproduce all --no-run

Runs and measurements that are there are never repeated: the same command goes on after Ctrl-C, and when nothing is
missing it only draws again. key=value after 'with' overrides options of all runs."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        names: as given.
        artifacts: what is to be made.
        results: the folder of the sets' folders.
        output: where tables and figures go.
        jobs: processes at a time; ``None``: the set's, else the usable CPUs.
        retries: how often a run that crashed is continued.
        run: run and measure what is missing.
        quick: one seed, short runs.
        overrides: ``key=value`` texts of all runs, those of ``quick`` first.
        given: those of the command line.
        arguments: all of them.
    """

    names: tuple[str, ...]
    artifacts: tuple[Artifact, ...]
    results: Path
    output: Path
    jobs: int | None
    retries: int
    run: bool
    quick: bool
    overrides: tuple[str, ...]
    given: tuple[str, ...]
    arguments: tuple[str, ...]

    @property
    def command(self) -> str:
        """As it is typed."""
        return shlex.join(["python", "src/main.py", "reproduce", *self.arguments])

    @property
    def label(self) -> str:
        """What sets its outputs apart from the full result."""
        changed = f"with {' '.join(self.given)}" if self.given else ""
        if not self.quick:
            return f"changed: {changed}" if changed else ""
        return " ".join(filter(None, ("quick: one seed and short runs, not a result", changed)))


def main(argv: Sequence[str]) -> None:
    """Runs, measures, renders; prints the files.

    Raises:
        UserError: wrong arguments; runs or measurements that are missing or failed, after the rest is rendered.
        StopRequested: stopped by a signal; the same command goes on.
    """
    request = read_request(argv)
    paper = read_paper_numbers(TABLES)
    tasks, faults = _run_sets(request)
    study = Study(Store(request.results), tasks)
    faults += _measure(request, study)
    files, unrendered = _render(request, study, paper)
    show("\n".join(str(path) for path in files))
    faults += unrendered + _missing(request, study)
    if faults:
        raise UserError("\n".join(faults))


def read_request(argv: Sequence[str]) -> Request:
    """The command line.

    Raises:
        UserError: wrong arguments, or a table or figure that is not there.
    """
    width = max(map(len, ARTIFACTS))
    known = "\n".join(f"  {name:<{width}}  {artifact.title}" for name, artifact in ARTIFACTS.items())
    parser = Parser(
        prog="main.py reproduce",
        description="Makes tables and figures: runs what is missing of their experiment sets, measures the trained\n"
        f"runs, writes Markdown, CSV, PNG and SVG. Tables and figures ('{ALL}' for all):\n{known}",
        epilog=_EXAMPLES,
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"what is to be made: see above, or {ALL}")
    parser.add_argument("--env", choices=PLACES, default=next(iter(PLACES)), help="where fights are played")
    parser.add_argument("--quick", action="store_true", help="one seed and short runs, in folders of their own")
    parser.add_argument("--no-run", action="store_true", help="only render what is there; what is missing is told")
    parser.add_argument(
        "--jobs", type=int, help="processes at a time (default: the set's 'jobs', else the usable CPUs)"
    )
    parser.add_argument("--retries", type=int, default=1, help="how often a run that crashed is continued (default: 1)")
    parser.add_argument("--results", type=Path, help=f"folder of the sets' folders (default: {RESULTS})")
    parser.add_argument("--output", type=Path, help=f"folder of tables and figures (default: {OUTPUT})")
    words, overrides = split_overrides(argv)
    given = parser.parse_args(words)
    if given.retries < 0 or (given.jobs is not None and given.jobs < 1):
        raise UserError("--retries must be >= 0 and --jobs >= 1")
    there = PLACES[given.env]
    for name in given.names:
        if name not in (*ARTIFACTS, ALL):
            raise UserError(f"unknown table or figure {name!r}{did_you_mean(name, [*ARTIFACTS, ALL])}")
        if name not in (*there, ALL):
            raise UserError(f"{name} cannot be made with --env={given.env}, which takes {', '.join(there)}")
    names = list(there) if ALL in given.names else given.names
    output = QUICK_OUTPUT if given.quick else OUTPUT
    return Request(
        tuple(given.names),
        tuple(there[name] for name in dict.fromkeys(names)),
        given.results or (QUICK_OUTPUT / "experiments" if given.quick else RESULTS),
        given.output or output,
        given.jobs,
        given.retries,
        not given.no_run,
        given.quick,
        (*(QUICK if given.quick else ()), *overrides),
        tuple(overrides),
        tuple(argv),
    )


def _run_sets(request: Request) -> tuple[dict[str, list[Task]], list[str]]:
    """Set -> its tasks that are needed, run where that is asked for; and what went wrong with whole sets."""
    needed: dict[str, list[Runs]] = {}
    for artifact in request.artifacts:
        for source in artifact.sources:
            needed.setdefault(source.runs.experiment_set, []).append(source.runs)
    tasks, faults = {}, []
    for name, runs in needed.items():
        found = _run_set(request, name, runs)
        if isinstance(found, str):
            faults.append(f"experiment set {name}: {found}")
        else:
            tasks[name] = found
    return tasks, faults


def _run_set(request: Request, name: str, runs: Sequence[Runs]) -> list[Task] | str:
    """The set's tasks, or what is wrong with it: one set must not keep the others from being run and rendered."""
    try:
        return _tasks_of_set(request, name, runs)
    except UserError as error:
        return str(error)


def _tasks_of_set(request: Request, name: str, runs: Sequence[Runs]) -> list[Task]:
    experiment_set = read_set(find_set(name))
    seeds = experiment_set.seeds[:1] if request.quick else experiment_set.seeds
    experiment_set = replace(experiment_set, seeds=seeds)
    results = request.results / name
    jobs = [job for job in make_jobs(experiment_set, results, request.overrides) if _needs(runs, job, seeds[0])]
    if not request.run:
        return make_tasks(jobs, results, find_runs(results / "sacred") if (results / "sacred").is_dir() else [])
    slots = request.jobs or experiment_set.jobs or usable_cpus()
    get_logger().info("experiment set %s: %d runs are needed", name, len(jobs))
    return run_missing(jobs, results, slots, request.retries)


def _needs(runs: Iterable[Runs], job: Job, first_seed: int) -> bool:
    return any(
        (own.algorithm, own.environment) == (job.algorithm, job.environment)
        and (not own.first_seed or job.seed == first_seed)
        for own in runs
    )


def _measure(request: Request, study: Study) -> list[str]:
    """Measures what is missing; what could not be measured, one line each."""
    missing = study.missing_points(source for artifact in request.artifacts for source in artifact.sources)
    if not missing:
        return []
    if not request.run:
        command = shlex.join(
            ["python", "src/main.py", "reproduce", *(word for word in request.arguments if word != "--no-run")]
        )
        return [f"{point.name} is missing: {command}" for point in missing]
    jobs = request.jobs or usable_cpus()
    failed = measure_missing(missing, study.store, measure, jobs, git_commit(ROOT))
    return [f"{point.name} failed: {failed[point.key]}" for point in missing if point.key in failed]


def _render(request: Request, study: Study, paper: PaperNumbers) -> tuple[list[Path], list[str]]:
    files, faults = [], []
    for artifact in request.artifacts:
        command = request.command
        output = Output(request.output, about(study, artifact.sources, command, request.label))
        try:
            artifact.render(study, paper, output)
        except UserError as error:
            faults.append(f"{artifact.name} was not made: {error}")
        except OSError as error:
            faults.append(f"{artifact.name} cannot be written into {request.output}: {error.strerror or error}")
        files += output.files
    return files, faults


def _missing(request: Request, study: Study) -> list[str]:
    """Runs that are not done, each with what is known and the command that produces it."""
    lines = []
    for name, tasks in study.tasks.items():
        for task in tasks:
            if task.state == DONE:
                continue
            state = task.planned.replace("new", "missing").replace("resume", "unfinished")
            log = f", log {task.log}" if task.state == FAILED else ""
            lines.append(f"{name}: {task.job.name} is {state}{log}")
            lines += [f"    {line}" for line in task.note.splitlines() if task.state != WAITING]
            lines.append(f"    {command_of(task)}")
    return lines
