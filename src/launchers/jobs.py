"""The runs of an experiment set: their commands, and the runs on disk that are already theirs."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from components.config import load_config
from components.config_layers import CONFIG_ROOT
from components.errors import UserError
from components.yaml_loader import parse_value
from launchers.experiment_set import SET_BY, Choice, ExperimentSet
from reports.run_records import BROKEN, COMPLETED, RUNNING, RunRecord
from utils.run_record import redact, run_folder

# Where files lie, how runs are called, how often a full state is saved and the pages beside a run change no result; the
# device changes its last digits, as another version of PyTorch does.
# Everything else is compared, also what decides which measurements and models a run leaves (test_interval, save_model).
IGNORED = ("local_results_path", "label", "use_tensorboard", "checkpoint_minutes", "replay_nepisode", "use_cuda")


@dataclass(frozen=True)
class Job:
    """One run of a set.

    Attributes:
        algorithm: the set's name for it.
        environment: the set's name for it.
        seed: the run's seed.
        arguments: what follows the program's name on the command line.
        values: the validated configuration (``Config.values``).
        assumed: dotted keys that nobody gave a value: they have the default of the code.
    """

    algorithm: str
    environment: str
    seed: int
    arguments: tuple[str, ...]
    values: dict[str, Any]
    assumed: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """Names the job in messages and log files."""
        return f"{self.algorithm}_{self.environment}_seed{self.seed}"

    @property
    def t_max(self) -> int:
        """Environment steps at the end."""
        return int(self.values["t_max"])

    @property
    def key(self) -> str:
        """Equal for two runs whose results must be equal."""
        return result_key(self.values)

    @property
    def title(self) -> str:
        """What folders and tables call the algorithm: its name, with the label where there is one."""
        return "_".join(filter(None, (self.values["name"], self.values["label"])))

    @property
    def folder(self) -> Path:
        """Where a new run of this job gets its numbered folder."""
        return run_folder(Path(self.values["local_results_path"]), self.values["env"], self.title)


def result_key(values: Mapping[str, Any], ignored: Container[str] = IGNORED) -> str:
    """The part of a configuration that a run's result depends on, as canonical text; secrets are left out."""
    return json.dumps({key: redact(value, key) for key, value in values.items() if key not in ignored}, sort_keys=True)


def make_jobs(
    experiment_set: ExperimentSet, results: Path, overrides: Sequence[str] = (), root: Path = CONFIG_ROOT
) -> list[Job]:
    """All runs of a set, each with its validated configuration; the first seed of every pair comes first.

    Args:
        experiment_set: see :func:`launchers.experiment_set.read_set`.
        results: the folder of the set's runs.
        overrides: ``key=value`` texts on top of everything.
        root: the configuration folder.

    Raises:
        UserError: everything that is wrong with any of them, one line each.
    """
    given = [(text, text.partition("=")[0]) for text in overrides]
    faults = [f"{text!r} (command line): {SET_BY[key]}" for text, key in given if key in SET_BY]
    places: dict[str, list[str]] = {}  # message -> where
    jobs = []
    for seed in experiment_set.seeds:
        for environment in experiment_set.environments:
            for algorithm in experiment_set.algorithms:
                made = _attempt(partial(_job, experiment_set, algorithm, environment, seed, results, overrides, root))
                if isinstance(made, Job):
                    jobs.append(made)
                else:
                    for line in made:
                        places.setdefault(line, []).append(f"{algorithm.name} on {environment.name}")
    faults += [f"{_listed(where)}: {line}" for line, where in places.items()]
    faults += _same(jobs, experiment_set.source)
    if faults:
        raise UserError("\n".join(faults))
    return jobs


def _attempt(make: Callable[[], Job]) -> Job | list[str]:
    """A job, or what is wrong with it."""
    try:
        return make()
    except UserError as error:
        return str(error).splitlines()


def _listed(places: Sequence[str]) -> str:
    """``"qmix on small and 3 more"``; a pair counts once, not once for each seed."""
    first, *others = dict.fromkeys(places)
    return f"{first} and {len(others)} more" if others else first


def _same(jobs: Sequence[Job], source: str) -> list[str]:
    """Runs that are wanted twice, or that no table could tell apart."""
    owners: dict[str, Job] = {}
    cells: dict[str, Job] = {}
    twice: dict[tuple[str, ...], str] = {}
    in_one_cell: dict[tuple[str, ...], str] = {}
    for job in jobs:
        cell = json.dumps([job.values[key] for key in ("name", "label", "env", "env_args", "seed")], sort_keys=True)
        twin, neighbor = owners.setdefault(job.key, job), cells.setdefault(cell, job)
        other, found = (neighbor, in_one_cell) if twin is job else (twin, twice)
        if other is not job:
            # A pair counts once, not once for each seed.
            pair = (other.algorithm, other.environment, job.algorithm, job.environment)
            found.setdefault(pair, f"{other.name} and {job.name}")
    told = {
        "are the same run": twice,
        "would stand in one cell of the tables, since the environments have the same env_args; settings that differ "
        "otherwise belong to the algorithms": in_one_cell,
    }
    return [f"{source}: {_first_of(list(pairs.values()))} {what}" for what, pairs in told.items() if pairs]


def _first_of(pairs: Sequence[str]) -> str:
    """``"qmix_a_seed1 and qmix_b_seed1 (and 3 more pairs)"``."""
    more = len(pairs) - 1
    return pairs[0] if not more else f"{pairs[0]} (and {more} more {'pair' if more == 1 else 'pairs'})"


def _job(
    experiment_set: ExperimentSet,
    algorithm: Choice,
    environment: Choice,
    seed: int,
    results: Path,
    overrides: Sequence[str],
    root: Path,
) -> Job:
    layers = [experiment_set.overrides, environment.overrides, algorithm.overrides]
    given = (f"seed={seed}", f"local_results_path={_text(str(results))}", *overrides)
    config = load_config(algorithm.config, environment.config, (*layers, *given), root)
    strays = [message for message in config.unused if f"({experiment_set.source}:" in message]
    if strays:
        raise UserError("\n".join(strays))
    label = "" if algorithm.name == config.run.name else algorithm.name
    arguments = (
        f"--config={algorithm.config}",
        f"--env-config={environment.config}",
        "with",
        *(text for layer in layers for text in override_texts(layer.values)),
        *given,
        *([f"label={label}"] if label else []),
    )
    assumed = frozenset(key for key, source in config.sources.items() if source.startswith("default of "))
    return Job(algorithm.name, environment.name, seed, arguments, config.values | {"label": label}, assumed)


def override_texts(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The ``key=value`` texts of the command line that give these values, nested mappings with dotted keys."""
    texts = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            texts += override_texts(value, f"{prefix}{key}.")
        else:
            texts.append(f"{prefix}{key}={_text(value)}")
    return texts


def _text(value: Any) -> str:
    if isinstance(value, str) and value and parse_value(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def matching_run(job: Job, records: Iterable[RunRecord]) -> RunRecord | None:
    """The run on disk that is this job's: one that is done, else one that goes on, else the one that got furthest."""
    found = [record for record in records if record.status != BROKEN and _is_of(job, record.config)]
    order = {COMPLETED: 2, RUNNING: 1}
    return max(found, key=lambda record: (order.get(record.status, 0), record.env_steps), default=None)


def _is_of(job: Job, recorded: Mapping[str, Any]) -> bool:
    """Whether a recorded configuration is the job's; an option that came later counts as its default."""
    wanted, settings = job.values, recorded.get("env_args", {})
    later = {key: wanted[key] for key in job.assumed & wanted.keys() if key not in recorded}
    prefix = "env_args."
    for key in (key.removeprefix(prefix) for key in job.assumed if key.startswith(prefix)):
        if key not in settings:
            settings = settings | {key: wanted["env_args"][key]}
    return result_key({**recorded, **later, "env_args": settings}) == job.key


def newly_made_run(job: Job, known: set[Path]) -> Path | None:
    """The folder of a run of this job that has appeared since ``known`` was collected; ``None`` while it has not."""
    for folder in run_folders(job):
        if folder not in known:
            try:
                config = json.loads((folder / "config.json").read_bytes())
            except (OSError, ValueError):  # not written yet
                continue
            if isinstance(config, dict) and _is_of(job, config):
                return folder
    return None


def run_folders(job: Job) -> list[Path]:
    """The numbered folders beside which a new run of this job gets its own, newest first."""
    if not job.folder.is_dir():
        return []
    found = [path for path in job.folder.iterdir() if path.name.isdigit()]
    return sorted(found, key=lambda path: int(path.name), reverse=True)
