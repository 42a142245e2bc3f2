"""The step of ``navigation_kernel`` in NumPy, for machines without Numba. Same functions, same arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.navigation_kernel import (
    CONTACT_FORCE,
    CONTACT_MARGIN,
    DAMPING,
    DENSE_WEIGHT,
    DT,
    N_OUTCOME,
    PUSH,
    REWARD,
    REWARD_HIGH,
    RULES,
    TERMINATED,
    TRUNCATED,
)

Array = NDArray[Any]

_PUSHES = np.array([[0.0, 0.0], [-PUSH, 0.0], [PUSH, 0.0], [0.0, -PUSH], [0.0, PUSH]])


def _move(position: Array, velocity: Array, actions: Array, contact: float) -> tuple[Array, Array, Array]:
    """Positions and velocities after one physics step, and the overlapping pairs before it."""
    n = position.shape[1]
    offset = position[:, :, None] - position[:, None]
    distance = np.sqrt(np.square(offset).sum(-1))
    distance[:, np.arange(n), np.arange(n)] = np.inf
    depth = (contact - distance) / CONTACT_MARGIN
    scale = CONTACT_FORCE * CONTACT_MARGIN * np.logaddexp(0.0, depth) / np.where(distance > 0.0, distance, np.inf)
    force = (scale[..., None] * offset).sum(2) + _PUSHES[actions]
    overlaps = ((distance < contact) & (distance > 0.0)).sum((1, 2)) // 2
    return position + DT * velocity, (1.0 - DAMPING) * velocity + DT * force, overlaps


def _reach_rewards(before: Array, now: Array, visited: Array, m: int, rule: int) -> Array:
    """[B, N, M] rewards for reaching a landmark; marks the landmarks reached in ``visited``."""
    inside = now[..., None] == np.arange(m)
    if rule == RULES["step"]:
        reward = inside.astype(np.float64)
    elif rule == RULES["delta"]:
        reward = inside.astype(np.float64) - (before[..., None] == np.arange(m))
    else:
        reward = (inside & ~visited).astype(np.float64)
    visited |= inside
    return reward


def step_worlds(
    position: Array, velocity: Array, landmark: Array, capacity: Array,
    obs: Array, state: Array, agent_feats: Array, task_feats: Array, with_capacity: bool,
    at_landmark: Array, visited: Array, clock: Array, outcome: Array, ended: Array, params: Array,
    actions: Array, active: Array,
) -> None:  # fmt: skip
    """Steps the active worlds, writes their outcome and fills their observed fields."""
    rows = np.flatnonzero(active)
    n, m = position.shape[1], landmark.shape[1]
    contact, occupancy, limit, rule = 2.0 * params[0], params[1], params[2], int(params[3])
    position[rows], velocity[rows], overlaps = _move(position[rows], velocity[rows], actions[rows], contact)
    clock[rows] += np.stack([np.ones_like(overlaps), overlaps], 1)
    distance = np.sqrt(np.square(position[rows, :, None] - landmark[rows, None]).sum(-1))
    now = np.where(distance.min(-1) < occupancy, distance.argmin(-1), -1)
    seen = visited[rows]
    reward = _reach_rewards(at_landmark[rows], now, seen, m, rule)
    visited[rows], at_landmark[rows] = seen, now
    counts = (now[..., None] == np.arange(m)).sum(1)
    success = (counts == capacity[rows]).all(-1)
    flat = reward.sum((1, 2)) / n
    if params[4] > 0.0:
        apart = np.sqrt(np.square(position[rows, :, None] - position[rows, None]).sum(-1)) + np.eye(n) * 1e9
        collisions = (apart < contact).sum(-1)
        reward -= DENSE_WEIGHT * (distance + collisions[..., None])
        flat -= DENSE_WEIGHT * (distance.min(1).sum(-1) + collisions.sum(-1)) / n
    outcome[rows, REWARD] = 0.5 * success + 0.5 * flat
    outcome[rows, REWARD_HIGH] = success
    outcome[rows, N_OUTCOME:] = reward.reshape(len(rows), n * m)
    ended[rows, TERMINATED] = success
    ended[rows, TRUNCATED] = (clock[rows, 0] >= limit) & ~success
    observe_worlds(position, velocity, landmark, capacity, obs, state, agent_feats, task_feats, with_capacity, active)


def observe_worlds(
    position: Array, velocity: Array, landmark: Array, capacity: Array,
    obs: Array, state: Array, agent_feats: Array, task_feats: Array, with_capacity: bool, active: Array,
) -> None:  # fmt: skip
    """Fills the observed fields of the active worlds."""
    rows = np.flatnonzero(active)
    b, n, m = len(rows), position.shape[1], landmark.shape[1]
    own = np.concatenate([position[rows], velocity[rows]], -1)
    share = capacity[rows] / n
    if len(agent_feats):
        agent_feats[rows] = own
        task_feats[rows] = np.concatenate([landmark[rows], share[..., None]], -1)
    if len(state):
        parts = [own.reshape(b, -1), landmark[rows].reshape(b, -1), share]
        state[rows] = np.concatenate(parts if with_capacity else parts[:2], -1)
    if len(obs):
        to_landmarks = (landmark[rows, None] - position[rows, :, None]).reshape(b, n, 2 * m)
        others = ~np.eye(n, dtype=bool)
        to_others = (position[rows, None] - position[rows, :, None])[:, others].reshape(b, n, 2 * (n - 1))
        shares = np.broadcast_to(share[:, None], (b, n, m))
        parts = [velocity[rows], position[rows], to_landmarks, shares, to_others]
        obs[rows] = np.concatenate(parts if with_capacity else [*parts[:3], parts[4]], -1)
