"""Test episodes to numbers: what a run reports about itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from components.episode_buffer import EpisodeBatch
from controllers.base import Clock
from modules.assignment import policies, relax_capacity
from runners.episode_runner import EpisodeRunner

# What `summary.json` always holds, null where it does not apply (no assignment, no success).
TEST_KEYS = ("success", "agreement", "distance_ratio", "steps_to_success", "capacity_violations")
POSITION = slice(0, 2)


def evaluate(
    runner: EpisodeRunner, clock: Clock, n_episodes: int, check_stop: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Plays greedy episodes and averages every metric over those it applies to: see :func:`greedy_episodes`."""
    return mean_metrics(greedy_episodes(runner, clock, n_episodes, check_stop))


def greedy_episodes(
    runner: EpisodeRunner, clock: Clock, n_episodes: int, check_stop: Callable[[], None] = lambda: None
) -> dict[str, NDArray[np.float64]]:
    """Plays greedy episodes.

    Args:
        runner: over the test environments; every call continues their own seeded sequence of episodes.
        clock: how far training is.
        n_episodes: how many; the runner plays whole rounds, the surplus is not counted.
        check_stop: called before each round; may raise to end the evaluation.

    Returns:
        [n_episodes] per metric, NaN where it does not apply: those of :data:`TEST_KEYS`, those of the environment,
        ``return`` and :func:`level_returns`.
    """
    rows: dict[str, list[NDArray[np.float64]]] = {}
    played = 0
    while played < n_episodes:
        check_stop()
        episodes = runner.collect(clock, test_mode=True)
        found = {"return": episodes.returns, **episodes.metrics, **level_returns(episodes.batch)}
        found |= assignment_metrics(episodes.batch)
        for name, values in found.items():
            rows.setdefault(name, []).append(values[: n_episodes - played])
        played += episodes.batch.batch_size
    return {name: np.concatenate(values) for name, values in rows.items()}


def mean_metrics(metrics: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    """Mean of each metric over the episodes that it applies to; metrics that apply to none are left out."""
    return {name: float(np.nanmean(values)) for name, values in metrics.items() if not np.isnan(values).all()}


def level_returns(batch: EpisodeBatch) -> dict[str, NDArray[np.float64]]:
    """[B] what each level earned, where the episodes hold it.

    - ``high_return``: sum of ``reward_high`` over the episode;
    - ``low_return``: sum of ``task_reward`` at the own task, each agent while it lives, mean over the agents that
      lived at the start.
    """
    found = {}
    if "reward_high" in batch:
        found["high_return"] = (batch["reward_high"] * batch["filled"]).double().sum((1, 2)).numpy()
    if "task_reward" in batch and "assign" in batch:
        alive = batch["agent_alive"] * batch["filled"]
        own = batch["task_reward"].gather(-1, batch["assign"]).squeeze(-1) * alive
        agents = batch["agent_alive"][:, 0].sum(-1).clamp(min=1)
        found["low_return"] = (own.double().sum((1, 2)) / agents).numpy()
    return found


def assignment_metrics(batch: EpisodeBatch) -> dict[str, NDArray[np.float64]]:
    """[B] measures of the assignment, where the episodes hold one.

    - ``agreement``: share of agents with the same task as under LP-distance, at the first decision;
    - ``distance_ratio``: total distance to the own tasks over LP-distance's, at the first decision;
    - ``capacity_violations``: agents beyond a task's capacity, mean over the episode's decisions.

    The first decision is the one that both would make from the same state; later ones depend on the first.
    """
    if "assign" not in batch:
        return {}
    first = {name: batch[name][:, 0].numpy() for name in ("agent_feats", "task_feats", "agent_alive", "task_alive")}
    offset = first["agent_feats"][:, :, None, POSITION] - first["task_feats"][:, None, :, POSITION]
    distance = np.sqrt(np.square(offset.astype(np.float64)).sum(-1))
    masks = first["agent_alive"], first["task_alive"]
    chosen = np.where(first["agent_alive"], batch["assign"][:, 0, :, 0].numpy(), -1)
    capacity = batch["capacity"].numpy()
    allowed = relax_capacity(capacity[:, 0], *masks)
    reference = policies.lp_distance(distance, allowed, *masks)
    return {
        "agreement": policies.agreement(chosen, reference, masks[0]),
        "distance_ratio": policies.distance_ratio(chosen, reference, distance, masks[0]),
        "capacity_violations": _mean_violations(batch),
    }


def _mean_violations(batch: EpisodeBatch) -> NDArray[np.float64]:
    """[B] agents beyond capacity, mean over the decisions of each episode."""
    decided = (batch["decide"][:, :-1].float() * batch.mask()).squeeze(-1)
    episode, step = torch.nonzero(decided, as_tuple=True)
    alive = batch["agent_alive"][episode, step]
    index = torch.where(alive, batch["assign"][episode, step].squeeze(-1), -1).numpy()
    beyond = policies.capacity_violations(index, batch["capacity"][episode, step].numpy())
    total = np.bincount(episode.numpy(), weights=beyond, minlength=batch.batch_size)
    return total / decided.sum(1).clamp(min=1).numpy()
