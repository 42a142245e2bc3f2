"""Agents that draw their actions from a softmax policy: the controllers of MAPPO, IPPO and SEAC.

Shape legend: R rows (environments that still act), B episodes, T steps, N agents, A actions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from components.action_selectors import greedy, soft
from components.episode_buffer import EpisodeBatch, FieldSpec
from controllers.base import Clock, Decision, Rows, numpy_rows
from controllers.basic_controller import AgentController, InputOptions
from envs.base import EnvInfo
from modules.agents.base import ValueAgent
from modules.agents.separate_mlp_agent import SeparateMLPAgent
from modules.orthogonal import orthogonal_

# Stands for unavailable logits before the softmax: their probability is exactly 0.
UNAVAILABLE = -1e10
# The first policy is almost uniform, whatever is observed.
HEAD_GAIN = 0.01


def log_policy(logits: Tensor, avail: Tensor) -> Tensor:
    """Log-probabilities over the available actions; about -1e10 at the others, finite where there is none (padding)."""
    return logits.masked_fill(avail == 0, UNAVAILABLE).log_softmax(-1)


class PolicyController(AgentController):
    """One policy network shared by all agents; the log-probability of each action is stored with the step.

    Arguments as :class:`controllers.basic_controller.AgentController`.
    """

    def __init__(
        self,
        info: EnvInfo,
        options: InputOptions,
        agent: Callable[[int, int], ValueAgent],
        rng: np.random.Generator,
        device: torch.device,
    ) -> None:
        super().__init__(info, options, agent, rng, device)
        orthogonal_(self.agent, HEAD_GAIN)

    @override
    def extra_fields(self) -> dict[str, FieldSpec]:
        return {"log_probs": FieldSpec((self.info.n_agents, 1))}

    @override
    @torch.no_grad()
    def act(self, batch: EpisodeBatch, t: int, rows: Rows, clock: Clock, test_mode: bool) -> Decision:
        avail = batch["avail_actions"][rows, t]
        log_pi = log_policy(self.outputs(batch, t, rows), avail.to(self.device)).cpu().numpy()
        mask = batch["avail_actions"].numpy()[numpy_rows(rows), t]
        actions = greedy(log_pi, mask) if test_mode else soft(log_pi, mask, 0.0, self._rng)
        return Decision(actions, {"log_probs": np.take_along_axis(log_pi, actions[..., None], -1)})

    def log_pi(self, batch: EpisodeBatch) -> Tensor:
        """[B, T, N, A] log pi_i(a | what agent i has seen) of whole episodes."""
        return log_policy(self.unroll(batch, self.agent), batch["avail_actions"])


class SeparatePolicyController(PolicyController):
    """A policy network for every agent, none shared.

    Args:
        info: shapes of the environment.
        options: what the agents see.
        agent: ``agent(n_agents, input_dim, n_actions)`` builds the networks.
        rng: draws exploration.
        device: where the networks run.
    """

    agent: SeparateMLPAgent

    def __init__(
        self,
        info: EnvInfo,
        options: InputOptions,
        agent: Callable[[int, int, int], SeparateMLPAgent],
        rng: np.random.Generator,
        device: torch.device,
    ) -> None:
        # It takes the place of a shared network: the same call, with a row of weights for every agent.
        alike: Any = partial(agent, info.n_agents)
        super().__init__(info, options, alike, rng, device)
