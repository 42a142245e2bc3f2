"""MAAC's critic: every agent's values of its own actions, given what it attends to of the others' actions.

Shape legend: S states, N agents, A actions, K heads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from components.registry import Options
from modules.stacked import StackedLinear, stacked_mlp


class AttentionCriticOptions(Options):
    """Size of the critic."""

    critic_hidden_dim: int = Field(128, ge=1, description="units of the encoders and of the values' hidden layer")
    attention_heads: int = Field(4, ge=1, description="heads; they share the units of critic_hidden_dim")

    @model_validator(mode="after")
    def _heads_divide_the_units(self) -> AttentionCriticOptions:
        if self.critic_hidden_dim % self.attention_heads:
            raise ValueError(
                f"critic_hidden_dim = {self.critic_hidden_dim} must be a multiple of "
                f"attention_heads = {self.attention_heads}"
            )
        return self


class Attended(NamedTuple):
    """What the critic computed.

    Attributes:
        values: [S, N, A] Q_i(o, (a_i, a_-i)) of every own action a_i.
        weights: [S, K, N, N] how much agent i attends to agent j; rows sum to 1, or to 0 where nobody else lives.
        logits: [S, K, N, N] before the softmax, 0 where i cannot attend to j.
    """

    values: Tensor
    weights: Tensor
    logits: Tensor


class AttentionCritic(nn.Module):
    """Q_i = f_i([g_i(o_i), x_i]) with x_i = sum_{j != i} alpha_j v_j (Iqbal and Sha 2019, eqs. 5 and 6).

    Encoders and value heads are every agent's own; queries, keys and values are the same maps for all.

    Args:
        n_agents: N.
        obs_dim: O.
        n_actions: A.
        critic_hidden_dim: H, units of the encoders and of the hidden layer.
        attention_heads: K.
    """

    others: Tensor

    def __init__(
        self, n_agents: int, obs_dim: int, n_actions: int, critic_hidden_dim: int, attention_heads: int
    ) -> None:
        super().__init__()
        h = critic_hidden_dim
        self.heads = attention_heads
        self.encode_obs = StackedLinear(n_agents, obs_dim, h)
        self.encode_both = StackedLinear(n_agents, obs_dim + n_actions, h)
        self.query = nn.Linear(h, h, bias=False)
        self.key = nn.Linear(h, h, bias=False)
        self.value = nn.Linear(h, h)
        self.value_head = stacked_mlp(n_agents, (2 * h, h, n_actions), nn.LeakyReLU)
        self.register_buffer("others", ~torch.eye(n_agents, dtype=torch.bool), persistent=False)

    def forward(self, obs: Tensor, actions: Tensor, alive: Tensor) -> Attended:
        """Values given the others' actions.

        Args:
            obs: [S, N, O].
            actions: [S, N, A] one-hot.
            alive: [S, N] bool; nobody attends to the dead.
        """
        own = functional.leaky_relu(self.encode_obs(obs.transpose(0, 1)))
        both = functional.leaky_relu(self.encode_both(torch.cat([obs, actions], -1).transpose(0, 1)))
        queries, keys = self._split(self.query(own)), self._split(self.key(both))
        values = self._split(functional.leaky_relu(self.value(both)))
        visible = (self.others & alive.unsqueeze(1)).unsqueeze(1)
        scaled = torch.einsum("iskh,jskh->skij", queries, keys) / math.sqrt(keys.shape[-1])
        weights = scaled.masked_fill(~visible, -1e10).softmax(-1) * visible
        heard = torch.einsum("skij,jskh->iskh", weights, values).flatten(2)
        out = self.value_head(torch.cat([own, heard], -1)).transpose(0, 1)
        return Attended(out, weights, scaled * visible)

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Of the maps that serve all agents."""
        for shared in (self.query, self.key, self.value):
            yield from shared.parameters()

    def _split(self, features: Tensor) -> Tensor:
        """[N, S, H] -> [N, S, K, H / K]."""
        return features.unflatten(-1, (self.heads, -1))
