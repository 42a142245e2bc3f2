"""Compiled step of B navigation worlds. ``navigation_numpy`` holds the same step without Numba.

Physics of MPE's particle world (mpe2 ``World.step``): contact forces from the old positions, then
x <- x + dt v, then v <- (1 - damping) v + dt F / m, with m = 1.

Each function loops over the worlds itself: a call per world would spend more on its arguments than on its work.

Shape legend: B worlds, N agents, M landmarks; a world may hold fewer, which come first.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.jit import njit
from envs.navigation_world import Views, World

DT = 0.1
DAMPING = 0.25
PUSH = 5.0
CONTACT_FORCE = 100.0
CONTACT_MARGIN = 1e-3
DENSE_WEIGHT = 0.1
# Columns of ``outcome`` before the N*M task rewards, which the N agent rewards follow.
REWARD, REWARD_HIGH, N_OUTCOME = 0, 1, 2
# Columns of ``ended``.
TERMINATED, TRUNCATED = 0, 1
# Rules of the reward for reaching a landmark.
RULES = {"step": 0, "delta": 1, "first": 2}
# Beyond this overlap of margins the softplus of the contact law is below float64 resolution.
CONTACT_CUTOFF = 40.0 * CONTACT_MARGIN

Array = NDArray[Any]


@njit(cache=True, nogil=True, error_model="numpy")
def _move(world: World, actions: Array, active: Array, shift: Array, contact: float) -> None:
    """One physics step; counts the overlapping pairs before it in ``clock[:, 1]``. ``shift`` [N, 2] is scratch."""
    position, velocity, push = world.position, world.velocity, world.push
    reach = contact + CONTACT_CUTOFF
    for b in range(position.shape[0]):
        if not active[b]:
            continue
        n = world.sizes[b, 0]
        for i in range(n):
            shift[i, 0], shift[i, 1] = velocity[b, i, 0] * DT, velocity[b, i, 1] * DT
            action = actions[b, i]
            push_x = push[b, i] * DT * (int(action == 2) - int(action == 1))
            push_y = push[b, i] * DT * (int(action == 4) - int(action == 3))
            velocity[b, i, 0] = velocity[b, i, 0] * (1.0 - DAMPING) + push_x
            velocity[b, i, 1] = velocity[b, i, 1] * (1.0 - DAMPING) + push_y
        for i in range(n):
            for k in range(i + 1, n):
                dx, dy = position[b, i, 0] - position[b, k, 0], position[b, i, 1] - position[b, k, 1]
                square = dx * dx + dy * dy
                if square > reach * reach or square == 0.0:
                    continue
                distance = math.sqrt(square)
                world.clock[b, 1] += distance < contact
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
def _all_covered(position: Array, landmark: Array, n: int, m: int, occupancy: float) -> bool:
    """Whether each of the first m landmarks [M, 2] has one of the first n agents [N, 2] within the radius."""
    for j in range(m):
        covered = False
        for i in range(n):
            dx, dy = position[i, 0] - landmark[j, 0], position[i, 1] - landmark[j, 1]
            covered = covered or dx * dx + dy * dy < occupancy * occupancy
        if not covered:
            return False
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _score(  # noqa: C901  one pass over the worlds
    world: World, outcome: Array, ended: Array, active: Array, counts: Array, occupancy: float, limit: float, rule: int,
    exact: bool,
) -> None:  # fmt: skip
    """Who counts where, the rewards for it, and whether the episode ends. ``counts`` [M] is scratch."""
    position, landmark, held = world.position, world.landmark, world.held
    padded = landmark.shape[1]
    agents_at = N_OUTCOME + position.shape[1] * padded
    for b in range(position.shape[0]):
        if not active[b]:
            continue
        n, m = world.sizes[b, 0], world.sizes[b, 1]
        world.clock[b, 0] += 1
        for j in range(padded):
            counts[j] = 0
        for c in range(N_OUTCOME, outcome.shape[1]):
            outcome[b, c] = 0.0
        reached = 0.0
        for i in range(n):
            nearest, at_now = occupancy * occupancy, -1
            for j in range(m):
                dx, dy = position[b, i, 0] - landmark[b, j, 0], position[b, i, 1] - landmark[b, j, 1]
                square = dx * dx + dy * dy
                if square < nearest:
                    nearest, at_now = square, j
            first, own = N_OUTCOME + i * padded, agents_at + i
            at_before = world.at_landmark[b, i]
            if rule == 1 and at_before >= 0:
                outcome[b, first + at_before] -= 1.0
                outcome[b, own] -= 1.0
                reached -= 1.0
            held[b, i] = held[b, i] + 1 if at_now == at_before and at_now >= 0 else 0
            if at_now >= 0:
                counts[at_now] += held[b, i] >= world.needed[b, i, at_now]
                if rule != 2 or not world.visited[b, i, at_now]:
                    outcome[b, first + at_now] += 1.0
                    outcome[b, own] += 1.0
                    reached += 1.0
                world.visited[b, i, at_now] = True
            world.at_landmark[b, i] = at_now
        if exact:
            success = True
            for j in range(m):
                success = success and counts[j] == world.capacity[b, j]
        else:
            success = _all_covered(position[b], landmark[b], n, m, occupancy)
        outcome[b, REWARD] = 0.5 * success + 0.5 * reached / n
        outcome[b, REWARD_HIGH] = success
        ended[b, TERMINATED] = success
        ended[b, TRUNCATED] = world.clock[b, 0] >= limit and not success


@njit(cache=True, nogil=True, error_model="numpy")
def _add_dense_rewards(world: World, outcome: Array, active: Array, contact: float) -> None:
    """Adds the distance and collision terms to the rewards."""
    position, landmark = world.position, world.landmark
    padded = landmark.shape[1]
    agents_at = N_OUTCOME + position.shape[1] * padded
    for b in range(position.shape[0]):
        if not active[b]:
            continue
        n, m = world.sizes[b, 0], world.sizes[b, 1]
        penalty = 0.0
        for i in range(n):
            collisions = 0
            for k in range(n):
                dx, dy = position[b, i, 0] - position[b, k, 0], position[b, i, 1] - position[b, k, 1]
                collisions += k != i and math.sqrt(dx * dx + dy * dy) < contact
            penalty += collisions
            closest = np.inf
            for j in range(m):
                dx, dy = position[b, i, 0] - landmark[b, j, 0], position[b, i, 1] - landmark[b, j, 1]
                distance = math.sqrt(dx * dx + dy * dy)
                closest = min(closest, distance)
                outcome[b, N_OUTCOME + i * padded + j] -= DENSE_WEIGHT * (distance + collisions)
            outcome[b, agents_at + i] -= DENSE_WEIGHT * (closest + collisions)
        for j in range(m):
            nearest = np.inf
            for i in range(n):
                dx, dy = position[b, i, 0] - landmark[b, j, 0], position[b, i, 1] - landmark[b, j, 1]
                nearest = min(nearest, math.sqrt(dx * dx + dy * dy))
            penalty += nearest
        outcome[b, REWARD] -= 0.5 * DENSE_WEIGHT * penalty / n


@njit(cache=True, nogil=True, error_model="numpy")
def _write_obs(  # noqa: C901  one pass over the worlds
    world: World, obs: Array, with_capacity: bool, active: Array
) -> None:
    """Flat observations: velocity, position, landmarks, capacities / N, other agents (relative)."""
    position, velocity, landmark, capacity = world.position, world.velocity, world.landmark, world.capacity
    padded = landmark.shape[1]
    for b in range(position.shape[0]):
        if not active[b]:
            continue
        n, m = world.sizes[b, 0], world.sizes[b, 1]
        for i in range(n):
            x, y = position[b, i, 0], position[b, i, 1]
            obs[b, i, 0], obs[b, i, 1] = velocity[b, i, 0], velocity[b, i, 1]
            obs[b, i, 2], obs[b, i, 3] = x, y
            at = 4
            # Columns of absent landmarks are skipped one by one: an index that only grows is never negative (faster).
            for j in range(padded):
                if j < m:
                    obs[b, i, at], obs[b, i, at + 1] = landmark[b, j, 0] - x, landmark[b, j, 1] - y
                at += 2
            if with_capacity:
                for j in range(padded):
                    if j < m:
                        obs[b, i, at] = capacity[b, j] / n
                    at += 1
            for k in range(n):
                if k != i:
                    obs[b, i, at], obs[b, i, at + 1] = position[b, k, 0] - x, position[b, k, 1] - y
                    at += 2


@njit(cache=True, nogil=True, error_model="numpy")
def _write_state(world: World, state: Array, with_capacity: bool, active: Array) -> None:
    """Global state: position and velocity of each agent, landmarks, capacities / N."""
    position, velocity, landmark, capacity = world.position, world.velocity, world.landmark, world.capacity
    places_at = 4 * position.shape[1]
    shares_at = places_at + 2 * landmark.shape[1]
    for b in range(position.shape[0]):
        if not active[b]:
            continue
        n, m = world.sizes[b, 0], world.sizes[b, 1]
        for i in range(n):
            state[b, 4 * i], state[b, 4 * i + 1] = position[b, i, 0], position[b, i, 1]
            state[b, 4 * i + 2], state[b, 4 * i + 3] = velocity[b, i, 0], velocity[b, i, 1]
        for j in range(m):
            at = places_at + 2 * j
            state[b, at], state[b, at + 1] = landmark[b, j, 0], landmark[b, j, 1]
            if with_capacity:
                state[b, shares_at + j] = capacity[b, j] / n


@njit(cache=True, nogil=True, error_model="numpy")
def _write_entities(world: World, agent_feats: Array, task_feats: Array, active: Array) -> None:
    """Entity features: agents' position and velocity, landmarks' position and capacity / N."""
    position, velocity, landmark, capacity = world.position, world.velocity, world.landmark, world.capacity
    for b in range(position.shape[0]):
        if not active[b]:
            continue
        n, m = world.sizes[b, 0], world.sizes[b, 1]
        for i in range(n):
            agent_feats[b, i, 0], agent_feats[b, i, 1] = position[b, i, 0], position[b, i, 1]
            agent_feats[b, i, 2], agent_feats[b, i, 3] = velocity[b, i, 0], velocity[b, i, 1]
        for j in range(m):
            task_feats[b, j, 0], task_feats[b, j, 1] = landmark[b, j, 0], landmark[b, j, 1]
            task_feats[b, j, 2] = capacity[b, j] / n


@njit(cache=True, nogil=True, error_model="numpy")
def _write_extra(world: World, views: Views, active: Array) -> None:
    """The extra columns, last in every field: own and all landmarks' in obs, all agents' and landmarks' in state."""
    own, extra = world.agent_extra, world.task_extra
    tasks_wide = extra.shape[1] * extra.shape[2]
    in_obs, in_state = views.obs.shape[2] - tasks_wide, views.state.shape[1] - tasks_wide
    agents_wide = own.shape[1] * own.shape[2]
    for b in range(own.shape[0]):
        if not active[b]:
            continue
        n, tasks = world.sizes[b, 0], extra[b].ravel()
        if views.agent_feats.shape[0]:
            views.agent_feats[b, :, 4:] = own[b]
            views.task_feats[b, :, 3:] = extra[b]
        if views.state.shape[0]:
            views.state[b, in_state - agents_wide : in_state] = own[b].ravel()
            views.state[b, in_state:] = tasks
        if views.obs.shape[0]:
            views.obs[b, :n, in_obs - own.shape[2] : in_obs] = own[b, :n]
            views.obs[b, :n, in_obs:] = tasks


@njit(cache=True, nogil=True, error_model="numpy")
def observe_worlds(world: World, views: Views, with_capacity: bool, active: Array) -> None:
    """Fills the observed fields of the active worlds; ``with_capacity``: obs and state hold the capacities."""
    if views.agent_feats.shape[0]:
        _write_entities(world, views.agent_feats, views.task_feats, active)
    if views.state.shape[0]:
        _write_state(world, views.state, with_capacity, active)
    if views.obs.shape[0]:
        _write_obs(world, views.obs, with_capacity, active)
    if world.agent_extra.shape[2] + world.task_extra.shape[2] > 0:
        _write_extra(world, views, active)


@njit(cache=True, nogil=True, error_model="numpy")
def advance_worlds(world: World, outcome: Array, ended: Array, params: Array, actions: Array, active: Array) -> None:
    """Steps the active worlds and writes their outcome.

    Args:
        world: changed in place.
        outcome: [B, 2 + N M + N] reward, reward_high, then task_reward row by row, then agent_reward.
        ended: [B, 2] terminated, truncated.
        params: agent radius, occupancy radius, episode limit, reward rule, dense (0 or 1), exact (1: each landmark
            needs exactly its capacity of agents that count for it, 0: one agent within it).
        actions: [B, N] 0 none, 1 -x, 2 +x, 3 -y, 4 +y.
        active: [B].
    """
    n, m = world.needed.shape[1], world.needed.shape[2]
    contact = 2.0 * params[0]
    _move(world, actions, active, np.empty((n, 2), np.float64), contact)
    counts = np.empty(m, np.int64)
    _score(world, outcome, ended, active, counts, params[1], params[2], int(params[3]), params[5] > 0.0)
    if params[4] > 0.0:
        _add_dense_rewards(world, outcome, active, contact)


@njit(cache=True, nogil=True, error_model="numpy")
def step_worlds(
    world: World, views: Views, with_capacity: bool, outcome: Array, ended: Array, params: Array,
    actions: Array, active: Array,
) -> None:  # fmt: skip
    """``advance_worlds`` and ``observe_worlds`` in one call: the arguments of a call cost as much as small worlds."""
    advance_worlds(world, outcome, ended, params, actions, active)
    observe_worlds(world, views, with_capacity, active)
