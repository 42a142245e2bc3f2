"""What MADDPG and MAAC share: single transitions from replay, a critic step and an actor step, soft targets.

Shape legend: S transitions, N agents, A actions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from components.episode_buffer import ReplayBuffer, one_hot
from components.random import load_rng_state, rng_state
from components.registry import Options
from components.schedules import UpdateSchedule
from controllers.actor_controller import ActorController
from controllers.base import Clock
from envs.base import EnvInfo
from learners.base import Learner, Metrics, blend_target, read_metrics, step
from modules.masked_policy import logit_penalty, mask_logits
from modules.stacked import clip_each_agent_


class ActorCriticOptions(Options):
    """Discount, optimizers and rhythm."""

    gamma: float = Field(0.99, ge=0, le=1, description="discount per step")
    lr: float = Field(1e-3, gt=0, description="Adam learning rate of the actors")
    critic_lr: float = Field(1e-3, gt=0, description="Adam learning rate of the critics")
    critic_weight_decay: float = Field(0.0, ge=0, description="L2 penalty in the critics' Adam")
    grad_norm_clip: float = Field(10.0, gt=0, description="gradient norm of every agent's actor is cut to this")
    critic_grad_norm_clip: float = Field(10.0, gt=0, description="the same of the critics, for each agent")
    batch_size: int = Field(1024, ge=1, description="transitions of one update")
    env_steps_per_update: float = Field(50.0, gt=0, description="environment steps gathered for each update")
    warmup_episodes: int = Field(32, ge=1, description="episodes before the first update")
    target_update_tau: float = Field(
        0.01, gt=0, le=1, description="share of the new weights in the targets, per update"
    )
    # Keeps policies from becoming deterministic for good; large beside actions whose values differ by 0.01
    # (docs/decisions/027).
    logit_penalty: float = Field(1e-3, ge=0, description="weight of the mean squared logit in the actors' loss")


class Transitions(NamedTuple):
    """S transitions; what carries ``next`` belongs to the step after."""

    obs: Tensor  # [S, N, O]
    next_obs: Tensor  # [S, N, O]
    avail: Tensor  # [S, N, A]
    next_avail: Tensor  # [S, N, A]
    alive: Tensor  # [S, N] bool
    next_alive: Tensor  # [S, N] bool
    actions: Tensor  # [S, N, A] one-hot
    reward: Tensor  # [S, 1] the team's
    terminated: Tensor  # [S, 1] 1 where the task ended, 0 at a time limit


def sample_transitions(buffer: ReplayBuffer, count: int, tells_alive: bool, device: torch.device) -> Transitions:
    """Uniform transitions of all that are stored, with replacement.

    Args:
        buffer: holds the episodes.
        count: S.
        tells_alive: ``agent_alive`` is stored; otherwise everybody lives.
        device: where the batch is wanted.
    """
    index = buffer.sample_steps(count)

    def read(name: str, offset: int = 0) -> Tensor:
        return buffer.at(name, index, offset).to(device)

    avail = read("avail_actions")
    everybody = torch.ones(avail.shape[:2], dtype=torch.bool, device=device)
    return Transitions(
        obs=read("obs"),
        next_obs=read("obs", 1),
        avail=avail,
        next_avail=read("avail_actions", 1),
        alive=read("agent_alive") if tells_alive else everybody,
        next_alive=read("agent_alive", 1) if tells_alive else everybody,
        actions=one_hot(read("actions"), avail.shape[-1]),
        reward=read("reward"),
        terminated=read("terminated").float(),
    )


def living_mean(losses: Tensor, alive: Tensor) -> Tensor:
    """Sum over agents of the mean of their losses [S, N] over the states in which they live."""
    return ((losses * alive).sum(0) / alive.sum(0).clamp(min=1)).sum()


class ActorCriticLearner(Learner):
    """One update: critics towards one-step targets, actors against the critics, then both targets a little.

    Args:
        controller: holds the actors.
        info: shapes of the environment.
        options: losses and rhythm.
        rng: draws the actions that losses sample.
        device: where to learn.
        critic: ``critic(n_agents, obs_dim, n_actions)`` builds the critics.
    """

    def __init__(
        self,
        controller: ActorController,
        info: EnvInfo,
        options: ActorCriticOptions,
        rng: np.random.Generator,
        device: torch.device,
        critic: Callable[[int, int, int], nn.Module],
    ) -> None:
        self.options = options
        self.controller = controller
        self.device = device
        self.fields = ("agent_alive",) if info.tasks else ()
        self.actor = controller.agent
        self.critic = critic(info.n_agents, info.obs_shape, info.n_actions).to(device)
        self.targets = nn.ModuleDict(deepcopy({"actor": self.actor, "critic": self.critic})).requires_grad_(False)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=options.lr, fused=True)
        self.critic_optimizer = torch.optim.Adam(
            self.critic.parameters(), lr=options.critic_lr, weight_decay=options.critic_weight_decay, fused=True
        )
        self._rng = rng
        self._rhythm = UpdateSchedule(options.env_steps_per_update)
        self.needs_episodes = options.warmup_episodes
        self.updates = 0

    @abstractmethod
    def critic_loss(self, batch: Transitions) -> tuple[Tensor, dict[str, Tensor]]:
        """The critics' loss and what to log about it."""

    @abstractmethod
    def actor_losses(self, batch: Transitions, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """[S, N] every agent's own loss, given its policy's masked logits [S, N, A], and what to log about it."""

    @abstractmethod
    def clip_critic(self, parameters: Sequence[nn.Parameter], clip: float) -> Tensor:
        """Cuts the critics' gradients; returns their norm before."""

    @override
    def update(self, buffer: ReplayBuffer, clock: Clock) -> Metrics | None:
        metrics: dict[str, Tensor] = {}
        tells_alive = "agent_alive" in self.fields
        for _ in range(self._rhythm.due(clock.env_steps, ready=len(buffer) >= self.needs_episodes)):
            batch = sample_transitions(buffer, self.options.batch_size, tells_alive, self.device)
            metrics = self._update_critic(batch) | self._update_actor(batch)
            for name, net in (("actor", self.actor), ("critic", self.critic)):
                blend_target(self.targets[name], net, self.options.target_update_tau)
            self.updates += 1
        return read_metrics(metrics) if metrics else None

    def _update_critic(self, batch: Transitions) -> dict[str, Tensor]:
        loss, metrics = self.critic_loss(batch)
        norm = step(self.critic_optimizer, loss, self.options.critic_grad_norm_clip, self.clip_critic)
        return {"critic_loss": loss.detach(), "critic_grad_norm": norm} | metrics

    def _update_actor(self, batch: Transitions) -> dict[str, Tensor]:
        # The loss may run through the critic, where no gradient is to stay behind.
        self.critic.requires_grad_(False)
        logits = self.actor(batch.obs)
        losses, metrics = self.actor_losses(batch, mask_logits(logits, batch.avail))
        penalty = self.options.logit_penalty * logit_penalty(logits, batch.avail)
        loss = living_mean(losses + penalty, batch.alive)
        norm = step(self.actor_optimizer, loss, self.options.grad_norm_clip, clip_each_agent_)
        self.critic.requires_grad_(True)
        return {"actor_loss": loss.detach(), "actor_grad_norm": norm} | metrics

    def gumbel(self, shape: torch.Size) -> Tensor:
        """Standard Gumbel noise from the learner's own stream."""
        return torch.from_numpy(self._rng.gumbel(size=tuple(shape)).astype(np.float32)).to(self.device)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "critic": self.critic.state_dict(),
            "targets": self.targets.state_dict(),
            "actor_optimizer": self.actor_optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "rhythm": self._rhythm.state_dict(),
            "rng": rng_state(self._rng),
            "updates": self.updates,
        }

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.critic.load_state_dict(state["critic"])
        self.targets.load_state_dict(state["targets"])
        self.actor_optimizer.load_state_dict(state["actor_optimizer"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        self._rhythm.load_state_dict(state["rhythm"])
        load_rng_state(self._rng, state["rng"])
        self.updates = state["updates"]
