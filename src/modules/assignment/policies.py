"""High-level policies that learn nothing, and measures that compare assignments.

Each function is pure and batched. An index of -1 means "no task". Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modules.assignment.problem import make_problem
from modules.assignment.solution import one_hot
from modules.assignment.solvers import solve

Index = NDArray[np.int64]


def lp_distance(
    distance: ArrayLike, capacity: ArrayLike, agent_mask: ArrayLike, task_mask: ArrayLike, solver: str = "auto"
) -> Index:
    """The feasible assignment with the least total distance: LPMARL with c_ij = -d_ij, nothing learned.

    Args:
        distance: [B, N, M].
        capacity: [M] or [B, M].
        agent_mask: [B, N] bool.
        task_mask: [B, M] bool.
        solver: name in ``SOLVERS``.

    Returns:
        [B, N] task of each agent.
    """
    return solve(make_problem(-np.asarray(distance, np.float64), capacity, agent_mask, task_mask), solver).index


def greedy(distance: ArrayLike, agent_mask: ArrayLike, task_mask: ArrayLike) -> Index:
    """Each agent goes to its nearest living task (lowest index on ties), whatever the capacities.

    Args:
        distance: [B, N, M].
        agent_mask: [B, N] bool.
        task_mask: [B, M] bool.

    Returns:
        [B, N] task of each agent.
    """
    tasks = np.asarray(task_mask, np.bool_)
    out = ~np.asarray(agent_mask, np.bool_) | ~tasks.any(1, keepdims=True)
    if tasks.shape[1] == 0:
        return np.full(out.shape, -1, np.int64)
    nearest = np.where(tasks[:, None, :], distance, np.inf).argmin(2)
    return np.where(out, -1, nearest).astype(np.int64)


def random_feasible(
    rng: np.random.Generator, capacity: ArrayLike, agent_mask: ArrayLike, task_mask: ArrayLike, solver: str = "auto"
) -> Index:
    """A random assignment that keeps the capacities: the LP on scores uniform in [0, 1).

    Args:
        rng: source of the scores; B * N * M numbers are drawn whatever the masks.
        capacity: [M] or [B, M].
        agent_mask: [B, N] bool.
        task_mask: [B, M] bool.
        solver: name in ``SOLVERS``.

    Returns:
        [B, N] task of each agent.
    """
    agents, tasks = np.asarray(agent_mask, np.bool_), np.asarray(task_mask, np.bool_)
    scores = rng.random((*agents.shape, tasks.shape[1]))
    return solve(make_problem(scores, capacity, agents, tasks), solver).index


def agreement(index: Index, reference: Index, agent_mask: ArrayLike) -> NDArray[np.float64]:
    """[B] share of living agents with the same task in both; 1 in a state where no agent lives."""
    living = np.asarray(agent_mask, np.bool_)
    count = living.sum(1)
    same = ((index == reference) & living).sum(1)
    return np.where(count > 0, same / np.maximum(count, 1), 1.0)


def distance_ratio(index: Index, reference: Index, distance: ArrayLike, agent_mask: ArrayLike) -> NDArray[np.float64]:
    """[B] total distance of ``index`` over that of ``reference`` (1 is as good, more is worse).

    Agents without a task in either assignment are left out. 1 where both totals are 0 (so also where no agent
    lives), infinite where only the reference's is.
    """
    counted = np.asarray(agent_mask, np.bool_) & (index >= 0) & (reference >= 0)
    own, other = (_total(chosen, np.asarray(distance, np.float64), counted) for chosen in (index, reference))
    ratio = np.where(own > 0.0, np.inf, 1.0)
    return np.divide(own, other, out=ratio, where=other > 0.0)


def capacity_violations(index: Index, capacity: ArrayLike) -> Index:
    """[B] number of agents beyond the capacity of their task; a fractional k counts as floor(k).

    Args:
        index: [B, N].
        capacity: [M] or [B, M]; put 0 for dead tasks to count agents sent there.
    """
    places = np.floor(np.asarray(capacity, np.float64))
    load = one_hot(index, places.shape[-1]).sum(1)
    return np.maximum(load - places, 0.0).sum(1).astype(np.int64)


def _total(index: Index, distance: NDArray[np.float64], counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    if distance.shape[2] == 0:
        return np.zeros(len(distance))
    each = np.take_along_axis(distance, np.maximum(index, 0)[:, :, None], 2)[:, :, 0]
    return np.where(counted, each, 0.0).sum(1)
