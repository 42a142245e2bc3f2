"""A two-layer perceptron of its own for every agent."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from components.registry import Options
from modules.agents.base import PolicyAgent
from modules.stacked import stacked_mlp

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}


class MLPPerAgentOptions(Options):
    """Size of the networks."""

    hidden_dim: int = Field(64, ge=1, description="units of each of the two hidden layers")
    activation: Literal["relu", "leaky_relu"] = Field("relu", description="between the layers of the agents")


class MLPPerAgent(PolicyAgent):
    """Linear-activation-Linear-activation-Linear, weights of its own for each agent.

    Args:
        n_agents: N.
        obs_dim: O.
        n_actions: A.
        hidden_dim: units of each hidden layer.
        activation: "relu" or "leaky_relu".
    """

    def __init__(self, n_agents: int, obs_dim: int, n_actions: int, hidden_dim: int, activation: str) -> None:
        super().__init__()
        self.layers = stacked_mlp(n_agents, (obs_dim, hidden_dim, hidden_dim, n_actions), ACTIVATIONS[activation])

    def forward(self, obs: Tensor) -> Tensor:
        """[S, N, O] -> [S, N, A]."""
        out: Tensor = self.layers(obs.transpose(0, 1))
        return out.transpose(0, 1)
