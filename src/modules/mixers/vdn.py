"""Value decomposition networks (Sunehag et al. 2018, arXiv 1706.05296): the team's value is the sum."""

from __future__ import annotations

from torch import Tensor

from modules.mixers.base import Mixer


class VDNMixer(Mixer):
    """Q_tot = sum_i Q_i. Takes and ignores the arguments of state-dependent mixers."""

    uses_state = False

    def __init__(self, n_agents: int, state_dim: int, n_actions: int) -> None:
        super().__init__()

    def forward(self, values: Tensor, states: Tensor | None) -> Tensor:
        """[B, T, N] -> [B, T, 1]."""
        return values.sum(-1, keepdim=True)
