"""What is measured of a trained run for tables and figures, as plain JSON values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from commands.evaluate import evaluated
from commands.trained import Trained, load_trained
from components.episode_buffer import episode_fields
from components.errors import UserError
from controllers.base import Array
from controllers.task_structure import Observed, distance_to_tasks
from envs.base import TASK_FIELDS, derive_seeds
from envs.vector import in_process
from modules.assignment import policies, relax_capacity
from parts import TEST_SEEDS
from replays import SMALL
from reproduction.specs import DECISIONS, EPISODES, EVENTS, PATH
from runners.episode_runner import EpisodeRunner, Episodes
from runners.replay import POSITION, replay_fields

Found = dict[str, Any]
DECIMALS = 5


def measure(kind: str, path: Path, overrides: Sequence[str], count: int) -> Found:
    """Measures one thing of a trained run.

    Args:
        kind: a key of :data:`MEASURES`.
        path: the run's folder.
        overrides: ``key=value`` texts of the setting.
        count: episodes, in environments seeded as the run's own test environments.

    Raises:
        UserError: overrides that do not fit, or nothing to measure.
    """
    return MEASURES[kind](path, overrides, count)


def _episodes(path: Path, overrides: Sequence[str], count: int) -> Found:
    """Means of all metrics of greedy episodes: the row of ``evaluate``."""
    return evaluated(path, overrides, (), count)


def _decisions(path: Path, overrides: Sequence[str], count: int) -> Found:
    """The first decision of each episode: scores, costs, assignments and features.

    Returns:
        Lists with one entry for each state: ``scores`` and ``costs`` (name ->) [N, M], ``assign`` and ``nearest`` [N]
        by the LP on the scores and on the distance, ``capacity`` [M], ``agent_feats``, ``task_feats``.
    """
    trained, played = _play(path, overrides, count)
    batch, controller = played.batch, trained.parts.controller
    scores = controller.explain(batch).get("scores")
    if scores is None:
        raise UserError(f"{path}: its assignments do not go by scores, so that there is nothing to show")
    seen = Observed(*(batch[name][:, 0] for name in TASK_FIELDS))
    distance = distance_to_tasks(seen).numpy()
    tasks = trained.parts.test.envs.info.tasks
    costs = {name: batch[name][:, 0].numpy() for name in (tasks.costs if tasks else ()) if name in batch}
    masks = seen.agent_alive.numpy().astype(bool), seen.task_alive.numpy().astype(bool)
    allowed = relax_capacity(seen.capacity.numpy(), *masks)
    return {
        "scores": _plain(scores[:, 0]),
        "costs": {name: _plain(values) for name, values in ({"distance": distance} | costs).items()},
        "assign": batch["assign"][:, 0, :, 0].tolist(),
        "nearest": policies.lp_distance(distance.astype(np.float64), allowed, *masks).tolist(),
        "capacity": seen.capacity.long().tolist(),
        "agent_feats": _plain(seen.agent_feats.numpy()),
        "task_feats": _plain(seen.task_feats.numpy()),
    }


def _path(path: Path, overrides: Sequence[str], count: int) -> Found:
    """Where agents are at each step of each episode, and which task each has."""
    trained, played = _play(path, overrides, count)
    tasks = trained.parts.test.envs.info.tasks
    if tasks is None or "assign" not in played.batch:
        raise UserError(f"{path}: its environment has no tasks with positions, so that there is nothing to draw")
    sizes = {"agent_radius": tasks.agent_radius, "task_radius": tasks.task_radius, "half_width": tasks.half_width}
    return {"episodes": [sizes | _episode(played, number) for number in range(played.batch.batch_size)]}


def _events(path: Path, overrides: Sequence[str], count: int) -> Found:
    """Each decision of each episode: who lives where, which task each agent is given.

    Returns:
        ``episodes``, each with ``success``, ``length`` and ``events``: lists with one entry for each decision of the
        step ``t``, places ``agents`` [N, 2] and ``tasks`` [M, 2], ``agent_alive``, ``task_alive``, ``assign``,
        ``capacity``, and ``health`` [M], the cost of that name, where the environment knows it.
    """
    _, played = _play(path, overrides, count)
    if "assign" not in played.batch:
        raise UserError(f"{path}: it assigns no tasks, so that there is nothing to draw")
    success = played.metrics.get("success", np.zeros(played.batch.batch_size))
    return {
        "episodes": [
            {
                "success": bool(success[number] > 0),
                "length": int(played.batch.lengths()[number]),
                "events": [_event(played, number, t) for t in played.batch["decide"][number, :, 0].nonzero()[:, 0]],
            }
            for number in range(played.batch.batch_size)
        ]
    }


def _event(played: Episodes, number: int, t: torch.Tensor) -> Found:
    now = {name: values[number, t] for name, values in played.batch.data.items()}
    health = {"health": _plain(now["health"][0].numpy())} if "health" in now else {}
    return health | {
        "t": int(t),
        "agents": _plain(now["agent_feats"][:, POSITION].numpy()),
        "tasks": _plain(now["task_feats"][:, POSITION].numpy()),
        "agent_alive": now["agent_alive"].bool().tolist(),
        "task_alive": now["task_alive"].bool().tolist(),
        "assign": now["assign"][:, 0].tolist(),
        "capacity": now["capacity"].long().tolist(),
    }


def _episode(played: Episodes, number: int) -> Found:
    batch = played.batch
    length = int(batch.lengths()[number])
    return {
        "position": _plain(batch["agent_feats"][number, : length + 1, :, :2].numpy()),
        "landmarks": _plain(batch["task_feats"][number, 0, :, :2].numpy()),
        "capacity": batch["capacity"][number, 0].long().tolist(),
        "assign": batch["assign"][number, :length, :, 0].tolist(),
        "success": bool(played.metrics.get("success", np.zeros(number + 1))[number] > 0),
    }


def _play(path: Path, overrides: Sequence[str], count: int) -> tuple[Trained, Episodes]:
    """One greedy episode in each of ``count`` environments that also show what they know of costs."""
    trained = load_trained(path, [*SMALL, *overrides])
    config, controller = trained.config, trained.parts.controller
    trained.parts.close()
    info = trained.parts.test.envs.info
    costs = info.tasks.costs if info.tasks else ()
    fields = tuple(dict.fromkeys((*replay_fields(info, [controller]), *costs)))
    envs = in_process(config.run.env, config.parts["env"], derive_seeds(config.run.seed, TEST_SEEDS, count), fields)
    try:
        runner = EpisodeRunner(envs, controller, episode_fields(info, fields, (), controller.extra_fields()))
        with torch.no_grad():
            return trained, runner.collect(trained.clock, test_mode=True)
    finally:
        envs.close()


def _plain(values: Array) -> Any:
    return np.round(values.astype(np.float64), DECIMALS).tolist()


MEASURES: dict[str, Callable[[Path, Sequence[str], int], Found]] = {
    EPISODES: _episodes,
    DECISIONS: _decisions,
    PATH: _path,
    EVENTS: _events,
}
