"""Compiled fight of B skirmishes: orders, volleys and movement; ``skirmish_rewards`` says what a step is worth.

Within one game loop everybody acts on where and who was alive at its start, so that neither side strikes first.
Without Numba the same functions run as plain Python: right, but some hundred times slower.

Shape legend: B worlds, N allies, E enemies, U = N + E units (allies first).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.jit import njit
from envs.skirmish_rewards import N_OUTCOME, Rewards, judge, pay
from envs.skirmish_volleys import foresee, struck
from envs.skirmish_world import (
    AIMED,
    BEFORE,
    CALM,
    COOLDOWN,
    EAST,
    FIRST_ATTACK,
    FLIGHT,
    FLYING,
    LIFE,
    MAX_LIFE,
    MAX_SHIELD,
    N_SCRATCH,
    NORTH,
    PERIOD,
    RADIUS,
    REACH,
    REGENERATION,
    SHIELD,
    SHIELD_DELAY,
    SHIELD_REGENERATION,
    SOUTH,
    SPARED,
    SPARED_BEFORE,
    SPEED,
    STEP_X,
    STEP_Y,
    TARGET,
    TO_X,
    TO_Y,
    VOLLEYS,
    WEST,
    World,
    X,
    Y,
)

Array = NDArray[Any]

# Which ally in reach an enemy shoots.
TARGETS = {"nearest": 0, "lowest_life": 1, "random": 2}
NEAREST, LOWEST_LIFE = TARGETS["nearest"], TARGETS["lowest_life"]
# A volley leaves 0 to 3 game loops late: the game varies the period by -1 to +2, and takes a loop to fire.
SPREAD = 3.0


class Rules(NamedTuple):
    """What is the same in all worlds and all episodes; lengths in map units.

    Attributes:
        cells: [x, y] bool walkable cells.
        loops: game loops of a step.
        move_amount: how far a move action goes.
        acquire: enemies fight allies nearer than this.
        reaction: game loops that a new target costs an enemy.
        targets: which ally an enemy shoots, a value of ``TARGETS``.
        limit: steps of an episode.
    """

    cells: Array
    loops: int
    move_amount: float
    acquire: float
    reaction: int
    targets: int
    limit: int


@njit(cache=True, nogil=True, error_model="numpy")
def _give_orders(n: int, units: Array, orders: Array, scratch: Array, actions: Array, move_amount: float) -> None:
    """Where the allies of a world are sent, or whom they attack; what everybody's health is before the step."""
    for i in range(units.shape[1]):
        scratch[BEFORE, i] = units[LIFE, i] + units[SHIELD, i]
    for i in range(n):
        action = actions[i]
        scratch[TO_X, i] = units[X, i] + move_amount * (int(action == EAST) - int(action == WEST))
        scratch[TO_Y, i] = units[Y, i] + move_amount * (int(action == NORTH) - int(action == SOUTH))
        orders[TARGET, i] = n + action - FIRST_ATTACK if action >= FIRST_ATTACK else -1


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _within(units: Array, kinds: Array, i: int, k: int) -> bool:
    """Whether the weapon of unit i reaches unit k."""
    dx, dy = units[X, k] - units[X, i], units[Y, k] - units[Y, i]
    far = kinds[REACH, i] + kinds[RADIUS, i] + kinds[RADIUS, k]
    return bool(dx * dx + dy * dy <= far * far)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _chance(orders: Array, draws: Array, i: int) -> float:
    """A number in [0, 1) for the coming volley of unit i."""
    return float(draws[i, orders[VOLLEYS, i] % draws.shape[1]])


@njit(cache=True, nogil=True, error_model="numpy")
def _preferred(n: int, units: Array, kinds: Array, alive: Array, i: int, targets: int, chance: float) -> int:
    """The ally in reach that enemy i shoots by the rules other than the nearest; -1 when none is in reach."""
    count, weakest, least = 0, -1, np.inf
    for k in range(n):
        if alive[k] and _within(units, kinds, i, k):
            count += 1
            if units[LIFE, k] + units[SHIELD, k] < least:
                weakest, least = k, units[LIFE, k] + units[SHIELD, k]
    if targets == LOWEST_LIFE or count == 0:
        return weakest
    skip = int(chance * count)
    for k in range(n):
        if alive[k] and _within(units, kinds, i, k):
            if skip == 0:
                return k
            skip -= 1
    return weakest


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _nearest(n: int, units: Array, alive: Array, i: int, acquire: float) -> int:
    """The nearest ally of those nearer than ``acquire``, or -1."""
    chosen, near = -1, acquire * acquire
    for k in range(n):
        dx, dy = units[X, k] - units[X, i], units[Y, k] - units[Y, i]
        square = dx * dx + dy * dy
        if square < near and alive[k]:
            chosen, near = k, square
    return chosen


@njit(cache=True, nogil=True, error_model="numpy")
def _pick_targets(
    n: int, units: Array, orders: Array, kinds: Array, draws: Array, alive: Array, acquire: float, reaction: int,
    targets: int,
) -> None:  # fmt: skip
    """The ally that each enemy fights: the one that it fights already while that is in reach, else a new one."""
    for i in range(n, alive.shape[0]):
        before = orders[TARGET, i]
        if not alive[i] or (before >= 0 and alive[before] and _within(units, kinds, i, before)):
            continue
        chosen = -1
        if targets != NEAREST:
            chosen = _preferred(n, units, kinds, alive, i, targets, _chance(orders, draws, i))
        if chosen < 0:
            chosen = _nearest(n, units, alive, i, acquire)
        orders[TARGET, i] = chosen
        if chosen >= 0 and chosen != before:
            units[COOLDOWN, i] = max(units[COOLDOWN, i], float(reaction))


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _hit(units: Array, orders: Array, kinds: Array, i: int, k: int) -> None:
    """A volley of unit i arrives at unit k."""
    units[SHIELD, k], units[LIFE, k] = struck(kinds, i, k, units[SHIELD, k], units[LIFE, k])
    orders[CALM, k] = 0


@njit(cache=True, nogil=True, error_model="numpy")
def _land(units: Array, orders: Array, kinds: Array, alive: Array) -> None:
    """Volleys in flight come nearer and arrive; those for a unit that has died are lost."""
    for i in range(alive.shape[0]):
        k = orders[AIMED, i]
        if k < 0:
            continue
        orders[FLYING, i] -= 1
        if orders[FLYING, i] <= 0:
            orders[AIMED, i] = -1
            if alive[k]:
                _hit(units, orders, kinds, i, k)


@njit(cache=True, nogil=True, error_model="numpy")
def _act(
    n: int, units: Array, orders: Array, kinds: Array, draws: Array, goal: Array, alive: Array, scratch: Array
) -> None:
    """Units fire when they can; else rows ``STEP_X`` and ``STEP_Y`` say how they move in this loop."""
    for i in range(alive.shape[0]):
        scratch[STEP_X, i] = scratch[STEP_Y, i] = 0.0
        if not alive[i]:
            continue
        units[COOLDOWN, i] = max(units[COOLDOWN, i] - 1.0, 0.0)
        k = orders[TARGET, i]
        if k >= 0:
            if not alive[k]:
                continue
            if _within(units, kinds, i, k):
                if units[COOLDOWN, i] <= 0.0:
                    units[COOLDOWN, i] = kinds[PERIOD, i] + SPREAD * _chance(orders, draws, i)
                    orders[VOLLEYS, i] += 1
                    if kinds[FLIGHT, i] > 0.0:
                        orders[AIMED, i], orders[FLYING, i] = k, int(kinds[FLIGHT, i])
                    else:
                        _hit(units, orders, kinds, i, k)
                continue
            to_x, to_y = units[X, k], units[Y, k]
        elif i < n:
            to_x, to_y = scratch[TO_X, i], scratch[TO_Y, i]
        else:
            to_x, to_y = goal[i - n, 0], goal[i - n, 1]
        dx, dy = to_x - units[X, i], to_y - units[Y, i]
        square, speed = dx * dx + dy * dy, kinds[SPEED, i]
        share = speed / math.sqrt(square) if square > speed * speed else 1.0
        scratch[STEP_X, i], scratch[STEP_Y, i] = share * dx * (speed > 0.0), share * dy * (speed > 0.0)


@njit(cache=True, nogil=True, error_model="numpy")
def _push_apart(units: Array, kinds: Array, alive: Array, scratch: Array) -> None:
    """Units that would overlap each give way by half, those that cannot move not at all."""
    u = alive.shape[0]
    for i in range(u):
        if not alive[i]:
            continue
        for k in range(i + 1, u):
            dx = units[X, k] + scratch[STEP_X, k] - units[X, i] - scratch[STEP_X, i]
            dy = units[Y, k] + scratch[STEP_Y, k] - units[Y, i] - scratch[STEP_Y, i]
            apart = kinds[RADIUS, i] + kinds[RADIUS, k]
            square = dx * dx + dy * dy
            if square >= apart * apart or not alive[k]:
                continue
            distance = math.sqrt(square)
            # Units at one and the same place part along x.
            push = 0.5 * (apart - distance) / distance if distance > 1e-9 else 0.0
            push_x, push_y = (push * dx, push * dy) if distance > 1e-9 else (0.5 * apart, 0.0)
            if kinds[SPEED, i] > 0.0:
                scratch[STEP_X, i] -= push_x
                scratch[STEP_Y, i] -= push_y
            if kinds[SPEED, k] > 0.0:
                scratch[STEP_X, k] += push_x
                scratch[STEP_Y, k] += push_y


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _is_free(cells: Array, x: float, y: float) -> bool:
    """Whether a unit can be at a place."""
    inside = 0.0 <= x < cells.shape[0] and 0.0 <= y < cells.shape[1]
    return bool(inside and cells[int(x), int(y)])


@njit(cache=True, nogil=True, error_model="numpy")
def _move(units: Array, cells: Array, alive: Array, scratch: Array) -> None:
    """Moves the units; at a cell that cannot be walked on they slide along its edge or stay."""
    for i in range(alive.shape[0]):
        if not alive[i] or (scratch[STEP_X, i] == 0.0 and scratch[STEP_Y, i] == 0.0):
            continue
        x, y = units[X, i], units[Y, i]
        new_x, new_y = x + scratch[STEP_X, i], y + scratch[STEP_Y, i]
        if _is_free(cells, new_x, new_y):
            units[X, i], units[Y, i] = new_x, new_y
        elif _is_free(cells, new_x, y):
            units[X, i] = new_x
        elif _is_free(cells, x, new_y):
            units[Y, i] = new_y


@njit(cache=True, nogil=True, error_model="numpy")
def _recover(units: Array, orders: Array, kinds: Array, alive: Array) -> None:
    """The dead are dead; of the living, life and shields regenerate."""
    for i in range(alive.shape[0]):
        if not alive[i]:
            continue
        if units[LIFE, i] <= 0.0:
            units[LIFE, i] = units[SHIELD, i] = units[COOLDOWN, i] = 0.0
            orders[TARGET, i] = -1
            alive[i] = False
            continue
        orders[CALM, i] += 1
        units[LIFE, i] = min(units[LIFE, i] + kinds[REGENERATION, i], kinds[MAX_LIFE, i])
        if orders[CALM, i] > SHIELD_DELAY:
            units[SHIELD, i] = min(units[SHIELD, i] + SHIELD_REGENERATION, kinds[MAX_SHIELD, i])


@njit(cache=True, nogil=True, error_model="numpy")
def play_loops(
    n: int, units: Array, orders: Array, draws: Array, goal: Array, kinds: Array, rules: Rules, alive: Array,
    scratch: Array,
) -> None:  # fmt: skip
    """Plays ``rules.loops`` game loops of one world; allies do what row ``TARGET`` and ``TO_X``, ``TO_Y`` say.

    Args:
        n: allies among the units.
        units: [5, U], as ``World.units``.
        orders: [5, U].
        draws: [U, 32].
        goal: [E, 2].
        kinds: [15, U].
        rules: of the simulation.
        alive: [U] bool, who lives; kept up to date.
        scratch: [8, U].
    """
    for _ in range(rules.loops):
        _pick_targets(n, units, orders, kinds, draws, alive, rules.acquire, rules.reaction, rules.targets)
        _land(units, orders, kinds, alive)
        _act(n, units, orders, kinds, draws, goal, alive, scratch)
        _push_apart(units, kinds, alive, scratch)
        _move(units, rules.cells, alive, scratch)
        _recover(units, orders, kinds, alive)


@njit(cache=True, nogil=True, error_model="numpy")
def fight(
    world: World, kinds: Array, rules: Rules, rewards: Rewards, outcome: Array, ended: Array, actions: Array,
    active: Array,
) -> None:  # fmt: skip
    """Plays one step of the active worlds.

    Args:
        world: changed in place.
        kinds: [15, U] what the units are.
        rules: of the simulation.
        rewards: of SMAC.
        outcome: [B, 5 + N E] reward, won, high reward, dead allies, dead enemies, then the task rewards row by row.
        ended: [B, 2] terminated, truncated.
        actions: [B, N].
        active: [B].
    """
    n, u = actions.shape[1], kinds.shape[1]
    alive, scratch = np.empty(u, np.bool_), np.empty((N_SCRATCH, u))
    for b in range(actions.shape[0]):
        if not active[b]:
            continue
        units, orders, draws, goal = world.units[b], world.orders[b], world.draws[b], world.goal[b]
        world.last_action[b] = actions[b]
        world.steps[b] += 1
        _give_orders(n, units, orders, scratch, actions[b], rules.move_amount)
        for i in range(u):
            alive[i] = units[LIFE, i] > 0.0
        foresee(n, units, orders, kinds, scratch[SPARED_BEFORE])
        play_loops(n, units, orders, draws, goal, kinds, rules, alive, scratch)
        foresee(n, units, orders, kinds, scratch[SPARED])
        judge(n, units, scratch, rewards, world.steps[b] >= rules.limit, outcome[b], ended[b])
        pay(n, units, kinds, scratch, rewards.task_damage, actions[b], outcome[b, N_OUTCOME:])
