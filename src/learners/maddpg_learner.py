"""MADDPG for discrete actions (Lowe et al. 2017, arXiv 1706.02275): straight-through Gumbel-softmax policies.

Shape legend: S transitions, N agents, A actions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from controllers.actor_controller import ActorController
from envs.base import EnvInfo
from learners.actor_critic_learner import ActorCriticLearner, ActorCriticOptions, Transitions
from modules.critics.joint_action_critic import JointActionCritic
from modules.masked_policy import best, mask_logits, straight_through
from modules.stacked import clip_each_agent_


class MaddpgLearner(ActorCriticLearner):
    """Arguments as :class:`ActorCriticLearner`."""

    def __init__(
        self,
        controller: ActorController,
        info: EnvInfo,
        options: ActorCriticOptions,
        rng: np.random.Generator,
        device: torch.device,
        critic: Callable[[int, int, int], JointActionCritic],
    ) -> None:
        super().__init__(controller, info, options, rng, device, critic)

    @override
    def critic_loss(self, batch: Transitions) -> tuple[Tensor, dict[str, Tensor]]:
        """sum_i mean (Q_i(o, a) - y_i)^2 with y_i = r + gamma (1 - d) Q'_i(o', mu'(o')) (eq. 6).

        mu' is the target policy's most likely available action; a dead agent's is the one that it has left.
        """
        values = self.critic(batch.obs, batch.actions)
        with torch.no_grad():
            next_actions = best(mask_logits(self.targets["actor"](batch.next_obs), batch.next_avail))
            future = self.targets["critic"](batch.next_obs, next_actions)
            targets = batch.reward + self.options.gamma * (1.0 - batch.terminated) * future
        loss = (values - targets).square().mean(0).sum()
        return loss, {"q_taken_mean": values.detach().mean(), "target_mean": targets.mean()}

    @override
    def actor_losses(self, batch: Transitions, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """-Q_i(o, a_1, .., g_i, .., a_N): agent i's slot holds its straight-through sample, the others the replay's."""
        samples = straight_through(logits, self.gumbel(logits.shape))
        own = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)[:, None, :, None]
        values = self.critic(batch.obs, torch.where(own, samples, batch.actions))
        return -values, {}

    @override
    def clip_critic(self, parameters: Sequence[nn.Parameter], clip: float) -> Tensor:
        return clip_each_agent_(parameters, clip)
