"""Plays whole episodes in B environments at once and records them: the only place where environments are stepped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from components.episode_buffer import EpisodeBatch, FieldSpec
from components.registry import Options
from controllers.base import Clock, Controller, Rows, numpy_rows
from envs.base import AGENT_REWARD, DROPPED, StepResult, VectorEnv


class EpisodeRunnerOptions(Options):
    """``runner: episode``: the environments live in this process."""


class ParallelRunnerOptions(Options):
    """``runner: parallel``: the environments live in worker processes."""

    n_workers: int = Field(2, ge=1, le=256, description="worker processes; each holds its share of the environments")


@dataclass(frozen=True)
class Episodes:
    """What one call of the runner gathered.

    Attributes:
        batch: the B episodes, without those that an environment dropped.
        env_steps: steps played in all of them.
        returns: [B] undiscounted sums of the flat reward.
        metrics: [B] per metric of the environment, NaN where it does not apply.
        dropped: episodes that an environment dropped.
    """

    batch: EpisodeBatch
    env_steps: int
    returns: NDArray[np.float64]
    metrics: dict[str, NDArray[np.float64]]
    dropped: int = 0


class EpisodeRunner:
    """Plays B episodes per call, in lockstep; environments whose episode is over wait for the others.

    Args:
        envs: B environments, in this process or in workers.
        controller: decides.
        fields: what to record (``components.episode_buffer.episode_fields``).
    """

    def __init__(self, envs: VectorEnv, controller: Controller, fields: Mapping[str, FieldSpec]) -> None:
        self.envs = envs
        self.controller = controller
        self.fields = fields

    def collect(self, clock: Clock, test_mode: bool = False) -> Episodes:
        """Plays one episode in every environment.

        Episodes that an environment drops are not among them; where all are dropped, others are played.

        Args:
            clock: drives exploration schedules.
            test_mode: act greedily, without exploration.
        """
        dropped = 0
        while True:
            episodes = self._play(clock, test_mode)
            dropped += episodes.dropped
            if len(episodes.returns):
                return replace(episodes, dropped=dropped)

    def _play(self, clock: Clock, test_mode: bool) -> Episodes:
        envs, info = self.envs, self.envs.info
        batch = EpisodeBatch.zeros(self.fields, envs.n_envs, info.episode_limit + 1, info.n_actions)
        arrays = {name: tensor.numpy() for name, tensor in batch.data.items()}
        actions = np.zeros((envs.n_envs, info.n_agents), dtype=np.int64)
        active, kept = np.ones((2, envs.n_envs), dtype=np.bool_)
        rows: Rows = slice(None)
        envs.reset()
        self.controller.begin_episodes(envs.n_envs)
        self._record_observation(arrays, 0, rows)
        for t in range(info.episode_limit):
            decision = self.controller.act(batch, t, rows, clock, test_mode)
            where = numpy_rows(rows)
            actions[where] = decision.actions
            result = envs.step(actions, active)
            arrays["actions"][where, t, :, 0] = decision.actions
            for name, value in decision.extras.items():
                arrays[name][where, t] = value
            self._record_result(arrays, result, t, where)
            self._record_observation(arrays, t + 1, rows)
            if DROPPED in result.extras:
                kept &= ~(active & result.extras[DROPPED])
            active &= kept & ~(result.terminated | result.truncated)
            if not active.any():
                break
            if not active.all():
                rows = torch.from_numpy(np.flatnonzero(active))
        metrics = envs.episode_metrics()
        if not kept.all():
            batch, metrics = batch[kept], {name: values[kept] for name, values in metrics.items()}
        lengths = batch.lengths()
        return Episodes(
            batch,
            env_steps=int(lengths.sum()),
            returns=batch["reward"].numpy().sum((1, 2), dtype=np.float64),
            metrics={"ep_length": lengths.double().numpy(), **metrics},
            dropped=int((~kept).sum()),
        )

    def _record_observation(self, arrays: dict[str, NDArray[Any]], t: int, rows: Rows) -> None:
        where = numpy_rows(rows)
        for name, value in self.envs.observation.items():
            arrays[name][where, t] = value[where]
        arrays["filled"][where, t] = 1

    def _record_result(
        self, arrays: dict[str, NDArray[Any]], result: StepResult, t: int, where: slice | NDArray[np.int64]
    ) -> None:
        arrays["reward"][where, t, 0] = result.reward[where]
        arrays["terminated"][where, t, 0] = result.terminated[where]
        arrays["truncated"][where, t, 0] = result.truncated[where]
        if "reward_high" in arrays:
            arrays["reward_high"][where, t, 0] = result.extras["reward_high"][where]
        if "task_reward" in arrays:
            arrays["task_reward"][where, t] = result.extras["task_reward"][where]
        if AGENT_REWARD in arrays:
            arrays[AGENT_REWARD][where, t] = result.agent_reward[where]
