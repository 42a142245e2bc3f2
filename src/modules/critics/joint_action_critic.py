"""MADDPG's critics: every agent's own value of all observations and all actions."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from components.registry import Options
from modules.stacked import stacked_mlp


class JointActionCriticOptions(Options):
    """Size of the critics."""

    critic_hidden_dim: int = Field(64, ge=1, description="units of each of the critics' two hidden layers")


class JointActionCritic(nn.Module):
    """Q_i(o_1..o_N, a_1..a_N), a perceptron of its own for every agent i.

    Args:
        n_agents: N.
        obs_dim: O.
        n_actions: A.
        critic_hidden_dim: units of each hidden layer.
    """

    def __init__(self, n_agents: int, obs_dim: int, n_actions: int, critic_hidden_dim: int) -> None:
        super().__init__()
        sizes = (n_agents * (obs_dim + n_actions), critic_hidden_dim, critic_hidden_dim, 1)
        self.layers = stacked_mlp(n_agents, sizes, nn.ReLU)

    def forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        """Values of the joint actions, the same for all critics or another one for each.

        Args:
            obs: [S, N, O].
            actions: [S, N, A] or [N, S, N, A] one-hot; of the latter critic i sees the i-th.

        Returns:
            [S, N].
        """
        n = obs.shape[1]
        seen = obs.flatten(1).expand(n, -1, -1)
        out: Tensor = self.layers(torch.cat([seen, actions.flatten(-2).expand(n, -1, -1)], -1))
        return out.squeeze(-1).transpose(0, 1)
