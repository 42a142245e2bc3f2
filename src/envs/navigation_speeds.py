"""Navigation with slow and fast agents and a deadline: the nearest landmark is not the one to send an agent to.

A draw is kept only when somebody could solve it: docs/environments/navigation.md.

Shape legend: B worlds, N agents, M landmarks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import override

from components.errors import UserError
from components.jit import njit
from envs.navigation import CostWriter, Navigation
from envs.navigation_draws import ranks
from envs.navigation_kernel import PUSH
from envs.navigation_options import ConstrainedNavigationOptions

# An environment gives up on its settings after so many draws of one episode.
MAX_DRAWS = 2000

Array = NDArray[Any]


class NavigationSpeedsOptions(ConstrainedNavigationOptions):
    """``env_args`` of ``navigation_speeds``."""

    episode_limit: int = Field(21, ge=1, description="steps after which an episode is truncated")
    slow_share: float = Field(0.5, ge=0, le=1, description="share of the agents that are slow, rounded down")
    slow_acceleration: float = Field(1.0, gt=0, le=5, description="of a slow agent's push; top speed is 0.4 of it")
    fast_acceleration: float = Field(5.0, gt=0, le=5, description="of a fast agent's push; beyond 5 parking is coarse")
    slack: int = Field(
        2, ge=0, description="an episode can be assigned so that everybody alone arrives this many steps before its end"
    )

    @model_validator(mode="after")
    def _slow_is_slower(self) -> NavigationSpeedsOptions:
        if self.slow_acceleration > self.fast_acceleration:
            raise ValueError(
                f"env_args.slow_acceleration = {self.slow_acceleration} is more than env_args.fast_acceleration = "
                f"{self.fast_acceleration}: use at most that"
            )
        return self

    @model_validator(mode="after")
    def _time_is_left(self) -> NavigationSpeedsOptions:
        if self.slack >= self.episode_limit:
            raise ValueError(
                f"env_args.slack = {self.slack} leaves no step of env_args.episode_limit = {self.episode_limit}: use "
                f"slack < {self.episode_limit}"
            )
        return self


class NavigationSpeeds(Navigation):
    """B worlds with slow and fast agents.

    Agents' features and the flat fields gain the acceleration / 5. A setting in which no draw can be solved ends in a
    ``UserError`` after ``MAX_DRAWS`` draws of an episode.
    """

    AGENT_COLUMNS = 1
    DRAWS_PER_AGENT = 1

    def __init__(self, options: NavigationSpeedsOptions, *args: Any, **kwargs: Any) -> None:
        self._options = options
        super().__init__(options, *args, **kwargs)

    @override
    def _costs(self) -> dict[str, CostWriter]:
        return super()._costs() | {"distance_over_acceleration": self._write_distances}

    def _write_distances(self, ratios: Array, active: Array) -> None:
        """Distance / acceleration; 0 where agent or landmark are absent."""
        offset = self.position[active, :, None] - self.landmark[active, None]
        ratio = np.sqrt(np.square(offset).sum(-1)) / self._world.push[active, :, None]
        ratios[active] = np.where(self._pairs()[active], ratio, 0.0)

    @override
    def _start(self, rows: Array) -> None:
        left = rows
        for _ in range(MAX_DRAWS):
            super()._start(left)
            left = left[~self._solvable(left)]
            if not len(left):
                return
        given = self._options
        raise UserError(
            f"none of {MAX_DRAWS} draws of an episode can be solved within env_args.episode_limit - env_args.slack = "
            f"{given.episode_limit} - {given.slack} steps: use a larger episode_limit, a smaller slack, a smaller "
            f"env_args.slow_share (now {given.slow_share}), larger env_args.slow_acceleration (now "
            f"{given.slow_acceleration}) and env_args.fast_acceleration (now {given.fast_acceleration}) or a larger "
            f"env_args.occupancy_radius (now {given.occupancy_radius})"
        )

    @override
    def _place(self, rows: Array, draws: Array) -> None:
        super()._place(rows, draws)
        given, n = self._world.sizes[rows, 0], self._most[0]
        # A share times a whole number may fall just short of the whole number that it is.
        n_slow = np.floor(self._options.slow_share * given + 1e-9)
        slow = ranks(draws[:, -n:], given) < n_slow[:, None]
        push = np.where(slow, self._options.slow_acceleration, self._options.fast_acceleration)
        self._world.push[rows] = push
        self._world.agent_extra[rows, :, 0] = push / PUSH * (np.arange(n) < given[:, None])
        # Travel times start at rest, and the last episode's velocities are still here.
        self.velocity[rows] = 0.0

    def _solvable(self, rows: Array) -> Array:
        """[rows] bool: an assignment within the capacities has everybody alone arrive in time."""
        times = np.zeros((self.n_envs, *self._most), dtype=np.float32)
        active = np.zeros(self.n_envs, dtype=np.bool_)
        active[rows] = True
        self._write_travel_times(times, active)
        allowed = times[rows] <= self._options.episode_limit - self._options.slack
        return assignable(allowed, self.capacity[rows], self._world.sizes[rows])


@njit(cache=True, nogil=True, error_model="numpy")
def assignable(allowed: Array, capacity: Array, sizes: Array) -> Array:
    """Whether each agent can get an allowed landmark within the capacities.

    Places the agents one after the other, each by a breadth-first search for a chain of moves that ends at a landmark
    with a free place; one that has no such chain proves that no assignment exists (bipartite matching).

    Args:
        allowed: [B, N, M] bool.
        capacity: [B, M] int64.
        sizes: [B, 2] agents and landmarks that are there.

    Returns:
        [B] bool.
    """
    found = np.ones(allowed.shape[0], np.bool_)
    load = np.empty(allowed.shape[2], np.int64)
    match, queue = np.empty(allowed.shape[1], np.int64), np.empty(allowed.shape[1], np.int64)
    reached_by = np.empty(allowed.shape[2], np.int64)
    for b in range(allowed.shape[0]):
        load[:] = 0
        match[:] = -1
        for i in range(sizes[b, 0]):
            if not _placed(allowed[b], capacity[b], sizes[b], i, match, load, queue, reached_by):
                found[b] = False
                break
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def _placed(
    allowed: Array, capacity: Array, sizes: Array, i: int, match: Array, load: Array, queue: Array, reached_by: Array
) -> bool:
    """Places agent i, moving others where needed; ``match`` [N] and ``load`` [M] change, the last two are scratch."""
    reached_by[:] = -1
    queue[0] = i
    head, tail = 0, 1
    while head < tail:
        agent = queue[head]
        head += 1
        for j in range(sizes[1]):
            if not allowed[agent, j] or reached_by[j] >= 0:
                continue
            reached_by[j] = agent
            if load[j] < capacity[j]:
                load[j] += 1
                _move_along(j, i, match, reached_by)
                return True
            for k in range(i):
                if match[k] == j:
                    queue[tail] = k
                    tail += 1
    return False


@njit(cache=True, nogil=True, error_model="numpy")
def _move_along(j: int, i: int, match: Array, reached_by: Array) -> None:
    """Gives landmark j to the agent that reached it, that agent's landmark to who reached it, ... until agent i."""
    agent = -1
    while agent != i:
        agent = reached_by[j]
        before = match[agent]
        match[agent] = j
        j = before
