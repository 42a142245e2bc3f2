"""How long an agent would travel to a landmark alone in the world: a hand controller, rolled without contacts.

The controller pushes along one axis at a time: the one along which the agent, were it to coast from now on, would rest
farther from the landmark's center, unless that is within ``DEAD_ZONE`` on both axes. Coasting ends at
x + dt v / damping. The time is the number of steps until the agent is within the occupancy radius, as steps count
it: 0 when it is there already. Whether another landmark is nearer then is not asked.

Shape legend: B worlds, N agents, M landmarks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.jit import njit
from envs.navigation_kernel import DAMPING, DT
from envs.navigation_world import World, present

# Twice the time that a crossing of the arena takes at acceleration 1.
MAX_STEPS = 200
# Within it the controller does not push, per axis: agents that share a disc need precise parking.
DEAD_ZONE = 0.05
COAST = DT / DAMPING

Array = NDArray[Any]


@njit(cache=True, nogil=True, error_model="numpy")
def _alone(x: float, y: float, vx: float, vy: float, push: float, radius: float) -> int:
    """Steps until an agent that is at (x, y) from a landmark is within the radius, at most ``MAX_STEPS``."""
    for step in range(MAX_STEPS):
        if x * x + y * y < radius * radius:
            return step
        rest_x, rest_y = x + COAST * vx, y + COAST * vy
        push_x, push_y = 0.0, 0.0
        if max(abs(rest_x), abs(rest_y)) > DEAD_ZONE:
            if abs(rest_x) >= abs(rest_y):
                push_x = -push if rest_x > 0.0 else push
            else:
                push_y = -push if rest_y > 0.0 else push
        x, y = x + DT * vx, y + DT * vy
        vx, vy = (1.0 - DAMPING) * vx + DT * push_x, (1.0 - DAMPING) * vy + DT * push_y
    return MAX_STEPS


@njit(cache=True, nogil=True, error_model="numpy")
def fill_travel_times(world: World, radius: float, times: Array, active: Array) -> None:
    """Writes the travel times of the active worlds.

    Args:
        world: B worlds.
        radius: occupancy radius.
        times: [B, N, M] float32, changed in place; 0 where agent or landmark are absent.
        active: [B].
    """
    for b in range(times.shape[0]):
        if not active[b]:
            continue
        times[b] = 0.0
        n, m = world.sizes[b]
        for i in range(n):
            x, y = world.position[b, i]
            vx, vy = world.velocity[b, i]
            for j in range(m):
                to_x, to_y = x - world.landmark[b, j, 0], y - world.landmark[b, j, 1]
                times[b, i, j] = _alone(to_x, to_y, vx, vy, world.push[b, i], radius)


def fill_travel_times_numpy(world: World, radius: float, times: Array, active: Array) -> None:
    """``fill_travel_times`` in NumPy."""
    rows = np.flatnonzero(active)
    n, m = times.shape[1:]
    # [B, N, M, 2]
    away = world.position[rows, :, None] - world.landmark[rows, None]
    velocity = np.broadcast_to(world.velocity[rows, :, None], away.shape)
    push = world.push[rows, :, None, None]
    agents, landmarks = present(world.sizes[rows], n, m)
    there = agents[:, :, None] & landmarks[:, None]
    found = np.where(there, MAX_STEPS, 0)
    for step in range(MAX_STEPS):
        arrived = np.square(away).sum(-1) < radius * radius
        found = np.where(arrived & (found == MAX_STEPS), step, found)
        if (found < MAX_STEPS).all():
            break
        rest = away + COAST * velocity
        size = np.abs(rest)
        along_x = size[..., 0] >= size[..., 1]
        axis = np.stack([along_x, ~along_x], -1) & (size.max(-1) > DEAD_ZONE)[..., None]
        force = np.where(axis, np.where(rest > 0.0, -push, push), 0.0)
        away, velocity = away + DT * velocity, (1.0 - DAMPING) * velocity + DT * force
    times[rows] = found
