"""Configuration: YAML layers and command line -> validated options of the framework and of each chosen part."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import Field, field_validator

from components.config_checks import ENV_PREFIX, Owner, chosen_parts, unknown_keys, validate
from components.config_layers import CONFIG_ROOT, Layer, default_layer, merge, override_layer, read_layers
from components.errors import UserError
from components.registry import Options

# Selector -> the registry in which its value is a name.
PARTS: dict[str, str] = {
    "env": "envs:REGISTRY",
    "runner": "runners:REGISTRY",
    "mac": "controllers:REGISTRY",
    "learner": "learners:REGISTRY",
    "agent": "modules.agents:REGISTRY",
    "critic": "modules.critics:REGISTRY",
    "mixer": "modules.mixers:REGISTRY",
}

_LARGEST_SEED = 2**32 - 1
# Stands in records where a secret was.
REDACTED = "[redacted]"


class RunOptions(Options):
    """The framework's own options; their values are in ``config/default.yaml``, so no field has a default."""

    name: str = Field(description="the algorithm's label in folder names and tables", min_length=1, max_length=100)
    label: str = Field(description="added to the folder names of the run", max_length=100)
    seed: int = Field(description="all random generators derive from it", ge=0, le=_LARGEST_SEED)
    env: str = Field(description="environment")
    env_args: dict[str, Any] = Field(description="options of the environment")
    runner: str = Field(description="how environments are stepped")
    mac: str | None = Field(description="controller: turns observations into actions")
    learner: str | None = Field(description="what is learned from the episodes")
    agent: str | None = Field(description="network of the controller")
    critic: str | None = Field(description="critic of the learner")
    mixer: str | None = Field(description="mixer of the agents' values")
    t_max: int = Field(description="environment steps of training", gt=0)
    batch_size_run: int = Field(description="environments stepped together; episodes collected per call", ge=1)
    buffer_size: int = Field(description="episodes in the replay buffer", ge=1)
    test_interval: int = Field(description="environment steps between evaluations", gt=0)
    test_nepisode: int = Field(description="episodes per evaluation during training; 0 = none", ge=0)
    final_nepisode: int = Field(description="greedy episodes of the final evaluation; 0 = none", ge=0)
    replay_nepisode: int = Field(
        description="episodes on the replay page at the end of the run; 0 = none", ge=0, le=200
    )
    log_interval: int = Field(description="environment steps between logged training metrics", gt=0)
    use_tensorboard: bool = Field(description="also write TensorBoard files")
    use_cuda: bool = Field(description="train on the GPU")
    torch_threads: int = Field(description="threads of PyTorch", ge=1, le=1024)
    save_model: bool = Field(description="save checkpoints")
    save_model_interval: int = Field(description="environment steps between checkpoints; 0 = only at the end", ge=0)
    save_buffer: bool = Field(description="checkpoints keep the replay buffer too, for runs that start from them")
    checkpoint_minutes: float = Field(
        description="minutes between full states for an exact resume; 0 = only when the run is stopped", ge=0
    )
    checkpoint_path: str = Field(description='checkpoint, or run (its newest), to start from; "" = none')
    evaluate: bool = Field(description="only evaluate, no training")
    local_results_path: str = Field(description="folder of all runs", min_length=1)

    @field_validator("name")
    @classmethod
    def _name_fits_a_folder(cls, value: str) -> str:
        # PyMARL2's names contain "=", as in "qmix_env=8_adam_td_lambda".
        return _folder_word(value, "_.-=+", "_ . - = +")

    @field_validator("label")
    @classmethod
    def _label_fits_a_folder(cls, value: str) -> str:
        return _folder_word(value, "_.-", "_ . -")


def _folder_word(value: str, allowed: str, shown: str) -> str:
    if value.startswith(".") or not re.fullmatch(rf"[A-Za-z0-9{re.escape(allowed)}]*", value):
        raise ValueError(f"expected letters, digits and {shown} only, not starting with a dot")
    return value


@dataclass(frozen=True)
class Config:
    """A validated configuration.

    Attributes:
        run: the framework's options; its ``env_args`` holds the environment's options with their defaults.
        parts: selector ("learner") -> options of the chosen part; a selector that is null is absent.
        values: what is recorded: every option of the framework and the parts, flat as in the files, with the
            environment's under ``env_args``; plain JSON values.
        sources: dotted key -> "config/algs/qmix.yaml:7", "command line" or "default of learner 'q_learner'".
        descriptions: dotted key -> one line.
        unused: one message for each key of a file that belongs to a part that was not chosen.
    """

    run: RunOptions
    parts: Mapping[str, Options]
    values: dict[str, Any]
    sources: dict[str, str]
    descriptions: dict[str, str]
    unused: tuple[str, ...] = ()


def load_config(
    config: str,
    env_config: str,
    overrides: Sequence[str | Layer] = (),
    root: Path = CONFIG_ROOT,
    parts: Mapping[str, str] = PARTS,
) -> Config:
    """Merges default file, environment file, algorithm file and command line, and validates the result.

    Args:
        config: name of a file in ``config/algs``, without ``.yaml``.
        env_config: name of a file in ``config/envs``.
        overrides: ``key=value`` texts, ``env_args.key=value`` for the environment; or layers, such as those of an
            experiment set, whose faults are told with their own file and line.
        root: the configuration folder.
        parts: selector -> ``"package:REGISTRY"``.

    Raises:
        UserError: everything that is wrong, one line each, sorted.
    """
    return _validated(read_layers(config, env_config, overrides, root), parts)


def recorded_config(
    values: Mapping[str, Any], source: str, overrides: Sequence[str] = (), parts: Mapping[str, str] = PARTS
) -> Config:
    """Validates a configuration that a run recorded (``Config.values``), with overrides.

    Options that the framework has got since then take their default.

    Args:
        values: flat keys, ``env_args`` nested.
        source: where they were read, for messages.
        overrides: ``key=value`` texts.
        parts: selector -> ``"package:REGISTRY"``.

    Raises:
        UserError: everything that is wrong, one line each, sorted; values that were not recorded because they are
            secret and are not given anew.
    """
    sources = dict.fromkeys([*values, *(ENV_PREFIX + key for key in values.get("env_args", {}))], source)
    recorded = Layer(dict(values), sources)
    merged = merge([default_layer(), recorded, *(override_layer(text) for text in overrides)])
    hidden = [key for key in merged.sources if REDACTED in str(_value_at(merged.values, key)) and key != "env_args"]
    if hidden:
        raise UserError("\n".join(f"{key} was not recorded, it is secret: give it after 'with'" for key in hidden))
    return _validated(merged, parts)


def _value_at(values: Mapping[str, Any], dotted: str) -> Any:
    found: Any = values
    for word in dotted.split("."):
        found = found.get(word) if isinstance(found, Mapping) else None
    return found


def _validated(merged: Layer, parts: Mapping[str, str]) -> Config:
    errors: list[str] = []
    framework = Owner("the framework", RunOptions)
    chosen = chosen_parts(merged, parts, errors)
    run = validate(framework, merged, errors)
    built = {key: validate(owner, merged, errors) for key, owner in chosen.owners.items()}
    unused = unknown_keys(framework, chosen, merged, parts, errors)
    _raise_all(errors)

    # No error was found, so every owner has its options.
    options = cast(dict[str, Options], built)
    record = _Record(merged)
    errors += record.add(framework, cast(RunOptions, run))
    for key, part in options.items():
        errors += record.add(chosen.owners[key], part)
    _raise_all(errors)
    run = cast(RunOptions, run).model_copy(update={"env_args": record.values["env_args"]})
    return Config(run, options, record.values, record.sources, record.descriptions, unused)


def _raise_all(errors: list[str]) -> None:
    if errors:
        raise UserError("\n".join(sorted(set(errors))))


class _Record:
    """Collects values, sources and descriptions of the framework and the parts."""

    def __init__(self, merged: Layer) -> None:
        self._given = merged.sources
        self.values: dict[str, Any] = {"env_args": {}}
        self.sources: dict[str, str] = {}
        self.descriptions: dict[str, str] = {}

    def add(self, owner: Owner, options: Options) -> list[str]:
        """Adds an owner's options; returns a message for each default that contradicts another owner's."""
        target = self.values["env_args"] if owner.prefix == ENV_PREFIX else self.values
        errors = []
        for key, value in options.model_dump(mode="json").items():
            dotted = owner.prefix + key
            if dotted == "env_args":
                continue
            source = self._given.get(dotted, f"default of {owner.label}")
            if dotted in self.sources and dotted not in self._given and target[key] != value:
                errors.append(
                    f"{dotted}: {self.sources[dotted]} is {target[key]!r} but {source} is {value!r}; give it a value"
                )
            target.setdefault(key, value)
            self.sources.setdefault(dotted, source)
            line = type(options).model_fields[key].description or ""
            self.descriptions[dotted] = self.descriptions.get(dotted) or line
        return errors
