"""Stochastic policies, one network per agent: the controller of MADDPG and MAAC."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from components.action_selectors import greedy, soft
from components.episode_buffer import EpisodeBatch
from components.registry import NoOptions
from controllers.base import Clock, Controller, Decision, Rows, numpy_rows
from envs.base import EnvInfo
from modules.agents.base import PolicyAgent


class ActorController(Controller):
    """Samples every agent's action from its policy; takes the most likely one in tests.

    A sample is the largest of the logits with Gumbel noise, so this is the exploration of Gumbel-softmax as well.

    Args:
        info: shapes of the environment.
        options: none.
        agent: ``agent(n_agents, obs_dim, n_actions)`` builds the policies.
        rng: draws actions.
        device: where the networks run.
    """

    fields = ("obs", "avail_actions")

    def __init__(
        self,
        info: EnvInfo,
        options: NoOptions,
        agent: Callable[[int, int, int], PolicyAgent],
        rng: np.random.Generator,
        device: torch.device,
    ) -> None:
        self.device = device
        self.agent = agent(info.n_agents, info.obs_shape, info.n_actions).to(device)
        self._rng = rng

    @override
    def modules(self) -> dict[str, nn.Module]:
        return {"agent": self.agent}

    @override
    def begin_episodes(self, batch_size: int) -> None:
        pass

    @override
    @torch.no_grad()
    def act(self, batch: EpisodeBatch, t: int, rows: Rows, clock: Clock, test_mode: bool) -> Decision:
        logits = self.agent(batch["obs"][rows, t].to(self.device)).cpu().numpy()
        avail = batch["avail_actions"].numpy()[numpy_rows(rows), t]
        return Decision(greedy(logits, avail) if test_mode else soft(logits, avail, 0.0, self._rng))
