"""Compiled observations of B skirmishes: SMAC's observation, state and action mask, and the task structure.

The order of columns and all scales are those of SMAC's ``StarCraft2Env``; enemies are the tasks.

Shape legend: B worlds, N allies (agents), E enemies (tasks), U = N + E units, A = 6 + E actions.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.jit import njit
from envs.skirmish_kernel import (
    EAST,
    FIRST_ATTACK,
    LEAST_DAMAGE,
    NO_OP,
    NORTH,
    SOUTH,
    STOP,
    WEST,
    Rewards,
    Rules,
    fight,
)
from envs.skirmish_maps import MAP_SIDE
from envs.skirmish_world import (
    ARMOR,
    ARMORED,
    BONUS,
    COOLDOWN,
    DAMAGE,
    HITS,
    LIFE,
    MAX_COOLDOWN,
    MAX_LIFE,
    MAX_SHIELD,
    SHIELD,
    TYPE_COLUMN,
    World,
    X,
    Y,
)

Array = NDArray[Any]

SIGHT, SHOOT = 9.0, 6.0
CENTER = MAP_SIDE / 2
# Cells around a unit that ``obs_pathing_grid`` shows, in units of the move amount, in SMAC's order.
_AROUND = np.array([[0, 2], [0, -2], [2, 0], [-2, 0], [1, 1], [-1, -1], [1, -1], [-1, 1]], dtype=np.int64)
# How many agents may be assigned to one enemy.
CAPACITIES = {"paper": 0, "none": 1, "shots_to_kill": 2, "fixed": 3}
PAPER, SHOTS_TO_KILL, FIXED = CAPACITIES["paper"], CAPACITIES["shots_to_kill"], CAPACITIES["fixed"]


class Layout(NamedTuple):
    """Which columns there are, by the names of SMAC's options.

    Attributes:
        all_health, own_health, last_action, pathing_grid, timestep: of the observation.
        state_last_action, state_timestep: of the state.
        ally_shield, enemy_shield: columns for shields, 0 or 1.
        type_bits: columns that say the type.
        limit: steps of an episode.
        capacity: how many agents an enemy takes, a value of ``CAPACITIES``.
        fixed: that many with ``capacity: fixed``.
    """

    all_health: bool
    own_health: bool
    last_action: bool
    pathing_grid: bool
    timestep: bool
    state_last_action: bool
    state_timestep: bool
    ally_shield: int
    enemy_shield: int
    type_bits: int
    limit: int
    capacity: int
    fixed: int

    def obs_columns(self, n: int, e: int) -> int:
        """Length of an agent's observation."""
        others = 4 + self.type_bits
        enemies = e * (others + self.all_health * (1 + self.enemy_shield))
        allies = others + self.all_health * (1 + self.ally_shield) + self.last_action * (FIRST_ATTACK + e)
        own = self.type_bits + self.own_health * (1 + self.ally_shield) + self.timestep
        return 4 + 8 * self.pathing_grid + enemies + (n - 1) * allies + own

    def state_columns(self, n: int, e: int) -> int:
        """Length of the state."""
        allies, enemies = 4 + self.ally_shield + self.type_bits, 3 + self.enemy_shield + self.type_bits
        return n * allies + e * enemies + self.state_last_action * n * (FIRST_ATTACK + e) + self.state_timestep


class Views(NamedTuple):
    """What is shown of B worlds; a field that nobody asked for has no rows.

    Attributes:
        obs: [B, N, obs columns] float32.
        state: [B, state columns] float32.
        avail_actions: [B, N, A] int32.
        agent_feats: [B, N, Fa] float32.
        task_feats: [B, E, Ft] float32.
        agent_alive: [B, N] bool.
        task_alive: [B, E] bool.
        capacity: [B, E] int64.
    """

    obs: Array
    state: Array
    avail_actions: Array
    agent_feats: Array
    task_feats: Array
    agent_alive: Array
    task_alive: Array
    capacity: Array


# Columns before the type. Agents: place, life, shield, cooldown, free directions; tasks: place, life, shield, capacity.
AGENT_COLUMNS, TASK_COLUMNS = 9, 5


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
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
def _volleys_needed(n: int, units: Array, kinds: Array, k: int) -> int:
    """Volleys of the average living ally that unit k dies of."""
    on_shield = on_life = allies = 0.0
    for i in range(n):
        if units[LIFE, i] > 0.0:
            damage = kinds[DAMAGE, i] + kinds[BONUS, i] * kinds[ARMORED, k]
            on_shield += kinds[HITS, i] * damage
            on_life += kinds[HITS, i] * max(damage - kinds[ARMOR, k], LEAST_DAMAGE)
            allies += 1.0
    if allies == 0.0:
        return 1
    # A volley that would leave a trace of life by rounding counts as deadly.
    return math.ceil(units[SHIELD, k] * allies / on_shield + units[LIFE, k] * allies / on_life - 1e-9)


@njit(cache=True, nogil=True, error_model="numpy")
def _write_capacity(n: int, units: Array, kinds: Array, layout: Layout, capacity: Array) -> None:
    """Agents that each living enemy takes: the layout's rule, raised to what holds all living agents."""
    allies, enemies, total = 0, 0, 0
    for k in range(units.shape[1]):
        allies += units[LIFE, k] > 0.0 and k < n
        enemies += units[LIFE, k] > 0.0 and k >= n
    allowed = (enemies + 1) // 2
    if layout.capacity != PAPER:
        allowed = layout.fixed if layout.capacity == FIXED else n
    for j in range(capacity.shape[0]):
        living = units[LIFE, n + j] > 0.0
        capacity[j] = allowed if living else 0
        if living and layout.capacity == SHOTS_TO_KILL:
            capacity[j] = _volleys_needed(n, units, kinds, n + j)
        total += capacity[j]
    if enemies > 0 and total < allies:
        least = (allies + enemies - 1) // enemies
        for j in range(capacity.shape[0]):
            if units[LIFE, n + j] > 0.0:
                capacity[j] = max(capacity[j], least)


@njit(cache=True, nogil=True, error_model="numpy")
def _write_entities(
    units: Array, kinds: Array, layout: Layout, avail: Array, capacity: Array, agent_feats: Array, task_feats: Array
) -> None:
    """Features of agents and tasks, in units of the sight range around the map's center; they come in as zeros."""
    n = avail.shape[0]
    for k in range(units.shape[1]):
        if units[LIFE, k] <= 0.0:
            continue
        row = agent_feats[k] if k < n else task_feats[k - n]
        row[0], row[1] = (units[X, k] - CENTER) / SIGHT, (units[Y, k] - CENTER) / SIGHT
        row[2] = units[LIFE, k] / kinds[MAX_LIFE, k]
        row[3] = units[SHIELD, k] / max(kinds[MAX_SHIELD, k], 1.0)
        if k < n:
            row[4] = units[COOLDOWN, k] / kinds[MAX_COOLDOWN, k]
            for m in range(4):
                row[5 + m] = avail[k, NORTH + m]
        else:
            row[4] = capacity[k - n] / n
        if layout.type_bits:
            row[row.shape[0] - layout.type_bits + int(kinds[TYPE_COLUMN, k])] = 1.0


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
            _write_capacity(n, units, kinds, layout, capacity)
            _write_entities(units, kinds, layout, avail, capacity, agent_feats, task_feats)


@njit(cache=True, nogil=True, error_model="numpy")
def step_and_show(
    world: World, kinds: Array, rules: Rules, rewards: Rewards, layout: Layout, views: Views, outcome: Array,
    ended: Array, actions: Array, active: Array,
) -> None:  # fmt: skip
    """``fight`` and ``show`` in one call: the arguments of a call cost as much as small worlds."""
    fight(world, kinds, rules, rewards, outcome, ended, actions, active)
    show(world, kinds, layout, rules, views, active)
