"""Plays greedy episodes and writes them down as plain values: what the replay page and the video draw.

The schema is in docs/replay.md; ``VERSION`` counts its changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from components.episode_buffer import EpisodeBatch, episode_fields
from components.errors import UserError
from controllers.base import Clock, Controller
from envs.base import AGENT_REWARD, TASK_FIELDS, TASK_REWARDS, EnvInfo, TaskInfo, VectorEnv
from modules.assignment import policies, relax_capacity
from modules.graph import distances
from runners.episode_runner import EpisodeRunner, Episodes

VERSION = 4
# With more agent-task pairs than this, decisions are not explained: nobody could read the matrices.
MATRIX_PAIRS = 2500
POSITION_DECIMALS, VALUE_DIGITS = 3, 4
POSITION = slice(0, 2)
# What ``explain`` tells of a decision; everything else that it tells is of a step.
OF_DECISIONS = ("scores", "prices", "regrets", "margin", "allowed")

Array = NDArray[Any]


class Knowing(Protocol):
    """Who knows what was behind the decisions: a controller, or a learner with the networks of training."""

    fields: tuple[str, ...]

    def explain(self, batch: EpisodeBatch) -> Mapping[str, Array]:
        """What to show, by name."""


def replay_fields(info: EnvInfo, knowing: Iterable[Knowing]) -> tuple[str, ...]:
    """What environments must observe to be replayed: what those who explain read, and the fields of the tasks.

    Raises:
        UserError: the environment has no tasks.
    """
    task_structure(info)
    return tuple(dict.fromkeys((*(name for part in knowing for name in part.fields), *TASK_FIELDS)))


def task_structure(info: EnvInfo) -> TaskInfo:
    """The environment's tasks.

    Raises:
        UserError: it has none.
    """
    if info.tasks is None:
        raise UserError("nothing to draw: the environment has no tasks with positions (as constrained_navigation has)")
    return info.tasks


def record_panel(
    envs: VectorEnv, controller: Controller, clock: Clock, about: Mapping[str, Any], knowing: Sequence[Knowing]
) -> dict[str, Any]:
    """Plays one greedy episode in each environment.

    Args:
        envs: observe :func:`replay_fields`.
        controller: decides; its random streams move on.
        clock: how far training was.
        about: what to say of the policy (``title``, ``algorithm``, ``settings``, ...); plain JSON values.
        knowing: the controller and who else explains the decisions.

    Returns:
        A panel of the replay page: plain JSON values, see docs/replay.md.
    """
    info = envs.info
    tasks = task_structure(info)
    # Not by envs.observation: single environments have observed nothing before their first episode.
    rewards = (*TASK_REWARDS, AGENT_REWARD)
    fields = episode_fields(info, replay_fields(info, knowing), rewards, controller.extra_fields())
    played = EpisodeRunner(envs, controller, fields).collect(clock, test_mode=True)
    arrays = {name: tensor.numpy() for name, tensor in played.batch.data.items()}
    explained: dict[str, Array] = {}
    if info.n_agents * tasks.n_tasks <= MATRIX_PAIRS:
        for part in knowing:
            explained |= part.explain(played.batch)
    return {
        "version": VERSION,
        **about,
        "n_agents": info.n_agents,
        "n_tasks": tasks.n_tasks,
        "agent_radius": tasks.agent_radius,
        "task_radius": tasks.task_radius,
        "half_width": tasks.half_width,
        "episode_limit": info.episode_limit,
        "assigns": "assign" in arrays,
        "choices": sorted(name for name, x in explained.items() if np.issubdtype(x.dtype, np.integer)),
        "episodes": [
            _episode({name: array[b] for name, array in arrays.items()}, {k: v[b] for k, v in explained.items()})
            | _outcome(played, b)
            for b in range(played.batch.batch_size)
        ],
    }


def _outcome(played: Episodes, b: int) -> dict[str, Any]:
    metrics = {name: float(values[b]) for name, values in played.metrics.items()}
    success = metrics.get("success", np.nan)
    return {
        "return": _short(played.returns[b]),
        "success": None if np.isnan(success) else bool(success),
        "metrics": {name: _short(value) for name, value in metrics.items() if not np.isnan(value)},
    }


def _episode(arrays: dict[str, Array], explained: dict[str, Array]) -> dict[str, Any]:
    """One episode; ``arrays`` are [T, ...], the last observed step included."""
    length = int(arrays["filled"].sum()) - 1
    seen, played = slice(0, length + 1), slice(0, length)
    episode: dict[str, Any] = {
        "length": length,
        "agents": _positions(arrays["agent_feats"][seen]),
        "tasks": _changes(_positions(arrays["task_feats"][seen])),
        "capacity": _changes(arrays["capacity"][seen].tolist()),
        "agent_alive": _changes(arrays["agent_alive"][seen].astype(int).tolist()),
        "task_alive": _changes(arrays["task_alive"][seen].astype(int).tolist()),
        "reward": _nested(arrays["reward"][played, 0]),
        "reward_high": _nested(arrays["reward_high"][played, 0]),
        "actions": arrays["actions"][played, :, 0].tolist(),
        "internals": {
            name: _nested(_of_living(x[played], arrays["agent_alive"][played]))
            for name, x in explained.items()
            if name not in OF_DECISIONS
        },
    }
    if "assign" not in arrays:
        return episode | {"earned": _nested(arrays[AGENT_REWARD][played]), "decisions": []}
    assign = arrays["assign"][played, :, 0]
    earned = np.take_along_axis(arrays["task_reward"][played], assign[..., None], -1)[..., 0]
    return episode | {
        "earned": _nested(earned),
        "assign": _changes(assign.tolist()),
        "low_actions": arrays["low_actions"][played, :, 0].tolist() if "low_actions" in arrays else [],
        "decisions": [_decision(arrays, explained, t) for t in np.flatnonzero(arrays["decide"][played, 0]).tolist()],
    }


def _decision(arrays: dict[str, Array], explained: dict[str, Array], t: int) -> dict[str, Any]:
    decision: dict[str, Any] = {"t": t, "least_distance": _least_distance(arrays, explained, t)}
    return decision | {name: _nested(values[t]) for name, values in explained.items() if name in OF_DECISIONS}


def _least_distance(arrays: dict[str, Array], explained: dict[str, Array], t: int) -> list[int]:
    """[N] the LP-distance assignment from the same state, -1 for dead agents and where no task lives."""
    masks = arrays["agent_alive"][t][None], arrays["task_alive"][t][None]
    here, there = (torch.from_numpy(arrays[name][t, None, :, POSITION]) for name in ("agent_feats", "task_feats"))
    capacity = explained["allowed"][t, None] if "allowed" in explained else arrays["capacity"][t, None]
    chosen = policies.lp_distance(distances(here, there).double().numpy(), relax_capacity(capacity, *masks), *masks)
    found: list[int] = chosen[0].tolist()
    return found


def _positions(features: Array) -> list[list[float]]:
    """[T, I, F] -> a row x, y, x, y, ... for each step."""
    rounded = np.round(features[..., POSITION].astype(np.float64), POSITION_DECIMALS)
    rows: list[list[float]] = rounded.reshape(len(features), -1).tolist()
    return rows


def _changes(rows: list[Any]) -> list[list[Any]]:
    """[[t, row], ...]: the first row, and each that differs from the one before."""
    return [[t, row] for t, row in enumerate(rows) if t == 0 or row != rows[t - 1]]


def _of_living(values: Array, alive: Array) -> Array:
    """``values`` [T, N, ...] with NaN where an agent is dead or absent."""
    told = values.astype(np.float64)
    told[~alive.astype(np.bool_)] = np.nan
    return told


def _nested(values: Array) -> Any:
    """Nested lists of short numbers; null for NaN."""
    return [_nested(row) for row in values] if values.ndim else _short(float(values))


def _short(value: float) -> float | int | None:
    """Four significant digits; ``None`` for what is not finite, which JSON does not have."""
    if not np.isfinite(value):
        return None
    short = float(f"{value:.{VALUE_DIGITS}g}")
    return int(short) if short.is_integer() else short
