"""An experiment set: algorithms x environments x seeds, read from one YAML file of ``benchmarks/``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from components.config_layers import Layer
from components.errors import UserError
from components.registry import did_you_mean
from components.yaml_loader import LoadedYaml, load_yaml
from reports.scores import STATISTICS

SETS = Path(__file__).resolve().parents[2] / "benchmarks"

_KEYS = ["description", "algorithms", "environments", "seeds", "overrides", "report", "jobs"]
_REPORT_KEYS = ["metric", "statistic", "baseline"]
# Keys of a run that the set itself gives, and how.
SET_BY = {
    "seed": "the key 'seeds' of the set gives the seeds",
    "local_results_path": "--results gives the folder of the set",
    "label": "the names of the algorithms in the set label the runs",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
_LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Choice:
    """An algorithm or environment of a set.

    Attributes:
        name: what tables call it.
        config: a file of ``config/algs`` or ``config/envs``, without ``.yaml``.
        overrides: options on top of that file, each with its line in the set.
    """

    name: str
    config: str
    overrides: Layer


@dataclass(frozen=True)
class ExperimentSet:
    """What a file of ``benchmarks/`` says.

    Attributes:
        name: the file's name without ``.yaml``.
        source: the file, as messages show it.
        description: one line.
        algorithms: in the order of the file.
        environments: in the order of the file.
        seeds: of every pair of them.
        overrides: options of all runs; those of an environment, then those of an algorithm, win over them.
        report: ``metric``, ``statistic`` and ``baseline`` as far as given.
        jobs: runs at a time; ``None`` leaves it to the launcher.
    """

    name: str
    source: str
    description: str
    algorithms: tuple[Choice, ...]
    environments: tuple[Choice, ...]
    seeds: tuple[int, ...]
    overrides: Layer
    report: dict[str, str] = field(default_factory=dict)
    jobs: int | None = None


def read_set(path: Path) -> ExperimentSet:
    """Reads a set's file.

    Raises:
        UserError: everything that is wrong with it, one line each, with file and line.
    """
    return _Reader(path).read()


def find_set(given: str, folder: Path = SETS) -> Path:
    """The file of a set that is given as a path or by its name.

    Raises:
        UserError: there is no such file; the message lists the sets that are there.
    """
    for path in (Path(given), folder / given, folder / f"{given}.yaml"):
        if path.is_file():
            return path
    hint = did_you_mean(Path(given).stem, [path.stem for path in _set_files(folder)])
    raise UserError(f"no experiment set {given!r}{hint}\n{list_sets(folder)}")


def list_sets(folder: Path = SETS) -> str:
    """The sets of a folder, one line each, with their descriptions."""
    lines = [f"  {path.stem:<16} {_description(path)}" for path in _set_files(folder)]
    return "\n".join([f"experiment sets in {folder.name}/:", *(lines or ["  (none)"])])


def _set_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.yaml"))


def _description(path: Path) -> str:
    try:
        return str(load_yaml(path).values.get("description", ""))
    except UserError as error:
        return f"cannot be read: {error}"


class _Reader:
    """Checks one file and collects all its faults."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._shown = path.as_posix()
        self._loaded: LoadedYaml = load_yaml(path, self._shown)
        self._errors: list[str] = []

    def read(self) -> ExperimentSet:
        values = self._loaded.values
        self._known(values, "", _KEYS)
        missing = [key for key in ("algorithms", "environments", "seeds") if key not in values]
        self._errors += [f"{self._shown}: the key {key!r} is missing" for key in missing]
        if not _NAME.fullmatch(self._path.stem):
            self._errors.append(f"{self._shown}: the file's name names folders: use letters, digits and _ . -")
        algorithms = self._choices("algorithms", ["config", "overrides", "grid"])
        environments = self._choices("environments", ["config", "overrides", "env_args"])
        found = ExperimentSet(
            name=self._path.stem,
            source=self._shown,
            description=self._text("description"),
            algorithms=algorithms,
            environments=environments,
            seeds=self._seeds(),
            overrides=self._overrides("overrides"),
            report=self._report([choice.name for choice in algorithms]),
            jobs=self._jobs(),
        )
        if self._errors:
            raise UserError("\n".join(self._errors))
        return found

    def _choices(self, key: str, keys: list[str]) -> tuple[Choice, ...]:
        given = self._loaded.values.get(key, ["-"])
        if isinstance(given, list) and given and all(isinstance(name, str) for name in given):
            if len(set(given)) < len(given):
                self._fault(key, "names one twice")
            return tuple(Choice(name, name, Layer({}, {})) for name in given)
        if isinstance(given, dict) and given:
            made = [self._choice(f"{key}.{name}", name, entry, keys) for name, entry in given.items()]
            return tuple(each for choice in made for each in self._on_grid(f"{key}.{choice.name}", choice))
        self._fault(key, "expected a list of names of configurations, or a mapping name: {config: NAME, ...}")
        return ()

    def _choice(self, dotted: str, name: str, entry: Any, keys: list[str]) -> Choice:
        if not _NAME.fullmatch(name):
            self._fault(dotted, "names folders: use letters, digits and _ -")
        self._known(entry if isinstance(entry, dict) else (), f"{dotted}.", keys)
        if not isinstance(entry, dict) or not isinstance(entry.get("config"), str):
            self._fault(dotted, f"expected a mapping such as {{config: NAME}}; it may hold {', '.join(keys)}")
            return Choice(name, name, Layer({}, {}))
        overrides, env_args = self._overrides(f"{dotted}.overrides"), self._overrides(f"{dotted}.env_args")
        if env_args.values:
            line = self._where(f"{dotted}.env_args")
            sources = {f"env_args.{key}": source for key, source in env_args.sources.items()}
            twice = sorted(set(sources) & set(overrides.sources))
            self._errors += [f"{sources[key]}: {key} stands in overrides too" for key in twice]
            inner = overrides.values.get("env_args")
            both = {**(inner if isinstance(inner, dict) else {}), **env_args.values}
            overrides = Layer(
                {**overrides.values, "env_args": both}, {**overrides.sources, "env_args": line, **sources}
            )
        return Choice(name, entry["config"], overrides)

    def _on_grid(self, dotted: str, choice: Choice) -> list[Choice]:
        """The choice with every combination of the values of its ``grid``, named by them; itself without one."""
        grid = self._value(f"{dotted}.grid")
        if grid is None:
            return [choice]
        if not isinstance(grid, dict) or not all(_is_list_of_values(values) for values in grid.values()):
            self._fault(f"{dotted}.grid", "expected lists of different values, such as {lr: [5e-4, 1e-3]}")
            return [choice]
        for key in sorted(choice.overrides.values.keys() & grid.keys()):
            self._fault(f"{dotted}.grid.{key}", "stands in overrides too")
        sources = {key: self._where(f"{dotted}.grid.{key}") for key in grid}
        made = []
        for values in product(*grid.values()):
            name = "-".join([choice.name, *(f"{key}_{value}" for key, value in zip(grid, values, strict=True))])
            if not _NAME.fullmatch(name):
                self._fault(f"{dotted}.grid", f"{name!r} is to name a folder: use shorter or plainer values")
            layer = Layer(
                {**choice.overrides.values, **dict(zip(grid, values, strict=True))},
                {**choice.overrides.sources, **sources},
            )
            made.append(Choice(name, choice.config, layer))
        return made

    def _overrides(self, dotted: str) -> Layer:
        values = self._value(dotted)
        if values is None:
            return Layer({}, {})
        if not isinstance(values, dict):
            self._fault(dotted, "expected a mapping of options, such as {t_max: 1e6}")
            return Layer({}, {})
        for key in sorted(SET_BY.keys() & values.keys()):
            self._fault(f"{dotted}.{key}", f"does not belong here: {SET_BY[key]}")
        prefix = f"{dotted}."
        inside = [key for key in self._loaded.lines if key.startswith(prefix)]
        return Layer(values, {key.removeprefix(prefix): self._where(key) for key in inside})

    def _seeds(self) -> tuple[int, ...]:
        given = self._loaded.values.get("seeds", 1)
        if type(given) is int and given >= 1:
            return tuple(range(1, given + 1))
        if (
            isinstance(given, list)
            and given
            and all(type(seed) is int and 0 <= seed <= _LARGEST_SEED for seed in given)
        ):
            if len(set(given)) < len(given):
                self._fault("seeds", "names a seed twice")
            return tuple(given)
        self._fault("seeds", "expected how many (3 means 1, 2, 3) or a list of integers >= 0, such as [1, 2, 3]")
        return ()

    def _report(self, algorithms: list[str]) -> dict[str, str]:
        given = self._loaded.values.get("report", {})
        if not isinstance(given, dict):
            self._fault("report", f"expected a mapping with {', '.join(_REPORT_KEYS)}")
            return {}
        self._known(given, "report.", _REPORT_KEYS)
        for key, value in given.items():
            if not isinstance(value, str):
                self._fault(f"report.{key}", "expected a name")
            elif key == "statistic" and value not in STATISTICS:
                self._fault("report.statistic", f"unknown statistic {value!r}{did_you_mean(value, STATISTICS)}")
            elif key == "baseline" and value not in algorithms:
                self._fault(
                    "report.baseline", f"{value!r} is not among the algorithms{did_you_mean(value, algorithms)}"
                )
        return given

    def _jobs(self) -> int | None:
        given = self._loaded.values.get("jobs")
        if given is None or (type(given) is int and given >= 1):
            return given
        self._fault("jobs", "expected how many runs go on at a time, an integer >= 1")
        return None

    def _text(self, key: str) -> str:
        given = self._loaded.values.get(key, "")
        if not isinstance(given, str):
            self._fault(key, "expected a text")
        return str(given).strip()

    def _value(self, dotted: str) -> Any:
        found: Any = self._loaded.values
        for word in dotted.split("."):
            found = found.get(word) if isinstance(found, Mapping) else None
        return found

    def _known(self, entry: Iterable[str], prefix: str, keys: list[str]) -> None:
        for key in entry:
            if key not in keys:
                self._errors.append(
                    f"{self._where(prefix + key)}: unknown key {prefix + key!r}{did_you_mean(key, keys)}"
                )

    def _fault(self, dotted: str, message: str) -> None:
        self._errors.append(f"{self._where(dotted)}: {dotted}: {message}")

    def _where(self, dotted: str) -> str:
        return f"{self._shown}:{self._loaded.lines[dotted]}"


def _is_list_of_values(given: Any) -> bool:
    """Whether these are values to choose from, no two the same."""
    plain = isinstance(given, list) and all(isinstance(value, int | float | str) for value in given)
    return plain and len(given) > 0 and len({str(value) for value in given}) == len(given)
