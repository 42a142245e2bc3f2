"""Cooperative navigation: N agents occupy M landmarks, each landmark asks for its capacity of agents.

``navigation`` is the paper's plain task (N = M, one agent each), ``constrained_navigation`` draws the capacities as
a composition of N into M positive parts, uniform over compositions, at every reset. Discs, spawn ranges, counting
and rewards: docs/environments/navigation.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator
from typing_extensions import override

from components.jit import HAVE_NUMBA
from components.random import load_rng_state, rng_state
from components.registry import Options
from envs import navigation_kernel, navigation_numpy
from envs.base import TASK_FIELDS, Array, EnvInfo, StepResult, TaskInfo, VectorEnv, check_fields
from envs.navigation_kernel import N_OUTCOME, REWARD, REWARD_HIGH, RULES, TERMINATED, TRUNCATED

SPAWN_RANGE = 1.0
LANDMARK_RANGE = 0.8
N_MOVES = 5


class ConstrainedNavigationOptions(Options):
    """``env_args`` of ``constrained_navigation``."""

    n_landmarks: int = Field(3, ge=1, le=1000, description="M, landmarks")
    n_agents: int = Field(5, ge=1, le=1000, description="N, agents; at least one for each landmark")
    agent_radius: float = Field(
        0.05, ge=0, le=1, description="agents touch at twice this distance (arena half-width 1)"
    )
    occupancy_radius: float = Field(0.2, gt=0, le=2, description="an agent within it counts for its nearest landmark")
    sight_radius: float = Field(1.0, gt=0, description="distance up to which agents observe each other (graph methods)")
    episode_limit: int = Field(50, ge=1, description="steps after which an episode is truncated")
    rewards: Literal["sparse", "dense"] = Field("sparse", description="dense adds distance and collision terms")
    reach_reward: Literal["step", "delta", "first"] = Field(
        "step", description="per step inside a landmark; on entering, minus on leaving; or once per episode"
    )
    capacities: list[int] | None = Field(
        None, description="agents that each landmark needs, summing to n_agents; null: drawn anew in every episode"
    )

    @model_validator(mode="after")
    def _each_landmark_needs_an_agent(self) -> ConstrainedNavigationOptions:
        if self.n_landmarks > self.n_agents:
            raise ValueError(
                f"env_args.n_landmarks = {self.n_landmarks} is more than env_args.n_agents = {self.n_agents}, but "
                f"every landmark needs at least one agent: use n_landmarks <= {self.n_agents}"
            )
        return self

    @model_validator(mode="after")
    def _capacities_fit(self) -> ConstrainedNavigationOptions:
        if self.capacities is None:
            return self
        given, n, m, total = self.capacities, self.n_agents, self.n_landmarks, sum(self.capacities)
        if len(given) != m:
            fault = f"has {len(given)} entries, but env_args.n_landmarks = {m}: give {m} capacities"
        elif min(given) < 1:
            fault = "has an entry below 1, but every landmark needs at least one agent: use entries >= 1"
        elif total < n:
            fault = f"sums to {total} and cannot hold the {n} agents: they must sum to env_args.n_agents = {n}"
        elif total > n:
            fault = f"sums to {total}, more than the {n} agents can fill: they must sum to env_args.n_agents = {n}"
        else:
            return self
        raise ValueError(f"env_args.capacities = {given} {fault}")


class NavigationOptions(ConstrainedNavigationOptions):
    """``env_args`` of ``navigation``: as many agents as landmarks, simple_spread's agent size."""

    n_agents: int = Field(3, ge=1, le=1000, description="N, agents; equal to n_landmarks")
    agent_radius: float = Field(
        0.15, ge=0, le=1, description="agents touch at twice this distance (arena half-width 1)"
    )

    @model_validator(mode="after")
    def _one_agent_per_landmark(self) -> NavigationOptions:
        if self.n_landmarks != self.n_agents:
            raise ValueError(
                f"env_args.n_agents = {self.n_agents} differs from env_args.n_landmarks = {self.n_landmarks}: plain "
                "navigation has one agent per landmark; use env-config constrained_navigation for other numbers"
            )
        return self


class Navigation(VectorEnv):
    """B worlds in one call.

    Args:
        options: physics, sizes and rewards.
        seeds: one seed per environment; its draws depend on nothing else.
        fields: which fields to observe (``EnvInfo.field_shapes``).
        numba: use the compiled step; without Numba the NumPy one, which gives the same numbers.
    """

    def __init__(
        self,
        options: ConstrainedNavigationOptions,
        seeds: Sequence[int],
        fields: Sequence[str],
        numba: bool = HAVE_NUMBA,
    ) -> None:
        b, n, m = len(seeds), options.n_agents, options.n_landmarks
        self.n_envs = b
        self._seeds = list(seeds)
        self._rngs = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]
        self._plain = isinstance(options, NavigationOptions)
        self._draws_capacities = not self._plain and options.capacities is None
        shared = 0 if self._plain else m
        self.info = EnvInfo(
            n_agents=n,
            n_actions=N_MOVES,
            obs_shape=4 + 2 * m + shared + 2 * (n - 1),
            state_shape=4 * n + 2 * m + shared,
            episode_limit=options.episode_limit,
            tasks=TaskInfo(
                n_tasks=m,
                agent_feats=4,
                task_feats=3,
                agent_sight=options.sight_radius,
                agent_radius=options.agent_radius,
                task_radius=options.occupancy_radius,
                half_width=SPAWN_RANGE,
            ),
        )
        check_fields(self.info, fields)
        self.position = np.zeros((b, n, 2))
        self.velocity = np.zeros((b, n, 2))
        self.landmark = np.zeros((b, m, 2))
        self.capacity = np.ones((b, m), dtype=np.int64)
        if options.capacities is not None:
            self.capacity[:] = options.capacities
        self._at_landmark = np.full((b, n), -1, dtype=np.int64)
        self._visited = np.zeros((b, n, m), dtype=np.bool_)
        self._clock = np.zeros((b, 2), dtype=np.int64)
        self._outcome = np.zeros((b, N_OUTCOME + n * m), dtype=np.float32)
        self._ended = np.zeros((b, 2), dtype=np.bool_)
        self._draws = np.zeros((b, 2 * n + 2 * m + max(n - 1, 0)))
        self._allocate_observation(fields)
        params = np.array(
            [
                options.agent_radius,
                options.occupancy_radius,
                options.episode_limit,
                RULES[options.reach_reward],
                options.rewards == "dense",
            ],
            dtype=np.float64,
        )
        observed = (
            self.position,
            self.velocity,
            self.landmark,
            self.capacity,
            *self._features,
            not self._plain,
        )
        progress = (self._at_landmark, self._visited, self._clock, self._outcome, self._ended, params)
        kernel: Any = navigation_kernel if numba else navigation_numpy
        self._step = partial(kernel.step_worlds, *observed, *progress)
        self._observe = partial(kernel.observe_worlds, *observed, np.ones(b, dtype=np.bool_))
        self._result = StepResult(
            reward=self._outcome[:, REWARD],
            terminated=self._ended[:, TERMINATED],
            truncated=self._ended[:, TRUNCATED],
            extras={
                "reward_high": self._outcome[:, REWARD_HIGH],
                "task_reward": self._outcome[:, N_OUTCOME:].reshape(b, n, m),
            },
        )

    def _allocate_observation(self, fields: Sequence[str]) -> None:
        b, shapes = self.n_envs, self.info.field_shapes()
        structured = any(name in TASK_FIELDS for name in fields)
        wanted = {
            "obs": "obs" in fields,
            "state": "state" in fields,
            "agent_feats": structured,
            "task_feats": structured,
        }
        self._features = tuple(np.zeros((b if wanted[name] else 0, *shapes[name]), dtype=np.float32) for name in wanted)
        everything = dict(zip(wanted, self._features, strict=True)) | {
            "avail_actions": np.ones((b, *shapes["avail_actions"]), dtype=np.int32),
            "agent_alive": np.ones((b, *shapes["agent_alive"]), dtype=np.bool_),
            "task_alive": np.ones((b, *shapes["task_alive"]), dtype=np.bool_),
            "capacity": self.capacity,
        }
        self.observation = {name: everything[name] for name in fields}

    @property
    @override
    def seeds(self) -> list[int]:
        return self._seeds

    @override
    def reset(self) -> None:
        for draws, rng in zip(self._draws, self._rngs, strict=True):
            rng.random(out=draws)
        n, m = self.position.shape[1], self.landmark.shape[1]
        self.position[:] = SPAWN_RANGE * (2.0 * self._draws[:, : 2 * n].reshape(-1, n, 2) - 1.0)
        spread = self._draws[:, 2 * n : 2 * (n + m)].reshape(-1, m, 2)
        self.landmark[:] = LANDMARK_RANGE * (2.0 * spread - 1.0)
        if self._draws_capacities:
            self.capacity[:] = compositions(self._draws[:, 2 * (n + m) :], n, m)
        self.velocity[:] = 0.0
        self._at_landmark[:] = -1
        self._visited[:] = False
        self._clock[:] = 0
        self._ended[:] = False
        self._observe()

    @override
    def step(self, actions: Array, active: Array) -> StepResult:
        self._step(actions, active)
        return self._result

    @override
    def episode_metrics(self) -> dict[str, Array]:
        offset = self.position[:, :, None] - self.landmark[:, None]
        distance = np.sqrt(np.square(offset).sum(-1))
        success = self._ended[:, TERMINATED]
        return {
            "success": success.astype(np.float64),
            "steps_to_success": np.where(success, self._clock[:, 0], np.nan),
            "min_distance": distance.min(-1).mean(-1),
            "collisions": self._clock[:, 1].astype(np.float64),
        }

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "rngs": [rng_state(rng) for rng in self._rngs],
            "worlds": {name: array.copy() for name, array in self._world().items()},
        }

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for rng, saved in zip(self._rngs, state["rngs"], strict=True):
            load_rng_state(rng, saved)
        for name, array in self._world().items():
            array[:] = state["worlds"][name]
        self._observe()

    def _world(self) -> dict[str, Array]:
        return {
            "position": self.position,
            "velocity": self.velocity,
            "landmark": self.landmark,
            "capacity": self.capacity,
            "at_landmark": self._at_landmark,
            "visited": self._visited,
            "clock": self._clock,
            "ended": self._ended,
        }


def compositions(draws: Array, n: int, m: int) -> Array:
    """Compositions of n into m positive parts, each equally likely.

    Walks over the n - 1 gaps between n agents in a row and cuts m - 1 of them: gap g is cut with probability
    (cuts left) / (gaps left), which draws every set of cuts equally often.

    Args:
        draws: [B, n - 1] uniform in [0, 1).
        n: agents.
        m: parts, at most n.

    Returns:
        [B, m] int64, rows sum to n.
    """
    b = len(draws)
    cuts_left = np.full(b, m - 1)
    part = np.zeros(b, dtype=np.int64)
    sizes = np.zeros((b, m), dtype=np.int64)
    rows = np.arange(b)
    for agent in range(n):
        sizes[rows, part] += 1
        gaps_left = n - 1 - agent
        if gaps_left:
            cut = draws[:, agent] * gaps_left < cuts_left
            part += cut
            cuts_left -= cut
    return sizes
