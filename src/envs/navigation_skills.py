"""Navigation with types: an agent that does not match a landmark's type needs a set-up time there before it counts.

Nothing observed says whether an agent matches a landmark, only the types do: docs/environments/navigation.md.

Shape legend: B worlds, N agents, M landmarks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from envs.base import StepResult
from envs.navigation import CostWriter, Navigation
from envs.navigation_draws import ranks
from envs.navigation_options import ConstrainedNavigationOptions

# Columns of ``World.agent_extra``.
TYPE, HELD = 0, 1

Array = NDArray[Any]


class NavigationSkillsOptions(ConstrainedNavigationOptions):
    """``env_args`` of ``navigation_skills``."""

    episode_limit: int = Field(17, ge=1, description="steps after which an episode is truncated")
    setup_steps: int = Field(
        8, ge=1, description="further steps that an agent of the other type stays at a landmark before it counts"
    )


class NavigationSkills(Navigation):
    """B worlds whose agents and landmarks have one of two types.

    Landmark j has type j mod 2. Of each type there are as many agents as the landmarks of that type need. Agents'
    features and the flat fields gain the type (-1 or 1) and the steps held / ``setup_steps`` (at most 1), landmarks'
    the type.
    """

    AGENT_COLUMNS = 2
    TASK_COLUMNS = 1
    DRAWS_PER_AGENT = 1

    def __init__(self, options: NavigationSkillsOptions, *args: Any, **kwargs: Any) -> None:
        self._setup_steps = options.setup_steps
        super().__init__(options, *args, **kwargs)

    @override
    def _costs(self) -> dict[str, CostWriter]:
        return super()._costs() | {"mismatch": self._write_mismatch}

    def _write_mismatch(self, mismatch: Array, active: Array) -> None:
        """1 where the types differ, else 0."""
        mismatch[active] = self._world.needed[active] > 0

    @override
    def _write_travel_times(self, times: Array, active: Array) -> None:
        """Adds the set-up time where the types differ, less the steps already held there."""
        super()._write_travel_times(times, active)
        here = self._world.at_landmark[active, :, None] == np.arange(self._most[1])
        held = np.where(here, self._world.held[active, :, None], 0)
        times[active] += np.maximum(self._world.needed[active] - held, 0)

    @override
    def _place(self, rows: Array, draws: Array) -> None:
        super()._place(rows, draws)
        (n, m), sizes = self._most, self._world.sizes[rows]
        task_type = np.arange(m) % 2
        n_odd = (self.capacity[rows] * task_type).sum(1)
        agent_type = (ranks(draws[:, -n:], sizes[:, 0]) < n_odd[:, None]).astype(np.int64)
        pairs = self._pairs()[rows]
        agents, landmarks = pairs.any(2), pairs.any(1)
        self._world.needed[rows] = self._setup_steps * (pairs & (agent_type[:, :, None] != task_type))
        self._world.agent_extra[rows, :, TYPE] = (2 * agent_type - 1) * agents
        self._world.task_extra[rows, :, 0] = (2 * task_type - 1) * landmarks
        self._world.agent_extra[rows, :, HELD] = 0.0

    @override
    def step(self, actions: Array, active: Array) -> StepResult:
        self._advance(actions, active)
        held = np.minimum(self._world.held[active] / self._setup_steps, 1.0)
        self._world.agent_extra[active, :, HELD] = held
        self._observe(active)
        self._observe_costs(active)
        return self._result
