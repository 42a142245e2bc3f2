"""Compiled outcome of a step of a skirmish: SMAC's rewards, what agents earn at each enemy, and how battles end.

Shape legend: N allies, E enemies, U = N + E units (allies first).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from components.jit import njit
from envs.skirmish_world import BEFORE, FIRST_ATTACK, LIFE, MAX_LIFE, MAX_SHIELD, SHIELD, SPARED, SPARED_BEFORE

Array = NDArray[Any]

# Columns of ``outcome`` before the N E task rewards.
REWARD, WON, HIGH, DEAD_ALLIES, DEAD_ENEMIES, N_OUTCOME = range(6)
# Columns of ``ended``.
TERMINATED, TRUNCATED = 0, 1


class Rewards(NamedTuple):
    """SMAC's reward options, by SMAC's names.

    Attributes:
        sparse: only win and defeat, 1 and -1.
        only_positive: losses of the own side cost nothing.
        death_value: for each dead enemy.
        win: for winning.
        defeat: for losing.
        negative_scale: factor on what the own side loses.
        scale: divides every reward; 1 = off.
        limit_ends: a battle out of time has ended for good.
        task_damage: agents earn their share of what their attacks do, not only 1 when their enemy dies.
        exchange: the high level earns the exchange of health and units instead of 1 for a win.
        ally_health, enemy_health: life and shield of each side at full health.
    """

    sparse: bool
    only_positive: bool
    death_value: float
    win: float
    defeat: float
    negative_scale: float
    scale: float
    limit_ends: bool
    task_damage: bool
    exchange: bool
    ally_health: float
    enemy_health: float


@njit(cache=True, nogil=True, error_model="numpy")
def judge(
    n: int, units: Array, scratch: Array, rewards: Rewards, out_of_time: bool, outcome: Array, ended: Array
) -> None:
    """Reward of a world's step, kills, and whether its battle has ended."""
    u = units.shape[1]
    hurt = deaths = lost = own = killed = fallen = 0.0
    allies = enemies = 0
    for i in range(u):
        before, left = scratch[BEFORE, i], units[LIFE, i] + units[SHIELD, i]
        died = before > 0.0 and left <= 0.0
        if i < n:
            allies += left > 0.0
            own += before - left
            fallen += died
            lost += before - left + rewards.death_value * died
        else:
            enemies += left > 0.0
            hurt += before - left
            killed += died
            deaths += rewards.death_value * died
    over, won, beaten = allies == 0 or enemies == 0, enemies == 0 and allies > 0, allies == 0 and enemies > 0
    if rewards.sparse:
        reward = 1.0 * won - 1.0 * beaten
    else:
        # Shields that regenerate count as well: SMAC takes the absolute value.
        reward = abs(hurt + deaths) if rewards.only_positive else hurt + deaths - rewards.negative_scale * lost
        reward += rewards.win * won + rewards.defeat * beaten
    outcome[REWARD] = reward / rewards.scale
    outcome[WON] = won
    outcome[HIGH] = won
    if rewards.exchange:
        health = hurt / rewards.enemy_health - own / rewards.ally_health
        outcome[HIGH] = 0.5 * (health + killed / (u - n) - fallen / n)
    outcome[DEAD_ALLIES], outcome[DEAD_ENEMIES] = n - allies, u - n - enemies
    ended[TERMINATED] = over or (out_of_time and rewards.limit_ends)
    ended[TRUNCATED] = out_of_time and not over and not rewards.limit_ends


@njit(cache=True, nogil=True, error_model="numpy")
def pay(n: int, units: Array, kinds: Array, scratch: Array, damage: bool, actions: Array, earned: Array) -> None:
    """What each agent earns for each enemy, [N E] row by row; see ``smac_tasks.task_rewards``.

    Volleys that fly are paid when they leave: when they arrive, who fired them may have another task, and others who
    came later would be paid for them.
    """
    e = units.shape[1] - n
    for j in range(e):
        k = n + j
        if damage:
            before, left = scratch[SPARED_BEFORE, k], scratch[SPARED, k]
            worth = max(before - left, 0.0) / (kinds[MAX_LIFE, k] + kinds[MAX_SHIELD, k])
            worth += 1.0 if before > 0.0 and left <= 0.0 else 0.0
            attackers = 0
            for i in range(n):
                attackers += actions[i] == FIRST_ATTACK + j
            for i in range(n):
                earned[i * e + j] = worth / attackers if actions[i] == FIRST_ATTACK + j else 0.0
        else:
            died = scratch[BEFORE, k] > 0.0 and units[LIFE, k] + units[SHIELD, k] <= 0.0
            for i in range(n):
                earned[i * e + j] = 1.0 if died else 0.0
