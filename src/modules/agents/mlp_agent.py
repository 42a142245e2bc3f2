"""Two-layer perceptron agent."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from components.registry import Options
from modules.agents.base import ValueAgent


class MLPOptions(Options):
    """Size of the network."""

    hidden_dim: int = Field(64, ge=1, description="units of each of the two hidden layers")


class MLPAgent(ValueAgent):
    """Linear-ReLU-Linear-ReLU-Linear on each agent and step by itself.

    Args:
        input_dim: F.
        n_actions: A.
        hidden_dim: units of each hidden layer.
    """

    def __init__(self, input_dim: int, n_actions: int, hidden_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(input_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, n_actions),
        )

    def forward(self, inputs: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """[B, T, N, F] -> [B, T, N, A]; there is no hidden state."""
        return self.layers(inputs), None
