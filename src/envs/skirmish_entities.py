"""Compiled task structure of a skirmish: features of agents and enemies, and how many agents an enemy takes.

Shape legend: N allies (agents), E enemies (tasks), U = N + E units (allies first).
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from components.jit import njit
from envs.skirmish_layout import CAPACITIES, CENTER, SIGHT, Layout
from envs.skirmish_volleys import volleys_needed
from envs.skirmish_world import (
    COOLDOWN,
    LIFE,
    MAX_COOLDOWN,
    MAX_LIFE,
    MAX_SHIELD,
    NORTH,
    SHIELD,
    TYPE_COLUMN,
    X,
    Y,
)

Array = NDArray[Any]

PAPER, SHOTS_TO_KILL, FIXED = CAPACITIES["paper"], CAPACITIES["shots_to_kill"], CAPACITIES["fixed"]
# Columns before the type. Agents: place, life, shield, cooldown, free directions; tasks: place, life, shield, capacity.
AGENT_COLUMNS, TASK_COLUMNS = 9, 5


@njit(cache=True, nogil=True, error_model="numpy")
def write_capacity(n: int, units: Array, kinds: Array, layout: Layout, capacity: Array) -> None:
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
            capacity[j] = volleys_needed(n, units, kinds, n + j)
        total += capacity[j]
    if enemies > 0 and total < allies:
        least = (allies + enemies - 1) // enemies
        for j in range(capacity.shape[0]):
            if units[LIFE, n + j] > 0.0:
                capacity[j] = max(capacity[j], least)


@njit(cache=True, nogil=True, error_model="numpy")
def write_entities(
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
