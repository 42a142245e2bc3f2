"""MAAC, multi-actor-attention-critic (Iqbal and Sha 2019, arXiv 1810.02912).

Shape legend: S transitions, N agents, A actions, K heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from components.episode_buffer import EpisodeBatch
from components.errors import UserError
from controllers.actor_controller import ActorController
from envs.base import Array, EnvInfo
from learners.actor_critic_learner import ActorCriticLearner, ActorCriticOptions, Transitions
from modules.critics.attention_critic import Attended, AttentionCritic
from modules.masked_policy import best, mask_logits

# Weight of the squared attention logits in the critic's loss: keeps attention from saturating.
ATTENTION_PENALTY = 1e-3


class MaacOptions(ActorCriticOptions):
    """Discount, optimizers, rhythm and entropy."""

    reward_scale: float = Field(100.0, gt=0, description="1 / alpha: rewards count this much against the entropy")


class MaacLearner(ActorCriticLearner):
    """Arguments as :class:`ActorCriticLearner`.

    Raises:
        UserError: there is one agent, which has nobody to attend to.
    """

    explains = True
    critic: AttentionCritic

    def __init__(
        self,
        controller: ActorController,
        info: EnvInfo,
        options: MaacOptions,
        rng: np.random.Generator,
        device: torch.device,
        critic: Callable[[int, int, int], AttentionCritic],
    ) -> None:
        if info.n_agents == 1:
            raise UserError("MAAC needs two agents or more: one agent has nobody to attend to")
        super().__init__(controller, info, options, rng, device, critic)
        self.alpha = 1.0 / options.reward_scale
        self.n_agents = info.n_agents

    @override
    def critic_loss(self, batch: Transitions) -> tuple[Tensor, dict[str, Tensor]]:
        """sum_i mean (Q_i(o, a) - y_i)^2 + 1e-3 sum of the heads' mean squared attention logits (eqs. 7 and 8).

        y_i = r + gamma (1 - d) (Q'_i(o', a') - alpha log pi'_i(a'_i | o'_i)), a' sampled from the target policies.
        """
        attended = self.critic(batch.obs, batch.actions, batch.alive)
        values = (attended.values * batch.actions).sum(-1)
        with torch.no_grad():
            logits = mask_logits(self.targets["actor"](batch.next_obs), batch.next_avail)
            sampled = best(logits + self.gumbel(logits.shape))
            ahead = self.targets["critic"](batch.next_obs, sampled, batch.next_alive)
            log_pi = (logits.log_softmax(-1) * sampled).sum(-1)
            future = (ahead.values * sampled).sum(-1) - self.alpha * log_pi
            targets = batch.reward + self.options.gamma * (1.0 - batch.terminated) * future
        loss = (values - targets).square().mean(0).sum() + ATTENTION_PENALTY * squared_logits(attended)
        attention = attended.weights.detach()
        spread = -(attention * attention.clamp(min=1e-9).log()).sum(-1).mean()
        return loss, {
            "q_taken_mean": values.detach().mean(),
            "target_mean": targets.mean(),
            "attention_entropy": spread,
        }

    @override
    def actor_losses(self, batch: Transitions, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Policy gradient at actions that all current policies sample together (eqs. 11 and 12)."""
        sampled = best(logits.detach() + self.gumbel(logits.shape))
        with torch.no_grad():
            values = self.critic(batch.obs, sampled, batch.alive).values
        losses = policy_losses(logits, sampled, values, self.alpha)
        log_pi = logits.detach().log_softmax(-1)
        entropy = -(log_pi.exp() * log_pi).sum(-1)
        living = batch.alive.sum().clamp(min=1)
        return losses, {"entropy": (entropy * batch.alive).sum() / living}

    @torch.no_grad()
    def explain(self, batch: EpisodeBatch) -> dict[str, Array]:
        """``attention`` [B, T, N, N]: how much agent i's value heeds agent j, mean over heads; NaN for j = i."""
        batch = batch.to(self.device)
        shape = batch["avail_actions"].shape[:3]
        alive = batch["agent_alive"] if "agent_alive" in batch else torch.ones(shape, dtype=torch.bool)
        seen = (batch["obs"], batch["actions_onehot"], alive.to(self.device))
        weights = self.critic(*(field.flatten(0, 1) for field in seen)).weights.mean(1)
        weights = weights.masked_fill(~self.critic.others, torch.nan)
        return {"attention": weights.unflatten(0, shape[:2]).cpu().numpy()}

    @override
    def clip_critic(self, parameters: Sequence[nn.Parameter], clip: float) -> Tensor:
        # Every agent's loss reaches the shared maps: without the division they would learn N times as fast.
        for shared in self.critic.shared_parameters():
            if shared.grad is not None:
                shared.grad.div_(self.n_agents)
        return nn.utils.clip_grad_norm_(parameters, clip * self.n_agents)


def policy_losses(logits: Tensor, sampled: Tensor, values: Tensor, alpha: float) -> Tensor:
    """[S, N] log pi(a) [alpha log pi(a) - A(a)], the bracket held fixed, with A(a) = Q(a) - sum_b pi(b) Q(b).

    Args:
        logits: [S, N, A] masked.
        sampled: [S, N, A] one-hot actions drawn from the policies.
        values: [S, N, A] Q_i of every own action, given the others' sampled ones.
        alpha: weight of the entropy.
    """
    log_policy = logits.log_softmax(-1)
    log_pi = (log_policy * sampled).sum(-1)
    baseline = (log_policy.exp() * values).sum(-1)
    advantage = (values * sampled).sum(-1) - baseline
    return log_pi * (alpha * log_pi - advantage).detach()


def squared_logits(attended: Attended) -> Tensor:
    """Sum over agents and heads of the mean squared attention logit over states and those that can be attended to."""
    pairs = (attended.weights > 0).float()
    count = pairs.sum((0, 3)).clamp(min=1.0)
    return (attended.logits.square().sum((0, 3)) / count).sum()
