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
    REWARD,
    REWARD_HIGH,
    RULES,
    TERMINATED,
    TRUNCATED,
)
from envs.navigation_world import Views, World, present

Array = NDArray[Any]

_DIRECTIONS = np.array([[0.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])


def _apart(position: Array, agents: Array) -> tuple[Array, Array]:
    """Offsets [B, N, N, 2] and distances [B, N, N], infinite to oneself and to absent agents."""
    offset = position[:, :, None] - position[:, None]
    pairs = agents[:, :, None] & agents[:, None] & ~np.eye(position.shape[1], dtype=np.bool_)
    return offset, np.where(pairs, np.sqrt(np.square(offset).sum(-1)), np.inf)


def _move(world: World, rows: Array, agents: Array, actions: Array, contact: float) -> None:
    """One physics step; counts the overlapping pairs before it."""
    position, velocity = world.position[rows], world.velocity[rows]
    offset, distance = _apart(position, agents)
    depth = (contact - distance) / CONTACT_MARGIN
    scale = CONTACT_FORCE * CONTACT_MARGIN * np.logaddexp(0.0, depth) / np.where(distance > 0.0, distance, np.inf)
    pushes = world.push[rows][..., None] * _DIRECTIONS[actions] * agents[..., None]
    force = (scale[..., None] * offset).sum(2) + pushes
    overlaps = ((distance < contact) & (distance > 0.0)).sum((1, 2)) // 2
    world.position[rows] = position + DT * velocity
    world.velocity[rows] = (1.0 - DAMPING) * velocity + DT * force
    world.clock[rows] += np.stack([np.ones_like(overlaps), overlaps], 1)


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


def _count(world: World, rows: Array, now: Array) -> Array:
    """[B, M] agents that count for each landmark; ``now`` [B, N] says where each agent is."""
    before = world.at_landmark[rows]
    held = np.where((now == before) & (now >= 0), world.held[rows] + 1, 0)
    world.held[rows], world.at_landmark[rows] = held, now
    inside = now[..., None] == np.arange(world.landmark.shape[1])
    return (inside & (held[..., None] >= world.needed[rows])).sum(1)


def advance_worlds(world: World, outcome: Array, ended: Array, params: Array, actions: Array, active: Array) -> None:
    """Steps the active worlds and writes their outcome."""
    rows = np.flatnonzero(active)
    n, m = world.needed.shape[1:]
    agents, landmarks = present(world.sizes[rows], n, m)
    pairs, alive = agents[:, :, None] & landmarks[:, None], world.sizes[rows, 0]
    contact, occupancy, limit, rule = 2.0 * params[0], params[1], params[2], int(params[3])
    _move(world, rows, agents, actions[rows], contact)
    position = world.position[rows]
    between = np.sqrt(np.square(position[:, :, None] - world.landmark[rows, None]).sum(-1))
    distance = np.where(pairs, between, np.inf)
    now = np.where(distance.min(-1) < occupancy, distance.argmin(-1), -1)
    seen = world.visited[rows]
    reward = _reach_rewards(world.at_landmark[rows], now, seen, m, rule)
    world.visited[rows] = seen
    counts = _count(world, rows, now)
    if params[5] > 0.0:
        success = (counts == world.capacity[rows]).all(-1)
    else:
        success = ((distance < occupancy).any(1) | ~landmarks).all(-1)
    own = reward.sum(2)
    flat = own.sum(1) / alive
    if params[4] > 0.0:
        collisions = (_apart(position, agents)[1] < contact).sum(-1)
        reward -= np.where(pairs, DENSE_WEIGHT * (between + collisions[..., None]), 0.0)
        own -= np.where(agents, DENSE_WEIGHT * (distance.min(2) + collisions), 0.0)
        nearest = np.where(landmarks, distance.min(1), 0.0).sum(-1)
        flat -= DENSE_WEIGHT * (nearest + collisions.sum(-1)) / alive
    outcome[rows, REWARD] = 0.5 * success + 0.5 * flat
    outcome[rows, REWARD_HIGH] = success
    outcome[rows, N_OUTCOME:] = np.concatenate([reward.reshape(len(rows), n * m), own], 1)
    ended[rows, TERMINATED] = success
    ended[rows, TRUNCATED] = (world.clock[rows, 0] >= limit) & ~success


def observe_worlds(world: World, views: Views, with_capacity: bool, active: Array) -> None:
    """Fills the observed fields of the active worlds."""
    rows = np.flatnonzero(active)
    position, velocity, landmark = world.position[rows], world.velocity[rows], world.landmark[rows]
    b, n, m = len(rows), position.shape[1], landmark.shape[1]
    agents, landmarks = present(world.sizes[rows], n, m)
    own = np.concatenate([position, velocity], -1)
    share = world.capacity[rows] / world.sizes[rows, :1]
    agent_extra, task_extra = world.agent_extra[rows], world.task_extra[rows]
    if len(views.agent_feats):
        views.agent_feats[rows] = np.concatenate([own, agent_extra], -1)
        views.task_feats[rows] = np.concatenate([landmark, share[..., None], task_extra], -1)
    shown = share if with_capacity else share[:, :0]
    if len(views.state):
        parts = [own, landmark, shown, agent_extra, task_extra]
        views.state[rows] = np.concatenate([part.reshape(b, -1) for part in parts], -1)
    if len(views.obs):
        pairs = agents[:, :, None] & landmarks[:, None]
        to_landmarks = np.where(pairs[..., None], landmark[:, None] - position[:, :, None], 0.0).reshape(b, n, 2 * m)
        others = ~np.eye(n, dtype=np.bool_)
        both = (agents[:, :, None] & agents[:, None])[..., None]
        to_others = np.where(both, position[:, None] - position[:, :, None], 0.0)[:, others].reshape(b, n, 2 * (n - 1))
        flat = [np.broadcast_to(part.reshape(b, 1, -1), (b, n, part[0].size)) for part in (shown, task_extra)]
        parts = [velocity, position, to_landmarks, flat[0], to_others, agent_extra, flat[1]]
        views.obs[rows] = np.where(agents[..., None], np.concatenate(parts, -1), 0.0)


def step_worlds(
    world: World, views: Views, with_capacity: bool, outcome: Array, ended: Array, params: Array,
    actions: Array, active: Array,
) -> None:  # fmt: skip
    """``advance_worlds`` and ``observe_worlds``."""
    advance_worlds(world, outcome, ended, params, actions, active)
    observe_worlds(world, views, with_capacity, active)
