"""Plays random episodes in environments and checks everything that comes back; ``envs.checks`` compares the plays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from envs.base import AGENT_REWARD, TASK_REWARDS, Array, StepResult, VectorEnv

_DTYPES = {"avail_actions": np.int32, "agent_alive": np.bool_, "task_alive": np.bool_, "capacity": np.int64}


class ContractError(AssertionError):
    """An environment breaks the contract; the message names environment, field, step and what was expected."""


@dataclass(frozen=True)
class Frame:
    """What was seen at one step: field -> [B, ...]; rows of environments that were not active are zero."""

    when: str
    values: dict[str, Array]


class Player:
    """Plays legal random actions and checks everything that comes back."""

    def __init__(self, name: str, envs: VectorEnv, fields: Sequence[str]) -> None:
        self.name, self.envs, self.info = name, envs, envs.info
        shapes = self.info.field_shapes()
        self.shapes = {field: shapes[field] for field in fields}
        self.episode, self.t = -1, 0
        self.active = np.zeros(envs.n_envs, dtype=np.bool_)
        self.metrics: set[str] | None = None

    @property
    def when(self) -> str:
        """Where the play is, as messages say it."""
        return f"episode {self.episode}, step {self.t}"

    def fail(self, what: str, found: str, expected: str, when: str = "") -> NoReturn:
        """Raises ``ContractError``: where, what was found, what was expected."""
        raise ContractError(f"{self.name}, {what}, {when or self.when}: {found}; expected {expected}")

    def start(self) -> Frame:
        """Begins an episode in every environment."""
        self.episode, self.t = self.episode + 1, 0
        try:
            self.envs.reset()
        except KeyError as error:
            expected = f"the fields {sorted(self.shapes)}"
            raise ContractError(
                f"{self.name}, observation, {self.when}: {error} is missing; expected {expected}"
            ) from error
        self.active = np.ones(self.envs.n_envs, dtype=np.bool_)
        return Frame(self.when, self.observed())

    def draw(self, rng: np.random.Generator) -> Array:
        """[B, N] legal actions; environments in the same situation get the same ones."""
        legal = self.envs.observation["avail_actions"] > 0
        wanted = (rng.random(legal.shape[1]) * legal.sum(-1)).astype(np.int64)
        return np.argmax(np.cumsum(legal, -1) > wanted[..., None], -1)

    def step(self, actions: Array, active: Array) -> Frame:
        """One step of the environments that are active both here and in the argument."""
        now = self.active & active
        held = {field: value[~now].copy() for field, value in self.envs.observation.items()}
        result = self.envs.step(actions, now.copy())
        self.t += 1
        values = self.observed()
        for field, before in held.items():
            if not np.array_equal(values[field][~now], before):
                self.fail(f"field {field!r}", "an environment that was not active changed", "it to keep its state")
        values |= self._judged(result, now)
        for value in values.values():
            value[~now] = 0
        self.active = self.active & ~(values["terminated"] | values["truncated"])
        return Frame(self.when, values)

    def play(self, n_steps: int, rng: np.random.Generator) -> list[Frame]:
        """Finishes the episode that is under way, then plays whole ones until ``n_steps`` are done."""
        everyone = np.ones(self.envs.n_envs, dtype=np.bool_)
        frames: list[Frame] = []
        while self.active.any() or len(frames) < n_steps:
            if not self.active.any():
                frames.append(self.start())
            frames.append(self.step(self.draw(rng), everyone))
            if not self.active.any():
                frames.append(Frame(self.when, self._measured()))
        return frames

    def observed(self) -> dict[str, Array]:
        """A copy of the observation, checked."""
        observed = self.envs.observation
        if set(observed) != set(self.shapes):
            self.fail("observation", f"it has the fields {sorted(observed)}", f"the requested {sorted(self.shapes)}")
        for field, shape in self.shapes.items():
            self._check_array(f"field {field!r}", observed[field], shape, _DTYPES.get(field, np.float32))
        legal = observed["avail_actions"]
        if not np.isin(legal, (0, 1)).all():
            self.fail("field 'avail_actions'", "it holds other values", "0 or 1")
        for b, agent in np.argwhere(legal.sum(-1) == 0)[:1]:
            self.fail("field 'avail_actions'", f"agent {agent} of environment {b} has no action", "at least one")
        return {field: np.array(value) for field, value in observed.items()}

    def _judged(self, result: StepResult, active: Array) -> dict[str, Array]:
        tasks = self.info.tasks
        parts = {"reward": result.reward, "terminated": result.terminated, "truncated": result.truncated}
        n = self.info.n_agents
        shapes = {"reward_high": (), "task_reward": (n, tasks.n_tasks), AGENT_REWARD: (n,)} if tasks else {}
        for name in TASK_REWARDS if tasks else ():
            if name not in result.extras:
                self.fail(f"{name!r} of the step", "it is missing", "the rewards that an environment with tasks gives")
        given = parts | dict(result.extras)
        for name, value in given.items():
            dtype = np.bool_ if name in ("terminated", "truncated") else np.float32
            shape = shapes.get(name, () if name in parts else np.shape(value)[1:])
            self._check_array(f"{name!r} of the step", value, shape, dtype, active)
        self._check_end(result.terminated & active, result.truncated & active, active)
        return {name: np.array(value) for name, value in given.items()}

    def _check_end(self, terminated: Array, truncated: Array, active: Array) -> None:
        limit = self.info.episode_limit
        for b in np.flatnonzero(terminated & truncated)[:1]:
            self.fail("terminated and truncated", f"both are true in environment {b}", "at most one of them")
        for b in np.flatnonzero(truncated & (self.t < limit))[:1]:
            self.fail("truncated", f"it is true in environment {b}", f"it only at the episode limit, step {limit}")
        for b in np.flatnonzero(active & ~(terminated | truncated))[:1]:
            if self.t >= limit:
                self.fail("truncated", f"environment {b} goes on", f"it to be true at the episode limit, step {limit}")

    def _measured(self) -> dict[str, Array]:
        metrics = self.envs.episode_metrics()
        for name, value in metrics.items():
            self._check_array(f"metric {name!r}", value, (), np.float64, np.zeros(0, dtype=np.int64))
            if np.isinf(value).any():
                self.fail(f"metric {name!r}", "it is infinite", "finite numbers, or NaN where it does not apply")
        if self.metrics is not None and set(metrics) != self.metrics:
            self.fail("episode_metrics", f"it gives {sorted(metrics)}", f"{sorted(self.metrics)} as before")
        self.metrics = set(metrics)
        return {name: np.array(value) for name, value in metrics.items()}

    def _check_array(
        self, what: str, value: Array, shape: tuple[int, ...], dtype: type[np.generic], rows: Array | None = None
    ) -> None:
        expected = (self.envs.n_envs, *shape)
        if np.shape(value) != expected:
            self.fail(what, f"its shape is {np.shape(value)}", f"{expected}")
        if not isinstance(value, np.ndarray) or value.dtype != dtype:
            found = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
            self.fail(what, f"its type is {found}", f"a NumPy array of {np.dtype(dtype)}")
        if not np.isfinite(value if rows is None else value[rows]).all():
            self.fail(what, "it holds NaN or infinity", "finite numbers")
