"""LDSA's controller (Yang et al. 2022, arXiv 2205.02561): a subtask at every step, and epsilon-greedy actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from components.episode_buffer import EpisodeBatch
from controllers.base import Array, Clock, Decision, Rows
from controllers.basic_controller import BasicController, BasicOptions
from envs.base import EnvInfo
from modules.agents.ldsa_agent import LdsaAgent, Subtasks


class LdsaController(BasicController):
    """Subtasks are sampled in training, and in tests the best.

    Args:
        info: shapes of the environment.
        options: inputs and exploration.
        agent: ``agent(input_dim, n_actions)`` builds the networks.
        rng: draws exploration and subtasks.
        device: where the networks run.
    """

    agent: LdsaAgent

    def __init__(
        self,
        info: EnvInfo,
        options: BasicOptions,
        agent: Callable[[int, int], LdsaAgent],
        rng: np.random.Generator,
        device: torch.device,
    ) -> None:
        super().__init__(info, options, agent, rng, device)

    @override
    def act(self, batch: EpisodeBatch, t: int, rows: Rows, clock: Clock, test_mode: bool) -> Decision:
        def sampled(inputs: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
            noise = gumbel((*inputs.shape[:-1], self.agent.n_subtasks), self._rng, self.device)
            subtasks, hidden = self.agent.select(inputs, hidden, noise)
            return subtasks.values, hidden

        values: Tensor = self.advance(batch, t, rows, self.agent if test_mode else sampled)
        return self.choose(values[:, 0], batch, t, rows, clock, test_mode)

    def subtasks(self, batch: EpisodeBatch, agent: nn.Module, noise: Tensor | None) -> Subtasks:
        """[B, T, ...] of whole episodes; arguments as ``unroll`` and :meth:`LdsaAgent.select`."""
        found: Subtasks = cast(LdsaAgent, agent).select(self.inputs(batch), None, noise)[0]
        return found

    @override
    @torch.no_grad()
    def explain(self, batch: EpisodeBatch) -> dict[str, Array]:
        """``subtask`` [B, T, N]: the subtask that each agent works on."""
        selected = self.subtasks(batch.to(self.device), self.agent, None).selected
        return {"subtask": selected.argmax(-1).cpu().numpy()}


def gumbel(shape: tuple[int, ...], rng: np.random.Generator, device: torch.device) -> Tensor:
    """Standard Gumbel noise, float32."""
    return torch.from_numpy(rng.gumbel(size=shape).astype(np.float32)).to(device)
