"""A two-layer perceptron for every agent, none shared; the agents' weights are stacked and applied in one product.

Shape legend: B episodes, T steps, S states, N agents, F inputs, A actions.
"""

from __future__ import annotations

from torch import Tensor, nn

from modules.stacked import stacked_mlp


class SeparateMLPAgent(nn.Module):
    """Linear-ReLU-Linear-ReLU-Linear with weights of its own for every agent.

    Args:
        n_agents: N.
        input_dim: F.
        n_actions: A.
        hidden_dim: units of each hidden layer.
    """

    def __init__(self, n_agents: int, input_dim: int, n_actions: int, hidden_dim: int) -> None:
        super().__init__()
        self.n_agents = n_agents
        self.layers = stacked_mlp(n_agents, [input_dim, hidden_dim, hidden_dim, n_actions], nn.ReLU)

    def forward(self, inputs: Tensor, hidden: Tensor | None) -> tuple[Tensor, None]:
        """[B, T, N, F] -> [B, T, N, A], network i on agent i's input; there is no hidden state."""
        b, t, n, f = inputs.shape
        out = self.layers(inputs.reshape(b * t, n, f).transpose(0, 1))
        return out.transpose(0, 1).reshape(b, t, n, -1), None

    def pairs(self, inputs: Tensor) -> Tensor:
        """[S, N, F] -> [N, S, N, A]: entry [i, :, k] is network i on agent k's input."""
        s, n, f = inputs.shape
        out = self.layers(inputs.reshape(1, s * n, f).expand(self.n_agents, -1, -1))
        return out.view(self.n_agents, s, n, -1)
