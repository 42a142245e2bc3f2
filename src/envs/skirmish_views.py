"""Compiled observations of B skirmishes as SMAC has them, and its action mask; ``skirmish_entities`` adds the tasks.

The order of columns and all scales are those of SMAC's ``StarCraft2Env``.

Shape legend: B worlds, N allies (agents), E enemies (tasks), U = N + E units, A = 6 + E actions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.jit import njit
from envs.skirmish_entities import write_capacity, write_entities
from envs.skirmish_kernel import Rules, fight
from envs.skirmish_layout import CENTER, SHOOT, SIGHT, Layout, Views
from envs.skirmish_maps import MAP_SIDE
from envs.skirmish_rewards import Rewards
from envs.skirmish_world import (
    COOLDOWN,
    EAST,
    FIRST_ATTACK,
    LIFE,
    MAX_COOLDOWN,
    MAX_LIFE,
    MAX_SHIELD,
    NO_OP,
    NORTH,
    SHIELD,
    SOUTH,
    STOP,
    TYPE_COLUMN,
    WEST,
    World,
    X,
    Y,
)

Array = NDArray[Any]

# Cells around a unit that ``obs_pathing_grid`` shows, in units of the move amount, in SMAC's order.
_AROUND = np.array([[0, 2], [0, -2], [2, 0], [-2, 0], [1, 1], [-1, -1], [1, -1], [-1, 1]], dtype=np.int64)


@njit(cache=True, nogil=True, error_model="numpy")
def _can_go(cells: Array, x: float, y: float) -> bool:
    """Whether SMAC lets a unit move: the cell of the place half a move away, toward zero at the map's edge."""
    column, row = int(x), int(y)
    inside = 0 <= column < cells.shape[0] and 0 <= row < cells.shape[1]
    return bool(inside and cells[column, row])


@njit(cache=True, nogil=True, error_model="numpy")
def _write_avail(units: Array, cells: Array, move_amount: float, avail: Array) -> None:
    """The action mask: the dead can do nothing, the living stop, move to free cells, and attack whom they reach."""
    n, half = avail.shape[0], 0.5 * move_amount
    for i in range(n):
        alive = units[LIFE, i] > 0.0
        x, y = units[X, i], units[Y, i]
        avail[i, NO_OP], avail[i, STOP] = not alive, alive
        avail[i, NORTH] = alive and _can_go(cells, x, y + half)
        avail[i, SOUTH] = alive and _can_go(cells, x, y - half)
        avail[i, EAST] = alive and _can_go(cells, x + half, y)
        avail[i, WEST] = alive and _can_go(cells, x - half, y)
        for k in range(n, units.shape[1]):
            dx, dy = units[X, k] - x, units[Y, k] - y
            near = dx * dx + dy * dy <= SHOOT * SHOOT
            avail[i, FIRST_ATTACK + k - n] = alive and near and units[LIFE, k] > 0.0


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _write_other(
    units: Array, kinds: Array, layout: Layout, i: int, k: int, shield: int, first: float, row: Array, at: int
) -> bool:
    """Columns of unit k in ally i's observation, from column ``at`` on; whether i sees k (else they stay 0)."""
    dx, dy = units[X, k] - units[X, i], units[Y, k] - units[Y, i]
    square = dx * dx + dy * dy
    if square >= SIGHT * SIGHT or units[LIFE, k] <= 0.0:
        return False
    row[at], row[at + 1], row[at + 2], row[at + 3] = first, math.sqrt(square) / SIGHT, dx / SIGHT, dy / SIGHT
    at += 4
    if layout.all_health:
        row[at] = units[LIFE, k] / kinds[MAX_LIFE, k]
        if shield:
            row[at + 1] = units[SHIELD, k] / max(kinds[MAX_SHIELD, k], 1.0)
        at += 1 + shield
    if layout.type_bits:
        row[at + int(kinds[TYPE_COLUMN, k])] = 1.0
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _write_surroundings(x: float, y: float, cells: Array, move_amount: float, row: Array, at: int) -> None:
    """Which of the eight places around a unit can be walked on; those off the map count as such, as in SMAC."""
    for m in range(_AROUND.shape[0]):
        column = int(int(x) + _AROUND[m, 0] * move_amount)
        line = int(int(y) + _AROUND[m, 1] * move_amount)
        inside = 0 <= column < cells.shape[0] and 0 <= line < cells.shape[1]
        row[at + m] = int(not inside or cells[column, line])


@njit(cache=True, nogil=True, error_model="numpy")
def _write_obs(  # noqa: C901  SMAC's columns one after the other
    units: Array, kinds: Array, layout: Layout, cells: Array, move_amount: float, avail: Array, last_action: Array,
    obs: Array,
) -> None:  # fmt: skip
    """Each living agent's observation: moves, enemies, other allies, itself. ``obs`` comes in as zeros."""
    n, u, wide = avail.shape[0], units.shape[1], 4 + layout.type_bits
    for i in range(n):
        if units[LIFE, i] <= 0.0:
            continue
        row = obs[i]
        for m in range(4):
            row[m] = avail[i, NORTH + m]
        at = 4
        if layout.pathing_grid:
            _write_surroundings(units[X, i], units[Y, i], cells, move_amount, row, at)
            at += _AROUND.shape[0]
        for k in range(n, u):
            _write_other(units, kinds, layout, i, k, layout.enemy_shield, avail[i, FIRST_ATTACK + k - n], row, at)
            at += wide + layout.all_health * (1 + layout.enemy_shield)
        for k in range(n):
            if k == i:
                continue
            seen = _write_other(units, kinds, layout, i, k, layout.ally_shield, 1, row, at)
            at += wide + layout.all_health * (1 + layout.ally_shield)
            if layout.last_action:
                if seen and last_action[k] >= 0:
                    row[at + last_action[k]] = 1.0
                at += avail.shape[1]
        if layout.own_health:
            row[at] = units[LIFE, i] / kinds[MAX_LIFE, i]
            if layout.ally_shield:
                row[at + 1] = units[SHIELD, i] / max(kinds[MAX_SHIELD, i], 1.0)
            at += 1 + layout.ally_shield
        if layout.type_bits:
            row[at + int(kinds[TYPE_COLUMN, i])] = 1.0


@njit(cache=True, nogil=True, error_model="numpy")
def _write_state(n: int, units: Array, kinds: Array, layout: Layout, last_action: Array, state: Array) -> None:
    """The global state: allies, enemies, last actions. ``state`` comes in as zeros."""
    u, at = units.shape[1], 0
    for k in range(u):
        ally = int(k < n)
        shield = layout.ally_shield if ally else layout.enemy_shield
        if units[LIFE, k] > 0.0:
            state[at] = units[LIFE, k] / kinds[MAX_LIFE, k]
            if ally:
                state[at + 1] = units[COOLDOWN, k] / kinds[MAX_COOLDOWN, k]
            state[at + 1 + ally] = (units[X, k] - CENTER) / MAP_SIDE
            state[at + 2 + ally] = (units[Y, k] - CENTER) / MAP_SIDE
            if shield:
                state[at + 3 + ally] = units[SHIELD, k] / max(kinds[MAX_SHIELD, k], 1.0)
            if layout.type_bits:
                state[at + 3 + ally + shield + int(kinds[TYPE_COLUMN, k])] = 1.0
        at += 3 + ally + shield + layout.type_bits
    if layout.state_last_action:
        for i in range(n):
            if last_action[i] >= 0:
                state[at + last_action[i]] = 1.0
            at += FIRST_ATTACK + u - n


@njit(cache=True, nogil=True, error_model="numpy")
def show(world: World, kinds: Array, layout: Layout, rules: Rules, views: Views, active: Array) -> None:
    """Fills the wanted fields of the active worlds.

    Args:
        world: what is shown.
        kinds: [16, U] what the units are.
        layout: which columns there are.
        rules: of the simulation.
        views: the fields; ``avail_actions`` always has its rows.
        active: [B].
    """
    n, cells, move_amount = views.avail_actions.shape[1], rules.cells, rules.move_amount
    for b in range(active.shape[0]):
        if not active[b]:
            continue
        units, avail, last_action = world.units[b], views.avail_actions[b], world.last_action[b]
        progress = world.steps[b] / layout.limit
        _write_avail(units, cells, move_amount, avail)
        if views.obs.shape[0]:
            views.obs[b] = 0.0
            if layout.timestep:
                views.obs[b, :, -1] = progress
            _write_obs(units, kinds, layout, cells, move_amount, avail, last_action, views.obs[b])
        if views.state.shape[0]:
            views.state[b] = 0.0
            if layout.state_timestep:
                views.state[b, -1] = progress
            _write_state(n, units, kinds, layout, last_action, views.state[b])
        if views.agent_feats.shape[0]:
            agent_feats, task_feats, capacity = views.agent_feats[b], views.task_feats[b], views.capacity[b]
            for k in range(units.shape[1]):
                if k < n:
                    views.agent_alive[b, k] = units[LIFE, k] > 0.0
                else:
                    views.task_alive[b, k - n] = units[LIFE, k] > 0.0
            agent_feats[:], task_feats[:] = 0.0, 0.0
            write_capacity(n, units, kinds, layout, capacity)
            write_entities(units, kinds, layout, avail, capacity, agent_feats, task_feats)


@njit(cache=True, nogil=True, error_model="numpy")
def step_and_show(
    world: World, kinds: Array, rules: Rules, rewards: Rewards, layout: Layout, views: Views, outcome: Array,
    ended: Array, actions: Array, active: Array,
) -> None:  # fmt: skip
    """``fight`` and ``show`` in one call: the arguments of a call cost as much as small worlds."""
    fight(world, kinds, rules, rewards, outcome, ended, actions, active)
    show(world, kinds, layout, rules, views, active)
