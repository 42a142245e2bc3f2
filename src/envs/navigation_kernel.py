"""Compiled step of B navigation worlds. ``navigation_numpy`` holds the same step without Numba.

Physics of MPE's particle world (mpe2 ``World.step``): contact forces from the old positions, then
x <- x + dt v, then v <- (1 - damping) v + dt F / m, with m = 1.

Each function loops over the worlds itself: a call per world would spend more on its arguments than on its work.

Shape legend: B worlds, N agents, M landmarks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.jit import njit

DT = 0.1
DAMPING = 0.25
PUSH = 5.0
CONTACT_FORCE = 100.0
CONTACT_MARGIN = 1e-3
DENSE_WEIGHT = 0.1
# Columns of ``outcome`` before the N*M task rewards.
REWARD, REWARD_HIGH, N_OUTCOME = 0, 1, 2
# Columns of ``ended``.
TERMINATED, TRUNCATED = 0, 1
# Rules of the reward for reaching a landmark.
RULES = {"step": 0, "delta": 1, "first": 2}
# Beyond this overlap of margins the softplus of the contact law is below float64 resolution.
CONTACT_CUTOFF = 40.0 * CONTACT_MARGIN

Array = NDArray[Any]


@njit(cache=True, nogil=True, error_model="numpy")
def _move(
    position: Array, velocity: Array, clock: Array, actions: Array, active: Array, shift: Array, contact: float
) -> None:
    """One physics step; counts the overlapping pairs before it in ``clock[:, 1]``. ``shift`` [N, 2] is scratch."""
    n = position.shape[1]
    reach = contact + CONTACT_CUTOFF
    for b in range(position.shape[0]):
        if not active[b]:
            continue
        for i in range(n):
            shift[i, 0], shift[i, 1] = velocity[b, i, 0] * DT, velocity[b, i, 1] * DT
            action = actions[b, i]
            push_x = PUSH * DT * (int(action == 2) - int(action == 1))
            push_y = PUSH * DT * (int(action == 4) - int(action == 3))
            velocity[b, i, 0] = velocity[b, i, 0] * (1.0 - DAMPING) + push_x
            velocity[b, i, 1] = velocity[b, i, 1] * (1.0 - DAMPING) + push_y
        for i in range(n):
            for k in range(i + 1, n):
                dx, dy = position[b, i, 0] - position[b, k, 0], position[b, i, 1] - position[b, k, 1]
                square = dx * dx + dy * dy
                if square > reach * reach or square == 0.0:
                    continue
                distance = math.sqrt(square)
                clock[b, 1] += distance < contact
                depth = (contact - distance) / CONTACT_MARGIN
                softplus = max(depth, 0.0) + math.log1p(math.exp(-abs(depth)))
                impulse = DT * CONTACT_FORCE * CONTACT_MARGIN * softplus / distance
                velocity[b, i, 0] += impulse * dx
                velocity[b, i, 1] += impulse * dy
                velocity[b, k, 0] -= impulse * dx
                velocity[b, k, 1] -= impulse * dy
        for i in range(n):
            position[b, i, 0] += shift[i, 0]
            position[b, i, 1] += shift[i, 1]


@njit(cache=True, nogil=True, error_model="numpy")
def _score(  # noqa: C901  one pass over the worlds
    position: Array, landmark: Array, capacity: Array, at_landmark: Array, visited: Array, clock: Array,
    outcome: Array, ended: Array, active: Array, counts: Array, occupancy: float, limit: float, rule: int,
) -> None:  # fmt: skip
    """Who counts where, the rewards for it, and whether the episode ends. ``counts`` [M] is scratch."""
    n, m = position.shape[1], landmark.shape[1]
    for b in range(position.shape[0]):
        if not active[b]:
            continue
        clock[b, 0] += 1
        for j in range(m):
            counts[j] = 0
        for c in range(N_OUTCOME, N_OUTCOME + n * m):
            outcome[b, c] = 0.0
        reached = 0.0
        for i in range(n):
            nearest, at_now = occupancy * occupancy, -1
            for j in range(m):
                dx, dy = position[b, i, 0] - landmark[b, j, 0], position[b, i, 1] - landmark[b, j, 1]
                square = dx * dx + dy * dy
                if square < nearest:
                    nearest, at_now = square, j
            first = N_OUTCOME + i * m
            at_before = at_landmark[b, i]
            if rule == 1 and at_before >= 0:
                outcome[b, first + at_before] -= 1.0
                reached -= 1.0
            if at_now >= 0:
                counts[at_now] += 1
                if rule != 2 or not visited[b, i, at_now]:
                    outcome[b, first + at_now] += 1.0
                    reached += 1.0
                visited[b, i, at_now] = True
            at_landmark[b, i] = at_now
        success = True
        for j in range(m):
            success = success and counts[j] == capacity[b, j]
        outcome[b, REWARD] = 0.5 * success + 0.5 * reached / n
        outcome[b, REWARD_HIGH] = success
        ended[b, TERMINATED] = success
        ended[b, TRUNCATED] = clock[b, 0] >= limit and not success


@njit(cache=True, nogil=True, error_model="numpy")
def _add_dense_rewards(position: Array, landmark: Array, outcome: Array, active: Array, contact: float) -> None:
    """Adds the distance and collision terms to the rewards."""
    n, m = position.shape[1], landmark.shape[1]
    for b in range(position.shape[0]):
        if not active[b]:
            continue
        penalty = 0.0
        for i in range(n):
            collisions = 0
            for k in range(n):
                dx, dy = position[b, i, 0] - position[b, k, 0], position[b, i, 1] - position[b, k, 1]
                collisions += k != i and math.sqrt(dx * dx + dy * dy) < contact
            penalty += collisions
            for j in range(m):
                dx, dy = position[b, i, 0] - landmark[b, j, 0], position[b, i, 1] - landmark[b, j, 1]
                outcome[b, N_OUTCOME + i * m + j] -= DENSE_WEIGHT * (math.sqrt(dx * dx + dy * dy) + collisions)
        for j in range(m):
            nearest = np.inf
            for i in range(n):
                dx, dy = position[b, i, 0] - landmark[b, j, 0], position[b, i, 1] - landmark[b, j, 1]
                nearest = min(nearest, math.sqrt(dx * dx + dy * dy))
            penalty += nearest
        outcome[b, REWARD] -= 0.5 * DENSE_WEIGHT * penalty / n


@njit(cache=True, nogil=True, error_model="numpy")
def _write_obs(
    position: Array, velocity: Array, landmark: Array, capacity: Array, obs: Array, with_capacity: bool, active: Array
) -> None:
    """Flat observations: velocity, position, landmarks, capacities / N, other agents (relative)."""
    n, m = position.shape[1], landmark.shape[1]
    for b in range(position.shape[0]):
        if not active[b]:
            continue
        for i in range(n):
            x, y = position[b, i, 0], position[b, i, 1]
            obs[b, i, 0], obs[b, i, 1] = velocity[b, i, 0], velocity[b, i, 1]
            obs[b, i, 2], obs[b, i, 3] = x, y
            at = 4
            for j in range(m):
                obs[b, i, at], obs[b, i, at + 1] = landmark[b, j, 0] - x, landmark[b, j, 1] - y
                at += 2
            if with_capacity:
                for j in range(m):
                    obs[b, i, at] = capacity[b, j] / n
                    at += 1
            for k in range(n):
                if k != i:
                    obs[b, i, at], obs[b, i, at + 1] = position[b, k, 0] - x, position[b, k, 1] - y
                    at += 2


@njit(cache=True, nogil=True, error_model="numpy")
def _write_state(
    position: Array, velocity: Array, landmark: Array, capacity: Array, state: Array, with_capacity: bool, active: Array
) -> None:
    """Global state: position and velocity of each agent, landmarks, capacities / N."""
    n, m = position.shape[1], landmark.shape[1]
    for b in range(position.shape[0]):
        if not active[b]:
            continue
        for i in range(n):
            state[b, 4 * i], state[b, 4 * i + 1] = position[b, i, 0], position[b, i, 1]
            state[b, 4 * i + 2], state[b, 4 * i + 3] = velocity[b, i, 0], velocity[b, i, 1]
        for j in range(m):
            at = 4 * n + 2 * j
            state[b, at], state[b, at + 1] = landmark[b, j, 0], landmark[b, j, 1]
            if with_capacity:
                state[b, 4 * n + 2 * m + j] = capacity[b, j] / n


@njit(cache=True, nogil=True, error_model="numpy")
def _write_entities(
    position: Array, velocity: Array, landmark: Array, capacity: Array, agent_feats: Array, task_feats: Array,
    active: Array,
) -> None:  # fmt: skip
    """Entity features: agents' position and velocity, landmarks' position and capacity / N."""
    n, m = position.shape[1], landmark.shape[1]
    for b in range(position.shape[0]):
        if not active[b]:
            continue
        for i in range(n):
            agent_feats[b, i, 0], agent_feats[b, i, 1] = position[b, i, 0], position[b, i, 1]
            agent_feats[b, i, 2], agent_feats[b, i, 3] = velocity[b, i, 0], velocity[b, i, 1]
        for j in range(m):
            task_feats[b, j, 0], task_feats[b, j, 1] = landmark[b, j, 0], landmark[b, j, 1]
            task_feats[b, j, 2] = capacity[b, j] / n


@njit(cache=True, nogil=True, error_model="numpy")
def observe_worlds(
    position: Array, velocity: Array, landmark: Array, capacity: Array,
    obs: Array, state: Array, agent_feats: Array, task_feats: Array, with_capacity: bool, active: Array,
) -> None:  # fmt: skip
    """Fills the observed fields of the active worlds; a field of length 0 along B is not wanted."""
    if agent_feats.shape[0]:
        _write_entities(position, velocity, landmark, capacity, agent_feats, task_feats, active)
    if state.shape[0]:
        _write_state(position, velocity, landmark, capacity, state, with_capacity, active)
    if obs.shape[0]:
        _write_obs(position, velocity, landmark, capacity, obs, with_capacity, active)


@njit(cache=True, nogil=True, error_model="numpy")
def step_worlds(
    position: Array, velocity: Array, landmark: Array, capacity: Array,
    obs: Array, state: Array, agent_feats: Array, task_feats: Array, with_capacity: bool,
    at_landmark: Array, visited: Array, clock: Array, outcome: Array, ended: Array, params: Array,
    actions: Array, active: Array,
) -> None:  # fmt: skip
    """Steps the active worlds, writes their outcome and fills their observed fields.

    Args:
        position: [B, N, 2], changed in place, like all but the landmarks, capacities and the last three.
        velocity: [B, N, 2].
        landmark: [B, M, 2].
        capacity: [B, M] agents that each landmark needs.
        obs: [B, N, O], or [0, N, O] when not wanted, like the next three.
        state: [B, S].
        agent_feats: [B, N, 4].
        task_feats: [B, M, 3].
        with_capacity: whether ``obs`` and ``state`` hold the capacities.
        at_landmark: [B, N] the landmark that an agent counts for: its nearest, within the occupancy radius; or -1.
        visited: [B, N, M] whether agent i has counted for landmark j in this episode.
        clock: [B, 2] steps of the episode so far, overlapping pairs so far.
        outcome: [B, 2 + N M] reward, reward_high, then task_reward row by row.
        ended: [B, 2] terminated, truncated.
        params: agent radius, occupancy radius, episode limit, reward rule, dense (0 or 1).
        actions: [B, N] 0 none, 1 -x, 2 +x, 3 -y, 4 +y.
        active: [B].
    """
    n, m = position.shape[1], landmark.shape[1]
    contact = 2.0 * params[0]
    _move(position, velocity, clock, actions, active, np.empty((n, 2), np.float64), contact)
    _score(
        position, landmark, capacity, at_landmark, visited, clock, outcome, ended, active, np.empty(m, np.int64),
        params[1], params[2], int(params[3]),
    )  # fmt: skip
    if params[4] > 0.0:
        _add_dense_rewards(position, landmark, outcome, active, contact)
    observe_worlds(position, velocity, landmark, capacity, obs, state, agent_feats, task_feats, with_capacity, active)
