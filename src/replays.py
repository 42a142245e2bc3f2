"""Panels of the replay page from controllers, and the page that a run leaves at its end."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.checkpoint import load_into
from components.config import Config, recorded_config
from components.global_random import global_rng_state, load_global_rng_state
from controllers.base import Clock, Controller
from envs.base import derive_seeds
from envs.vector import in_process
from learners.base import Learner
from parts import Parts, build
from reports.replay_page import PAGE, write_replay_page
from runners.replay import record_panel, replay_fields
from utils.run_record import redact

# A stream of environment seeds of its own: replays show neither training nor test episodes.
REPLAY_SEEDS = 2
# Of the parts that come with a controller only the controller plays: the others are kept small.
SMALL = ("runner=episode", "batch_size_run=1", "test_nepisode=1")


def panel(
    config: Config,
    controller: Controller,
    clock: Clock,
    n_episodes: int,
    named: Sequence[str],
    learner: Learner | None = None,
) -> dict[str, Any]:
    """Greedy episodes of a controller on the page's form.

    The episodes depend on ``config.run.seed`` and the environment alone: policies of one seed start from the same
    states.

    Args:
        config: of the controller; its environment is played.
        controller: its random streams and what it keeps of episodes change.
        clock: how far its training was.
        n_episodes: how many episodes, each in an environment of its own.
        named: keys of the options that the title shows.
        learner: with the networks of training, where it knows more than the controller.

    Raises:
        UserError: the environment has no tasks.
    """
    run = config.run
    probe = in_process(run.env, config.parts["env"], [0], ())
    knowing: list[Controller | Learner] = (
        [controller, learner] if learner is not None and learner.explains else [controller]
    )
    fields = replay_fields(probe.info, knowing)
    probe.close()
    envs = in_process(run.env, config.parts["env"], derive_seeds(run.seed, REPLAY_SEEDS, n_episodes), fields)
    shown = [str(config.values[key]) for key in named if key in config.values]
    about = {
        "title": f"{run.name} ({', '.join(shown)})" if shown else run.name,
        "algorithm": run.name,
        "settings": redact(config.parts["mac"].model_dump(mode="json")),
        "env": run.env,
        "env_args": redact(run.env_args),
        "env_steps": clock.env_steps,
        "seed": run.seed,
    }
    try:
        return record_panel(envs, controller, clock, about, knowing)
    finally:
        envs.close()


def other_overrides(config: Config, controller: Controller) -> list[str]:
    """The controller's ``reference`` as overrides, ``key=value`` texts; empty where the options are these already."""
    if all(config.values.get(key) == value for key, value in controller.reference.items()):
        return []
    return [f"{key}={value}" for key, value in controller.reference.items()]


def write_replay(run_folder: Path, parts: Parts, clock: Clock, config: Config) -> Path | None:
    """Writes the replay page of a run: the trained policy, beside its reference where it names one.

    Nothing that the run goes on with is changed: it plays in environments and with controllers of its own, and the
    random generators of the process are restored.

    Args:
        run_folder: where ``replay.html`` goes.
        parts: of the run; only the controller is copied.
        clock: how far the run is.
        config: of the run; ``replay_nepisode`` episodes are played.

    Returns:
        The page, or ``None`` where there is nothing to draw: no episodes asked for, or an environment without tasks.
    """
    count = config.run.replay_nepisode
    if count == 0 or parts.test.envs.info.tasks is None:
        return None
    state = global_rng_state()
    try:
        own = copy.deepcopy(parts.controller)
        named = tuple(own.reference)
        panels = [panel(config, own, clock, count, named, parts.learner)]
        overrides = other_overrides(config, own)
        if overrides:
            panels.append(_reference_panel(config, parts.controller, clock, count, overrides))
    finally:
        load_global_rng_state(state)
    return write_replay_page(run_folder / PAGE, panels)


def _reference_panel(
    config: Config, controller: Controller, clock: Clock, count: int, overrides: Sequence[str]
) -> dict[str, Any]:
    changed = recorded_config(config.values, "the run", [*SMALL, *overrides])
    parts = build(changed)
    try:
        load_into(parts.controller, controller.state_dict(), "controller")
        return panel(changed, parts.controller, clock, count, tuple(controller.reference))
    finally:
        parts.close()
