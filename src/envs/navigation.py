"""Cooperative navigation: N agents occupy M landmarks, each landmark asks for its capacity of agents.

``navigation`` is the paper's plain task (N = M, one agent each), ``constrained_navigation`` draws the capacities as
a composition of N into M positive parts, uniform over compositions, at every reset. Discs, spawn ranges, counting
and rewards: docs/environments/navigation.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
from typing_extensions import override

from components.jit import HAVE_NUMBA
from components.random import load_rng_state, rng_state
from envs import navigation_kernel, navigation_numpy
from envs.base import TASK_FIELDS, Array, EnvInfo, StepResult, TaskInfo, VectorEnv, check_fields
from envs.navigation_draws import compositions, draw_sizes
from envs.navigation_kernel import N_OUTCOME, PUSH, REWARD, REWARD_HIGH, RULES, TERMINATED, TRUNCATED
from envs.navigation_options import ConstrainedNavigationOptions, NavigationOptions
from envs.navigation_world import Views, World, present
from envs.travel_time import fill_travel_times, fill_travel_times_numpy

__all__ = ["ConstrainedNavigationOptions", "Navigation", "NavigationOptions"]

SPAWN_RANGE = 1.0
LANDMARK_RANGE = 0.8
N_MOVES = 5

# Writes one cost of the active worlds: ``(field [B, N, M] float32, active [B])``.
CostWriter = Callable[[Array, Array], None]


class Navigation(VectorEnv):
    """B worlds in one call. Subclasses change what a world holds in ``_place`` and what it knows in ``_costs``.

    Args:
        options: physics, sizes and rewards.
        seeds: one seed per environment; its draws depend on nothing else.
        fields: which fields to observe (``EnvInfo.field_shapes``).
        numba: use the compiled step; without Numba the NumPy one, which gives the same numbers.
    """

    # Further feature columns of agents and landmarks, and uniform numbers per agent that ``_place`` finds at the end
    # of its draws.
    AGENT_COLUMNS: ClassVar[int] = 0
    TASK_COLUMNS: ClassVar[int] = 0
    DRAWS_PER_AGENT: ClassVar[int] = 0

    def __init__(
        self,
        options: ConstrainedNavigationOptions,
        seeds: Sequence[int],
        fields: Sequence[str],
        numba: bool = HAVE_NUMBA,
    ) -> None:
        b, n, m = len(seeds), options.n_agents, options.n_landmarks
        self.n_envs = b
        self._numba = numba
        self._seeds = list(seeds)
        self._rngs = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]
        self._everyone = np.ones(b, dtype=np.bool_)
        plain = isinstance(options, NavigationOptions)
        self._draws_capacities = not plain and options.capacities is None
        self._fewest, self._most = options.fewest, (n, m)
        self._radius = options.occupancy_radius
        drawn_sizes = 0 if self._fewest == self._most else 2
        self._draws = np.zeros((b, 2 * n + 2 * m + n - 1 + drawn_sizes + self.DRAWS_PER_AGENT * n))
        self.info = self._describe(options, 0 if plain else m)
        check_fields(self.info, fields)
        self._world = self._empty_worlds()
        if options.capacities is not None:
            self._world.capacity[:] = options.capacities
        self.position, self.velocity = self._world.position, self._world.velocity
        self.landmark, self.capacity = self._world.landmark, self._world.capacity
        self._outcome = np.zeros((b, N_OUTCOME + n * m + n), dtype=np.float32)
        self._ended = np.zeros((b, 2), dtype=np.bool_)
        self._allocate_observation(fields)
        rules = RULES[options.reach_reward], options.rewards == "dense"
        exact = not plain
        params = np.array([options.agent_radius, self._radius, options.episode_limit, *rules, exact], dtype=np.float64)
        kernel: Any = navigation_kernel if numba else navigation_numpy
        observed, results = (self._world, self._views, not plain), (self._outcome, self._ended, params)
        self._step = partial(kernel.step_worlds, *observed, *results)
        self._advance = partial(kernel.advance_worlds, self._world, *results)
        self._observe = partial(kernel.observe_worlds, *observed)
        extras = {
            "reward_high": self._outcome[:, REWARD_HIGH],
            "task_reward": self._outcome[:, N_OUTCOME : N_OUTCOME + n * m].reshape(b, n, m),
            "agent_reward": self._outcome[:, N_OUTCOME + n * m :],
        }
        ended = self._ended[:, TERMINATED], self._ended[:, TRUNCATED]
        self._result = StepResult(self._outcome[:, REWARD], *ended, extras=extras)

    def _describe(self, options: ConstrainedNavigationOptions, shared: int) -> EnvInfo:
        """Shapes and limits; ``shared`` capacities are in the flat fields."""
        n, m = self._most
        extra = self.TASK_COLUMNS * m
        return EnvInfo(
            n_agents=n,
            n_actions=N_MOVES,
            obs_shape=4 + 2 * m + shared + 2 * (n - 1) + self.AGENT_COLUMNS + extra,
            state_shape=(4 + self.AGENT_COLUMNS) * n + 2 * m + shared + extra,
            episode_limit=options.episode_limit,
            tasks=TaskInfo(
                n_tasks=m,
                agent_feats=4 + self.AGENT_COLUMNS,
                task_feats=3 + self.TASK_COLUMNS,
                agent_sight=options.sight_radius,
                agent_radius=options.agent_radius,
                task_radius=options.occupancy_radius,
                half_width=SPAWN_RANGE,
                costs=tuple(self._costs()),
            ),
        )

    def _empty_worlds(self) -> World:
        b, (n, m) = self.n_envs, self._most
        return World(
            position=np.zeros((b, n, 2)),
            velocity=np.zeros((b, n, 2)),
            landmark=np.zeros((b, m, 2)),
            capacity=np.ones((b, m), dtype=np.int64),
            sizes=np.full((b, 2), self._most, dtype=np.int64),
            push=np.full((b, n), PUSH),
            needed=np.zeros((b, n, m), dtype=np.int64),
            agent_extra=np.zeros((b, n, self.AGENT_COLUMNS)),
            task_extra=np.zeros((b, m, self.TASK_COLUMNS)),
            at_landmark=np.full((b, n), -1, dtype=np.int64),
            held=np.zeros((b, n), dtype=np.int64),
            visited=np.zeros((b, n, m), dtype=np.bool_),
            clock=np.zeros((b, 2), dtype=np.int64),
        )

    def _allocate_observation(self, fields: Sequence[str]) -> None:
        b, shapes = self.n_envs, self.info.field_shapes()
        structured = any(name in TASK_FIELDS for name in fields)
        rows = {name: b if name in fields or (structured and name in TASK_FIELDS) else 0 for name in Views._fields}
        self._views = Views(*(np.zeros((rows[name], *shapes[name]), dtype=np.float32) for name in rows))
        self._alive = tuple(np.ones((b, size), dtype=np.bool_) for size in self._most)
        self._available = np.ones((b, *shapes["avail_actions"]), dtype=np.int32)
        requested = {name: write for name, write in self._costs().items() if name in fields}
        costs = {name: np.zeros((b, *shapes[name]), dtype=np.float32) for name in requested}
        self._cost_writers = [partial(write, costs[name]) for name, write in requested.items()]
        everything = self._views._asdict() | costs
        everything |= {
            "avail_actions": self._available,
            "agent_alive": self._alive[0],
            "task_alive": self._alive[1],
            "capacity": self.capacity,
        }
        self.observation = {name: everything[name] for name in fields}

    def _costs(self) -> dict[str, CostWriter]:
        """The costs that can be observed: name -> writer."""
        return {"travel_time": self._write_travel_times}

    def _write_travel_times(self, times: Array, active: Array) -> None:
        """Steps that each agent would need alone in the world until it is within each landmark's radius."""
        (fill_travel_times if self._numba else fill_travel_times_numpy)(self._world, self._radius, times, active)

    @property
    @override
    def seeds(self) -> list[int]:
        return self._seeds

    @override
    def reset(self) -> None:
        self._start(np.arange(self.n_envs))
        self.velocity[:] = 0.0
        self._world.at_landmark[:] = -1
        self._world.held[:] = 0
        self._world.visited[:] = False
        self._world.clock[:] = 0
        self._ended[:] = False
        self._show()

    def _start(self, rows: Array) -> None:
        """Draws the episodes of the environments ``rows``, each from its own generator."""
        for b in rows:
            self._rngs[b].random(out=self._draws[b])
        self._place(rows, self._draws[rows])

    def _place(self, rows: Array, draws: Array) -> None:
        """Makes worlds of uniform numbers: all of them that no step changes, and the positions."""
        n, m = self._most
        self.position[rows] = SPAWN_RANGE * (2.0 * draws[:, : 2 * n].reshape(-1, n, 2) - 1.0)
        self.landmark[rows] = LANDMARK_RANGE * (2.0 * draws[:, 2 * n : 2 * (n + m)].reshape(-1, m, 2) - 1.0)
        if self._fewest != self._most:
            at = 2 * (n + m) + n - 1
            sizes = draw_sizes(draws[:, at : at + 2], self._fewest, self._most)
            agents, landmarks = present(sizes, n, m)
            self._world.sizes[rows] = sizes
            self.position[rows] *= agents[..., None]
            self.landmark[rows] *= landmarks[..., None]
        if self._draws_capacities:
            sizes = self._world.sizes[rows]
            parts = compositions(draws[:, 2 * (n + m) :], sizes[:, 0], sizes[:, 1])
            self.capacity[rows] = 0
            self.capacity[rows, : parts.shape[1]] = parts

    def _show(self) -> None:
        """Fills every observed field of all worlds anew."""
        if self._fewest != self._most:
            agents, landmarks = present(self._world.sizes, *self._most)
            self._alive[0][:], self._alive[1][:] = agents, landmarks
            self._available[..., 1:] = agents[..., None]
            # What was there in the last episode may be absent now, and absent entries are not written.
            for view in self._views:
                view[:] = 0.0
        self._observe(self._everyone)
        self._observe_costs(self._everyone)

    def _pairs(self) -> Array:
        """[B, N, M] bool: agent and landmark are there."""
        agents, landmarks = present(self._world.sizes, *self._most)
        pairs: Array = agents[:, :, None] & landmarks[:, None]
        return pairs

    def _observe_costs(self, active: Array) -> None:
        for write in self._cost_writers:
            write(active)

    @override
    def step(self, actions: Array, active: Array) -> StepResult:
        self._step(actions, active)
        self._observe_costs(active)
        return self._result

    @override
    def episode_metrics(self) -> dict[str, Array]:
        agents, landmarks = present(self._world.sizes, *self._most)
        offset = self.position[:, :, None] - self.landmark[:, None]
        distance = np.where(landmarks[:, None], np.sqrt(np.square(offset).sum(-1)), np.inf)
        success, clock = self._ended[:, TERMINATED], self._world.clock
        return {
            "success": success.astype(np.float64),
            "steps_to_success": np.where(success, clock[:, 0], np.nan),
            "min_distance": np.where(agents, distance.min(-1), 0.0).sum(-1) / self._world.sizes[:, 0],
            "collisions": clock[:, 1].astype(np.float64),
        }

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "rngs": [rng_state(rng) for rng in self._rngs],
            "worlds": {name: array.copy() for name, array in self._arrays().items()},
        }

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for rng, saved in zip(self._rngs, state["rngs"], strict=True):
            load_rng_state(rng, saved)
        arrays = self._arrays()
        # An older state lacks the arrays that no setting of its time changed.
        for name, saved in state["worlds"].items():
            arrays[name][:] = saved
        self._show()

    def _arrays(self) -> dict[str, Array]:
        return self._world._asdict() | {"ended": self._ended}
