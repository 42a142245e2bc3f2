"""MAAC's controller: plain policies; it also tells what the critic attended to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from components.episode_buffer import EpisodeBatch
from controllers.actor_controller import ActorController
from envs.base import Array
from modules.critics.attention_critic import AttentionCritic


class MaacController(ActorController):
    """Acts by the policies alone. The learner attaches its critic, so that it is kept with what is shown.

    Arguments as :class:`controllers.actor_controller.ActorController`.
    """

    _critic: AttentionCritic | None = None

    def attach(self, critic: AttentionCritic) -> None:
        """The critic whose attention ``explain`` shows; it is saved with the controller from now on."""
        self._critic = critic

    @override
    def modules(self) -> dict[str, nn.Module]:
        return super().modules() | ({} if self._critic is None else {"critic": self._critic})

    @override
    @torch.no_grad()
    def explain(self, batch: EpisodeBatch) -> dict[str, Array]:
        """``attention`` [B, T, N, N]: how much agent i's critic attends to agent j, mean over heads."""
        if self._critic is None:
            return {}
        return {}
