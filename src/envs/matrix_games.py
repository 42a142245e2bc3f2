"""Games with known optima: one-step payoff matrices and QMIX's two-step game (Rashid et al. 2018, section 6.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field, field_validator
from typing_extensions import override

from components.registry import Options
from envs.base import Array, EnvInfo, MultiAgentEnv

CLIMBING = [[8.0, -12.0, -12.0], [-12.0, 0.0, 0.0], [-12.0, 0.0, 0.0]]
TWO_STEP = {1: [[7.0, 7.0], [7.0, 7.0]], 2: [[0.0, 1.0], [1.0, 8.0]]}


class MatrixGameOptions(Options):
    """``env_args`` of ``matrix_game``."""

    payoff: list[list[float]] = Field(CLIMBING, description="team reward; row: agent 0's action, column: agent 1's")

    @field_validator("payoff")
    @classmethod
    def _square(cls, payoff: list[list[float]]) -> list[list[float]]:
        if not payoff or any(len(row) != len(payoff) for row in payoff):
            raise ValueError("env_args.payoff must be a square matrix: both agents choose among the same actions")
        return payoff


class MatrixGame(MultiAgentEnv):
    """Two agents choose once; the team earns the entry of the payoff matrix. Observation and state are constant."""

    def __init__(self, options: MatrixGameOptions, seed: int) -> None:
        self.payoff = np.array(options.payoff)
        self.info = EnvInfo(n_agents=2, n_actions=len(self.payoff), obs_shape=1, state_shape=1, episode_limit=1)
        self._earned = 0.0

    def _observation(self) -> dict[str, Array]:
        return {
            "obs": np.ones((2, 1), dtype=np.float32),
            "state": np.ones(1, dtype=np.float32),
            "avail_actions": np.ones((2, self.info.n_actions), dtype=np.int32),
        }

    @override
    def reset(self) -> dict[str, Array]:
        return self._observation()

    @override
    def step(self, actions: Array) -> tuple[dict[str, Array], float, bool, bool, dict[str, Array]]:
        self._earned = float(self.payoff[actions[0], actions[1]])
        return self._observation(), self._earned, True, False, {}

    @override
    def episode_metrics(self) -> dict[str, float]:
        return {"success": float(self._earned == self.payoff.max())}

    @override
    def state_dict(self) -> dict[str, Any]:
        return {}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class TwoStepGameOptions(Options):
    """``env_args`` of ``two_step_game``: none."""


class TwoStepGame(MultiAgentEnv):
    """Agent 0's first action picks the matrix of the second step: 0 pays 7 always, 1 pays [[0, 1], [1, 8]]."""

    def __init__(self, options: TwoStepGameOptions, seed: int) -> None:
        self.info = EnvInfo(n_agents=2, n_actions=2, obs_shape=3, state_shape=3, episode_limit=2)
        self._state = 0
        self._earned = 0.0

    def _observation(self) -> dict[str, Array]:
        onehot = np.eye(3, dtype=np.float32)[self._state]
        return {
            "obs": np.stack([onehot, onehot]),
            "state": onehot,
            "avail_actions": np.ones((2, 2), dtype=np.int32),
        }

    @override
    def reset(self) -> dict[str, Array]:
        self._state, self._earned = 0, 0.0
        return self._observation()

    @override
    def step(self, actions: Array) -> tuple[dict[str, Array], float, bool, bool, dict[str, Array]]:
        if self._state == 0:
            self._state = 1 + int(actions[0])
            return self._observation(), 0.0, False, False, {}
        self._earned = TWO_STEP[self._state][int(actions[0])][int(actions[1])]
        return self._observation(), self._earned, True, False, {}

    @override
    def episode_metrics(self) -> dict[str, float]:
        return {"success": float(self._earned == 8.0)}

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"state": self._state, "earned": self._earned}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._state, self._earned = state["state"], state["earned"]
