"""Dec-LPMARL's learner: LPMARL's, and behaviour cloning of its assignment alongside (eq. 20).

Shape legend: S states, N agents, M tasks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from components.episode_buffer import ReplayBuffer
from controllers.base import Clock
from controllers.dec_lpmarl_controller import DecLpmarlController
from controllers.task_structure import Observed
from envs.base import EnvInfo
from learners.base import adam, step
from learners.lpmarl_batches import sample_states
from learners.lpmarl_learner import LpmarlLearner
from learners.lpmarl_options import UNAVAILABLE, LpmarlLearnerOptions
from modules.critics.lpmarl_critic import LpmarlCritic
from modules.graph import build_graph


class DecLpmarlLearnerOptions(LpmarlLearnerOptions):
    """Options of the imitation."""

    imitation_lr: float = Field(3e-3, gt=0, description="Adam learning rate of the imitator, at the start")
    batch_size_imitation: int = Field(192, ge=1, description="states of one imitation update")


class DecLpmarlLearner(LpmarlLearner):
    """Every update of LPMARL's is followed by one of the imitator, on states of the same replay buffer.

    The label is the assignment that LPMARL would make now, without noise, at any stored state: those that the
    imitator has led to itself are among them, so it learns to mend its own mistakes.

    Arguments as :class:`learners.lpmarl_learner.LpmarlLearner`.
    """

    options: DecLpmarlLearnerOptions
    controller: DecLpmarlController

    def __init__(
        self,
        controller: DecLpmarlController,
        info: EnvInfo,
        options: DecLpmarlLearnerOptions,
        rng: np.random.Generator,
        device: torch.device,
        critic: Callable[[int, int, int], LpmarlCritic],
    ) -> None:
        super().__init__(controller, info, options, rng, device, critic)
        self.rates["imitator"] = options.imitation_lr
        self.optimizers["imitator"] = adam(controller.agent.imitator.parameters(), options.imitation_lr)

    @override
    def _update_once(self, buffer: ReplayBuffer, clock: Clock) -> dict[str, Tensor | float]:
        metrics = super()._update_once(buffer, clock)
        seen = sample_states(buffer, self.options.batch_size_imitation, self.device)
        loss, more = self.imitation_loss(seen, clock)
        step(self.optimizers["imitator"], loss, self.options.grad_norm_clip)
        return metrics | more

    def imitation_loss(self, seen: Observed, clock: Clock) -> tuple[Tensor, dict[str, Tensor | float]]:
        """-log pi_hat_i(a_i | o_i) for LPMARL's assignment a, mean over living agents (eq. 20)."""
        label = torch.from_numpy(self.controller.assign(seen, clock, None)).to(self.device)
        logits = self.controller.agent.imitated(self.controller.in_sight(build_graph(*seen[:4])))
        log_pi = logits.masked_fill(~seen.task_alive.unsqueeze(1), UNAVAILABLE).log_softmax(-1)
        alive = seen.agent_alive.float()
        count = alive.sum().clamp(min=1.0)
        loss = -(log_pi.gather(-1, label.unsqueeze(-1)).squeeze(-1) * alive).sum() / count
        right = (log_pi.argmax(-1) == label).float()
        return loss, {"imitation_loss": loss.detach(), "imitation_accuracy": (right * alive).sum() / count}
