"""RODE's agent (Wang et al. 2021, arXiv 2010.01523): a role selector over roles, and a policy for each role.

Shape legend: B episodes, T steps, N agents, A actions, K roles, D length of an action's code, H units of a GRU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from components.registry import Options
from modules.agents.gru_agent import GRUAgent

# Before the actions are clustered there are this many roles, all with every action.
FIRST_ROLES = 3


class RodeAgentOptions(Options):
    """Sizes of the networks, and how many roles there may be."""

    rnn_hidden_dim: int = Field(64, ge=1, description="units of the input layer and of the GRU, for roles and actions")
    action_latent_dim: int = Field(20, ge=1, description="length of an action's code")
    n_role_clusters: int = Field(3, ge=2, description="clusters of actions, at most one per action; each may be a role")


class RoleValues(NamedTuple):
    """What the networks say of a sequence of steps.

    Attributes:
        roles: [B, T, N, K] Q^role.
        keys: [B, T, N, K, D] each role policy's key z; its values are <z, action code>.
    """

    roles: Tensor
    keys: Tensor


class RodeAgent(nn.Module):
    """Q^role_j = <f(h^role), mean code of role j's actions>, and Q_j(a) = <z_j(h), code of a>.

    The codes, and which actions a role has, are no parameters: :meth:`set_roles` gives them once.

    Args:
        input_dim: F.
        n_actions: A.
        rnn_hidden_dim: H.
        action_latent_dim: D.
        n_role_clusters: most roles after the clustering.

    Attributes:
        action_codes: [A, D]; ones until they are set, so that all actions are worth the same.
        role_codes: [K, D].
        role_actions: [K, A] bool, which actions each role has.
        role_exists: [K] bool.
        roles_since: environment steps when the roles were set; -1 before.
    """

    action_codes: Tensor
    role_codes: Tensor
    role_actions: Tensor
    role_exists: Tensor
    roles_since: Tensor

    def __init__(
        self, input_dim: int, n_actions: int, rnn_hidden_dim: int, action_latent_dim: int, n_role_clusters: int
    ) -> None:
        super().__init__()
        self.n_role_clusters = n_role_clusters
        self.action_latent_dim = action_latent_dim
        n_roles = max(FIRST_ROLES, n_role_clusters)
        self.selector = GRUAgent(input_dim, 2 * rnn_hidden_dim, rnn_hidden_dim)
        self.role_query = nn.Linear(2 * rnn_hidden_dim, action_latent_dim)
        self.policies = GRUAgent(input_dim, n_roles * action_latent_dim, rnn_hidden_dim)
        self.register_buffer("action_codes", torch.ones(n_actions, action_latent_dim))
        self.register_buffer("role_codes", torch.ones(n_roles, action_latent_dim))
        self.register_buffer("role_actions", torch.ones(n_roles, n_actions, dtype=torch.bool))
        self.register_buffer("role_exists", torch.arange(n_roles) < FIRST_ROLES)
        self.register_buffer("roles_since", torch.tensor(-1))

    def forward(self, inputs: Tensor, hidden: Tensor | None) -> tuple[RoleValues, Tensor]:
        """[B, T, N, F] and [B, N, 2H] (None: the start) -> values and the hidden state after the last step."""
        of_roles, of_actions = (None, None) if hidden is None else hidden.chunk(2, -1)
        selected, of_roles = self.selector(inputs, of_roles)
        keys, of_actions = self.policies(inputs, of_actions)
        roles = self.role_query(torch.relu(selected)) @ self.role_codes.T
        values = RoleValues(roles, keys.unflatten(-1, self.role_codes.shape))
        return values, torch.cat([of_roles, of_actions], -1)

    def action_values(self, keys: Tensor, roles: Tensor) -> Tensor:
        """[B, T, N, A] of each agent's role [B, T, N]."""
        index = roles[..., None, None].expand(*roles.shape, 1, keys.shape[-1])
        return keys.gather(-2, index).squeeze(-2) @ self.action_codes.T

    def set_roles(self, codes: Tensor, role_actions: Tensor, env_steps: int) -> None:
        """Takes the codes [A, D] and the roles' actions [k, A] bool, k <= K, at the given environment step."""
        k = len(role_actions)
        shares = role_actions.to(codes.dtype)
        self.action_codes.copy_(codes)
        self.role_codes[:k] = shares @ codes / shares.sum(-1, keepdim=True)
        self.role_actions[:k] = role_actions
        self.role_exists.copy_(torch.arange(len(self.role_exists)) < k)
        self.roles_since.fill_(env_steps)
