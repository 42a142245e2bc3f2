"""A trained controller in any setting: the configuration comes with the checkpoint, overrides change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.checkpoint import load_into, require_same
from components.checkpoint_folders import load_model
from components.config import Config, recorded_config
from components.errors import UserError
from controllers.base import Clock
from parts import Parts, build
from utils.logging import get_logger


@dataclass
class Trained:
    """A trained controller among freshly built parts; the caller closes ``parts``.

    Attributes:
        folder: the checkpoint.
        meta: what its manifest says (algorithm, env, seed, commit, env_steps).
        config: the recorded configuration with the overrides.
        parts: with the controller's networks loaded; the test environments start from ``config.run.seed``.
        clock: when the checkpoint was saved.
        learner: what the checkpoint holds of the learner.
    """

    folder: Path
    meta: dict[str, Any]
    config: Config
    parts: Parts
    clock: Clock
    learner: Mapping[str, Any]


def load_trained(path: Path, overrides: Sequence[str] = ()) -> Trained:
    """Builds what the checkpoint's run was made of, with overrides, and loads its networks.

    Args:
        path: a run's folder (its newest checkpoint is taken) or a checkpoint's.
        overrides: ``key=value`` texts, such as ``seed=7``, ``env_args.n_agents=10`` or ``high_policy=lp_distance``.

    Raises:
        UserError: no sound checkpoint there, or overrides that it does not fit.
    """
    folder, checkpoint = load_model(path, get_logger().warning)
    config = recorded_config(checkpoint.meta["config"], f"{folder}", overrides)
    require_same(checkpoint.meta["config"], config.values, ("mac", "agent"))
    parts = build(config)
    try:
        load_into(parts.controller, checkpoint.state["controller"], "controller")
    except UserError as error:
        parts.close()
        raise UserError(f"{error}{_changed(checkpoint.meta['config'], config)}") from error
    except BaseException:
        parts.close()
        raise
    position = checkpoint.state["position"]
    clock = Clock(position["env_steps"], position["episodes"], config.run.t_max)
    return Trained(folder, checkpoint.meta, config, parts, clock, checkpoint.state["learner"])


def _changed(trained: dict[str, Any], config: Config) -> str:
    """What the overrides changed of the environment, as the end of a message; nothing where they did not touch it."""
    before, now = trained.get("env_args", {}), config.values["env_args"]
    changed = [
        f"env_args.{key} = {value} (trained with {before[key]})"
        for key, value in now.items()
        if key in before and value != before[key]
    ]
    if not changed:
        return ""
    return (
        f"\nHere {', '.join(changed)}. An agent that reads `obs` plays at the size that it was trained at; agents on "
        "graphs, such as LPMARL's, take any number of agents and tasks."
    )
