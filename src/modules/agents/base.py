"""What the controllers of flat methods drive."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class ValueAgent(nn.Module, ABC):
    """A number per action of every agent over a sequence of steps: its value, or its logit in a policy.

    Built with ``(input_dim, n_actions)``.
    """

    @abstractmethod
    def forward(self, inputs: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """[B, T, N, F] and hidden state (None: the start) -> [B, T, N, A] and the hidden state after the last step."""


class PolicyAgent(nn.Module, ABC):
    """Action logits of N agents that share no weights, built with ``(n_agents, obs_dim, n_actions)``."""

    @abstractmethod
    def forward(self, obs: Tensor) -> Tensor:
        """[S, N, O] -> [S, N, A]."""
