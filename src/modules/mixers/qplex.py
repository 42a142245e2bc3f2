"""QPLEX (Wang et al. 2021, arXiv 2008.01062): a duplex dueling mixer, complete for values with the IGM property.

IGM: the joint action that is best for the team is made of the actions that are best for each agent.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from components.registry import Options
from modules.mixers.base import Mixer

# Keeps w_i and lambda_i above zero, which IGM needs.
LEAST = 1e-10


class QPlexOptions(Options):
    """Sizes of the transformation and of the attention."""

    hypernet_embed: int = Field(64, ge=1, description="hidden units of the networks of w_i(s) and b_i(s)")
    attention_heads: int = Field(4, ge=1, description="heads of lambda_i(s, a)")
    attention_embed: int = Field(64, ge=1, description="hidden units of each head's three networks")
    state_clip: float = Field(1.0, gt=0, description="state entries are cut to this size before the hypernetworks")


class QPlexMixer(Mixer):
    """Q_tot = sum_i V_i(s) + sum_i lambda_i(s, a) A_i(s, a_i), the paper's duplex dueling.

    Transformation: V_i(s) = w_i(s) max_a Q_i(a) + b_i(s) and A_i(s, a_i) = w_i(s) (Q_i(a_i) - max_a Q_i(a)),
    with w_i > 0. Attention: lambda_i(s, a) = sum_k lambda_ik(s, a) phi_ik(s) v_k(s) > 0. Because A_i <= 0, and
    0 for the agent's best action, the agents' best actions are the team's.

    Q_tot is computed as sum_i (w_i Q_i + b_i) + sum_i (lambda_i - 1) A_i, and A_i in the second sum is held fixed: the
    agents' gradient is w_i, and lambda learns how much a step away from the best costs.

    Args:
        n_agents: N.
        state_dim: S.
        n_actions: A.
        hypernet_embed: hidden units of the networks of w and b.
        attention_heads: K.
        attention_embed: hidden units of the networks of v, phi and lambda, for each head.
        state_clip: as QMIX's.
    """

    uses_state = True
    uses_actions = True

    def __init__(
        self,
        n_agents: int,
        state_dim: int,
        n_actions: int,
        hypernet_embed: int,
        attention_heads: int,
        attention_embed: int,
        state_clip: float,
    ) -> None:
        super().__init__()
        self.state_clip = state_clip
        self.weight = _two_layers(state_dim, hypernet_embed, n_agents)
        self.bias = _two_layers(state_dim, hypernet_embed, n_agents)
        joint = state_dim + n_agents * n_actions
        self.key = HeadNets(attention_heads, state_dim, attention_embed, 1)
        self.agents = HeadNets(attention_heads, state_dim, attention_embed, n_agents)
        self.actions = HeadNets(attention_heads, joint, attention_embed, n_agents)

    def forward(self, values: Tensor, states: Tensor, best: Tensor, actions: Tensor) -> Tensor:
        """[..., N] values, [..., S] states, [..., N] best values, [..., N, A] one-hot actions -> [..., 1]."""
        states = states.clamp(-self.state_clip, self.state_clip)
        weight = self.weight(states).abs() + LEAST
        advantage = (weight * (values - best)).detach()
        dueling = (self.importance(states, actions) - 1.0) * advantage
        return (weight * values + self.bias(states) + dueling).sum(-1, keepdim=True)

    def importance(self, states: Tensor, actions: Tensor) -> Tensor:
        """Importance lambda [..., N] > 0 of clipped states [..., S] and one-hot actions [..., N, A]."""
        key = self.key(states).abs() + LEAST
        together = self.actions(torch.cat([states, actions.flatten(-2)], -1))
        return (key * self.agents(states).sigmoid() * together.sigmoid()).sum(-2)


def _two_layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


class HeadNets(nn.Module):
    """Linear-ReLU-Linear for each of K heads at once.

    Args:
        heads: K.
        inputs: F.
        hidden: units of each head's hidden layer.
        outputs: O.
    """

    def __init__(self, heads: int, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, heads * hidden)
        bound = hidden**-0.5
        self.weight = nn.Parameter(torch.empty(heads, hidden, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(heads, outputs).uniform_(-bound, bound))

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., F] -> [..., K, O]."""
        hidden = torch.relu(self.first(inputs)).unflatten(-1, self.weight.shape[:2])
        return torch.einsum("...kh,kho->...ko", hidden, self.weight) + self.bias
