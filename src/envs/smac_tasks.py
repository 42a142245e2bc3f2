"""Enemies as tasks, the same for the game and for the simulator.

Shape legend: N agents, M enemies (tasks).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from components.registry import Options

Array = NDArray[Any]


class CombatOptions(Options):
    """How many agents an enemy takes, and what agents earn for theirs."""

    capacity: Literal["paper", "none", "shots_to_kill", "fixed"] = Field(
        "paper",
        description="agents for each living enemy at most: half of the living enemies, rounded up; all; as many as "
        "kill it with one volley each; or fixed_capacity. Raised where it cannot hold the living agents",
    )
    fixed_capacity: int = Field(2, ge=1, description="of capacity: fixed")
    task_rewards: Literal["kill", "damage"] = Field(
        "damage",
        description="agents earn 1 when their enemy dies (kill); or that and the share of its health it loses, divided "
        "among the agents that attacked it; of skirmish, shots that fly count when they leave",
    )
    high_rewards: Literal["win", "exchange"] = Field(
        "exchange",
        description="the assignment earns 1 for a win, or the exchange: what the enemies lose less what the agents "
        "lose, half of it as shares of health and half as shares of units",
    )
    flat_reward: Literal["smac", "levels"] = Field(
        "smac",
        description="what methods of one level learn from: what the reward_* options say, or what LPMARL's two levels "
        "do, half of reward_high and half of what the agents earn on average",
    )
    episode_limit: int | None = Field(None, ge=1, description="steps of an episode; null: the map's")


class VolleyDamage(NamedTuple):
    """What one volley of each agent does to each enemy.

    Attributes:
        on_shield: [N, M] while the enemy has a shield.
        on_life: [N, M] after that: armor takes its part.
    """

    on_shield: Array
    on_life: Array


def volleys_needed(damage: VolleyDamage, agent_alive: Array, life: Array, shield: Array) -> Array:
    """Volleys of the average living agent that each enemy dies of: [M] int64, at least 1.

    Args:
        damage: what a volley does.
        agent_alive: [N] bool.
        life: [M].
        shield: [M].
    """
    if not agent_alive.any():
        return np.ones(len(life), dtype=np.int64)
    on_shield, on_life = damage.on_shield[agent_alive].mean(0), damage.on_life[agent_alive].mean(0)
    # A volley that would leave a trace of life by rounding counts as deadly.
    needed = np.ceil(shield / on_shield + life / on_life - 1e-9)
    return np.maximum(needed, 1).astype(np.int64)


def capacities(options: CombatOptions, agent_alive: Array, task_alive: Array, volleys: Array | None) -> Array:
    """Agents that each enemy takes: the rule of ``options.capacity``, raised to what holds all living agents.

    Args:
        options: which rule.
        agent_alive: [N] bool.
        task_alive: [M] bool.
        volleys: [M] from ``volleys_needed``, for ``capacity: shots_to_kill``.

    Returns:
        [M] int64, 0 for dead enemies.
    """
    agents, tasks = int(agent_alive.sum()), int(task_alive.sum())
    allowed: Array = np.zeros(len(task_alive), dtype=np.int64)
    rules = {"paper": (tasks + 1) // 2, "none": len(agent_alive), "fixed": options.fixed_capacity}
    allowed[task_alive] = volleys[task_alive] if volleys is not None else rules[options.capacity]
    if tasks and allowed.sum() < agents:
        allowed[task_alive] = np.maximum(allowed[task_alive], -(-agents // tasks))
    return allowed


def task_rewards(rule: str, lost: Array, died: Array, attacked: Array) -> Array:
    """[N, M] float32: what each agent would earn for each enemy.

    Args:
        rule: ``kill``: 1 for the enemy's death, for every agent. ``damage``: 1 for its death and the share of its
            health that it lost, divided among the agents that attacked it in this step (among all when nobody did, as
            shots that fly may hit later), so that an enemy is worth 2 however many fight it.
        lost: [M] share of its life and shield that each enemy lost.
        died: [M] bool.
        attacked: [N, M] bool: the agents' actions name these enemies.
    """
    if rule == "kill":
        return np.tile(died, (len(attacked), 1)).astype(np.float32)
    share = np.where(attacked.any(0), attacked, True).astype(np.float64)
    earned: Array = (lost + died) * share / share.sum(0)
    return earned.astype(np.float32)


def level_reward(high: Array, earned: Array) -> Array:
    """[...]: half of ``high`` [...] and half of what agents earn in the mean, ``earned`` [..., N, M] for each task."""
    reward: Array = 0.5 * high + 0.5 * earned.sum(-1).mean(-1)
    return reward


def high_reward(rule: str, won: bool, before: Array, left: Array, full: Array, n: int) -> float:
    """What the assignment earns in a step.

    Args:
        rule: ``win``: 1 for a win. ``exchange``: what the enemies lost less what the agents lost, half of it as shares
            of health and half as shares of units; a win without a loss earns 1 in all.
        won: the battle.
        before: [N + M] life and shield of agents, then enemies, before the step.
        left: [N + M] after it; more where a shield regenerates.
        full: [N + M] at full health.
        n: agents.
    """
    if rule == "win":
        return float(won)
    lost, died = before - left, (before > 0) & (left <= 0)
    health = lost[n:].sum() / full[n:].sum() - lost[:n].sum() / full[:n].sum()
    return float(0.5 * (health + died[n:].mean() - died[:n].mean()))
