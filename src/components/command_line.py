"""The command line: PyMARL's ``--config=``, ``--env-config=`` and ``with key=value``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from components.config import Config, RunOptions
from components.config_layers import CONFIG_ROOT, algorithm_names, environment_names
from components.config_messages import expectation
from components.errors import UserError
from components.registry import did_you_mean
from components.yaml_loader import load_yaml

_DEFAULTS = {"--config": "lpmarl", "--env-config": "constrained_navigation"}
_NO_COMMANDS: Mapping[str, str] = {}
_WORDS = ["--config", "--env-config", "--help", "-h", "print_config", "with"]


@dataclass(frozen=True)
class Command:
    """What the command line asks for.

    Attributes:
        action: run, show the configuration, or show the help.
        config: name of a file in ``config/algs``.
        env_config: name of a file in ``config/envs``.
        overrides: the ``key=value`` texts after ``with``.
    """

    action: Literal["run", "print_config", "help"]
    config: str
    env_config: str
    overrides: list[str] = field(default_factory=list)


def parse(argv: Sequence[str], commands: Iterable[str] = ()) -> Command:
    """Reads the arguments after the program's name.

    Args:
        argv: the arguments of a run, or of one of its relatives ``print_config`` and ``--help``.
        commands: the other commands, for the hint after a mistyped word.

    Raises:
        UserError: unknown or repeated flag, flag without value, ``key=value`` before ``with``.
    """
    cut = list(argv).index("with") if "with" in argv else len(argv)
    words, overrides = list(argv[:cut]), list(argv[cut + 1 :])
    if {"--help", "-h"} & set(argv):
        return Command("help", _DEFAULTS["--config"], _DEFAULTS["--env-config"])
    misplaced = [word for word in overrides if word.startswith("-") or word in _WORDS]
    if misplaced:
        raise UserError(f"{misplaced[0]!r} stands after 'with': only key=value may follow it")
    action: Literal["run", "print_config"] = "run"
    flags: dict[str, str] = {}
    remaining = iter(words)
    for word in remaining:
        if word == "print_config":
            action = "print_config"
        else:
            _take_flag(word, remaining, flags, [*_WORDS, *commands])
    chosen = _DEFAULTS | flags
    return Command(action, chosen["--config"], chosen["--env-config"], overrides)


def _take_flag(word: str, remaining: Iterable[str], flags: dict[str, str], known: list[str]) -> None:
    flag, equals, value = word.partition("=")
    if flag not in _DEFAULTS:
        if equals and not flag.startswith("-"):
            raise UserError(f"{word!r}: write key=value after the word 'with'")
        raise UserError(f"unknown argument {word!r}{did_you_mean(flag, known)}")
    if flag in flags:
        raise UserError(f"{flag} is given twice")
    if not equals:
        value = next(iter(remaining), "")
    if not value or (not equals and value.startswith("-")):
        raise UserError(f"{flag} needs a value: {flag}={_DEFAULTS[flag]}")
    flags[flag] = value


def help_text(commands: Mapping[str, str] = _NO_COMMANDS, root: Path = CONFIG_ROOT) -> str:
    """Usage, examples, other commands, algorithms and environments found in ``root``, the framework's options."""
    defaults = _default_values(root)
    rows = [
        (key, json.dumps(defaults[key]) if key in defaults else "", info.description or "", expectation(info))
        for key, info in RunOptions.model_fields.items()
    ]
    table = _aligned([("option", "default", "meaning", "accepts"), *rows])
    config, env_config = _DEFAULTS["--config"], _DEFAULTS["--env-config"]
    return f"""usage: python src/main.py [--config=NAME] [--env-config=NAME] [print_config] [with KEY=VALUE ...]

  --config=NAME      algorithm, a file of config/algs (default {config})
  --env-config=NAME  environment, a file of config/envs (default {env_config})
  print_config       show every option with its value, source and meaning; run nothing
  with KEY=VALUE     override options; env_args.KEY=VALUE for those of the environment
  -h, --help         show this text

examples:
  python src/main.py
  python src/main.py --config={config} --env-config={env_config} with seed=2 t_max=1e6
  python src/main.py --config={config} print_config with env_args.n_agents=5

other commands (python src/main.py COMMAND --help):
{_aligned(list(commands.items()))}

algorithms (config/algs):
  {_list(algorithm_names(root))}

environments (config/envs):
  {_list(environment_names(root))}

options of the framework (print_config also shows those of the chosen parts):
{table}"""


def format_config(config: Config) -> str:
    """A table of every option: key, value, source, description; then the keys of files that are not used."""
    rows = [
        (dotted, json.dumps(_value(config, dotted), ensure_ascii=False), source, config.descriptions[dotted])
        for dotted, source in config.sources.items()
    ]
    table = _aligned([("key", "value", "source", "description"), *rows])
    return "\n".join([table, *(["", *config.unused] if config.unused else [])])


def _value(config: Config, dotted: str) -> Any:
    outer, _, inner = dotted.partition(".")
    return config.values[outer][inner] if inner else config.values[outer]


def _default_values(root: Path) -> dict[str, Any]:
    try:
        return load_yaml(root / "default.yaml").values
    except UserError:
        # The help must not fail over the file that it may be asked about.
        return {}


def _list(names: list[str]) -> str:
    return ", ".join(names) or "(none)"


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def show(text: str) -> None:
    """Prints a long text; a reader that has seen enough (``| head``) is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Nothing may be flushed to it at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
