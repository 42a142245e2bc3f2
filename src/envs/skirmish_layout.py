"""Which columns the observations of skirmishes have, and the arrays that they are written to.

Shape legend: B worlds, N allies (agents), E enemies (tasks), A = 6 + E actions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from envs.skirmish_maps import MAP_SIDE
from envs.skirmish_world import FIRST_ATTACK

Array = NDArray[Any]

# How far agents see and shoot, and the middle of the map.
SIGHT, SHOOT = 9.0, 6.0
CENTER = MAP_SIDE / 2
# How many agents may be assigned to one enemy.
CAPACITIES = {"paper": 0, "none": 1, "shots_to_kill": 2, "fixed": 3}


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
