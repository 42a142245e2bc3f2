"""What it costs to give an enemy to an agent, by rules that players know: for the LP instead of learned scores.

Shape legend: B battles, N agents, M enemies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
# Weapons reach about this far, in map units.
REACH = 6.0


class Battle(NamedTuple):
    """What the costs go by.

    Attributes:
        agents: [B, N, 2] places in map units.
        agent_alive: [B, N] bool.
        enemies: [B, M, 2] places in map units.
        left: [B, M] life and shield.
        share: [B, M] of what an enemy has at the start.
    """

    agents: Array
    agent_alive: Array
    enemies: Array
    left: Array
    share: Array


def _distance(battle: Battle) -> Array:
    offset = battle.agents[:, :, None] - battle.enemies[:, None]
    distance: Array = np.sqrt(np.square(offset).sum(-1))
    return distance


def _for_all_agents(cost: Array, battle: Battle) -> Array:
    return np.broadcast_to(cost[:, None], (*battle.agents.shape[:2], cost.shape[1]))


def _center_distance(battle: Battle) -> Array:
    """Focus fire on the enemy nearest to the middle of the living agents, where the capacity lets it."""
    weight = battle.agent_alive[..., None]
    center = (battle.agents * weight).sum(1) / np.maximum(weight.sum(1), 1)
    distance = np.sqrt(np.square(battle.enemies - center[:, None]).sum(-1))
    return np.broadcast_to(distance[:, None], (*battle.agents.shape[:2], distance.shape[1]))


def _health(battle: Battle) -> Array:
    """Focus fire on the weakest, where the capacity lets it; of equals on the one nearest to the middle."""
    return battle.left[:, None] + 0.01 * _center_distance(battle)


def _mix(battle: Battle) -> Array:
    """Distance, and a full enemy is 5 map units farther."""
    return _distance(battle) + 5.0 * battle.share[:, None]


def _range_health(battle: Battle) -> Array:
    """The way until the weapon reaches, and a full enemy is 10 map units farther."""
    return np.maximum(_distance(battle) - REACH, 0.0) + 10.0 * battle.share[:, None]


# Name -> [B, N, M].
COSTS: dict[str, Callable[[Battle], Array]] = {
    "health": _health,
    "center_distance": _center_distance,
    "mix": _mix,
    "range_health": _range_health,
}
