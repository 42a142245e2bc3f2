"""RODE's learner (Wang et al. 2021, arXiv 2010.01523): QMIX at both levels, and the codes that roles are made from.

docs/algorithms/rode.md lists where this differs from the paper and from its authors' code.

Shape legend: B episodes, T transitions, N agents, A actions, K roles, S choices of a role in all episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from components.episode_buffer import EpisodeBatch, ReplayBuffer
from components.random import load_rng_state, rng_state
from components.schedules import UpdateSchedule
from controllers.base import Clock
from controllers.rode_controller import RodeController
from envs.base import AGENT_REWARD, EnvInfo
from learners.base import Metrics, step
from learners.q_learner import QLearnerOptions, TargetLearner, best_choice, make_optimizer
from learners.returns import segments
from modules.action_encoder import ActionEncoder, cluster, role_sets
from modules.agents.rode_agent import RoleValues
from modules.mixers.base import Mixer, mix


class RodeLearnerOptions(QLearnerOptions):
    """Targets, optimizer and rhythm of both levels, and when roles are made."""

    role_action_spaces_update_start: int = Field(
        50_000, ge=1, description="environment steps after which the actions are clustered into roles, once"
    )
    state_latent_dim: int = Field(32, ge=1, description="units of the action encoder's forward model")
    level_rewards: Literal["split", "mixed"] = Field(
        "split",
        description="split: roles learn from the team's success, actions from what the agents earn whatever their task "
        "(where there are tasks); mixed: both from the flat reward",
    )


class RodeLearner(TargetLearner):
    """TD losses of actions and of roles in one step; until there are roles, the action encoder learns beside them.

    The encoder has one update per episode whatever ``episodes_per_update``: roles are made of it once, for good.

    Args:
        controller: acts and unrolls the networks.
        info: shapes of the environment.
        options: targets, optimizer and rhythm.
        rng: draws the starts of the clustering.
        device: where to learn.
        mixer: ``mixer(n_agents, state_dim, n_actions)`` builds the mixers, one for each level.
    """

    options: RodeLearnerOptions

    def __init__(
        self,
        controller: RodeController,
        info: EnvInfo,
        options: RodeLearnerOptions,
        rng: np.random.Generator,
        device: torch.device,
        mixer: Callable[[int, int, int], Mixer],
    ) -> None:
        self.controller = controller
        self.agent = controller.agent
        nets: dict[str, nn.Module] = {"agent": controller.agent}
        choices = {"mixer": info.n_actions, "role_mixer": len(controller.agent.role_exists)}
        nets |= {name: mixer(info.n_agents, info.state_shape, count).to(device) for name, count in choices.items()}
        super().__init__(nn.ModuleDict(nets), options, device)
        self.splits = options.level_rewards == "split" and info.tasks is not None
        if self.splits:
            self.rewards = ("reward_high", AGENT_REWARD)
            self.fields = (*self.fields, "agent_alive")
        self.encoder = ActionEncoder(
            info.obs_shape, info.n_agents, info.n_actions, options.state_latent_dim, self.agent.action_latent_dim
        ).to(device)
        self.encoder_optimizer = make_optimizer(self.encoder.parameters(), options)
        self._encoder_rhythm = UpdateSchedule(1.0)
        self._first_task_action = info.tasks.first_task_action if info.tasks else None
        self._rng = rng

    @property
    def has_roles(self) -> bool:
        """Whether the actions have been clustered."""
        return int(self.agent.roles_since) >= 0

    @override
    def update(self, buffer: ReplayBuffer, clock: Clock) -> Metrics | None:
        metrics = super().update(buffer, clock)
        if self.has_roles:
            return metrics
        loss: Tensor | None = None
        for _ in range(self._encoder_rhythm.due(clock.episodes, ready=len(buffer) >= self.needs_episodes)):
            loss = self.learn_encoder(buffer.sample(self.options.batch_size).to(self.device))
        if loss is None:
            return metrics
        if clock.env_steps >= self.options.role_action_spaces_update_start:
            self.make_roles(clock)
        return (metrics or {}) | {"encoder_loss": float(loss)}

    @override
    def not_begun(self) -> list[str]:
        start = self.options.role_action_spaces_update_start
        wait = f"no roles were made: they wait for {start:,} env steps (role_action_spaces_update_start)"
        return [*super().not_begun(), *([] if self.has_roles else [wait])]

    def learn_encoder(self, batch: EpisodeBatch) -> Tensor:
        """One gradient step of the action encoder, with the reward that actions learn from; returns its loss."""
        actions = batch["actions_onehot"][:, :-1]
        loss = self.encoder.loss(batch["obs"], actions, self._rewards(batch)[1], batch.mask())
        step(self.encoder_optimizer, loss, self.options.grad_norm_clip)
        return loss.detach()

    @torch.no_grad()
    def make_roles(self, clock: Clock) -> None:
        """Clusters the actions' codes into roles, for good; the targets follow at once."""
        codes = self.encoder.codes()
        count = min(self.agent.n_role_clusters, len(codes))
        labels = cluster(codes.double().cpu().numpy(), count, self._rng)
        sets = torch.from_numpy(role_sets(labels, self._first_task_action)).to(self.device)
        self.agent.set_roles(codes, sets, clock.env_steps)
        self.targets.load_state_dict(self.nets.state_dict())
        self._last_target_update = clock.episodes

    @override
    def loss(self, batch: EpisodeBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of the actions plus loss of the roles."""
        values = self.controller.role_values(batch, self.nets["agent"])
        with torch.no_grad():
            behind = self.controller.role_values(batch, self.targets["agent"])
        loss, metrics = self.action_loss(batch, values, behind)
        role_loss, role_metrics = self.role_loss(batch, values, behind)
        return loss + role_loss, metrics | role_metrics

    def action_loss(
        self, batch: EpisodeBatch, values: RoleValues, behind: RoleValues
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """TD loss of the actions taken in the roles that were followed.

        The role goes on to the next step, unless a role is chosen there: then the best one. As in the official code the
        next action is the best of all that are available, in the role or not.
        """
        followed = batch["roles"][:, :-1].squeeze(-1)
        now = self.agent.action_values(values.keys[:, :-1], followed)
        with torch.no_grad():
            ranking = (values if self.options.double_q else behind).roles[:, 1:]
            chosen = best_choice(ranking, self.agent.role_exists).squeeze(-1)
            roles = torch.where(self._chooses(batch)[1:, None], chosen, followed)
            ahead, judged = (self.agent.action_values(v.keys[:, 1:], roles) for v in (values, behind))
        return self.td_loss(batch, now, ahead, judged, self._rewards(batch)[1])

    def role_loss(
        self, batch: EpisodeBatch, values: RoleValues, behind: RoleValues
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean of (Q_tot^role - y)^2 over all choices of roles.

        y = r_t + ... + r_{t+c-1} + gamma (1 - terminated) max Q_tot^role at the next choice, by the targets. Where a
        time limit cuts the last interval short, the next choice is at the last observation.
        """
        steps = batch.max_seq_length - 1
        decide = self._chooses(batch)[:steps].expand(batch.batch_size, steps)
        cut = segments(self._rewards(batch)[0].squeeze(-1), decide, batch.lengths(), gamma=1.0)

        def mixed(nets: nn.ModuleDict, of_roles: Tensor, roles: Tensor, at: Tensor) -> Tensor:
            """[S, N, K] and roles [S, N, 1] -> [S, 1]."""
            states = batch["state"][cut.episode, at] if self.fields else None
            mixer: Any = nets["role_mixer"]
            return mix(mixer, of_roles, roles, states, self.agent.role_exists.expand_as(of_roles))

        followed = batch["roles"][cut.episode, cut.start]
        q_tot = mixed(self.nets, values.roles[cut.episode, cut.start], followed, cut.start)
        with torch.no_grad():
            ahead, judged = (v.roles[cut.episode, cut.end] for v in (values, behind))
            best = best_choice(ahead if self.options.double_q else judged, self.agent.role_exists)
            goes_on = 1.0 - batch["terminated"][cut.episode, cut.end - 1].float()
            after = mixed(self.targets, judged, best, cut.end)
            targets = cut.ret.unsqueeze(-1) + self.options.gamma * goes_on * after
        loss = (q_tot - targets).square().mean()
        return loss, {"role_loss": loss.detach(), "role_q_taken_mean": q_tot.detach().mean()}

    def _chooses(self, batch: EpisodeBatch) -> Tensor:
        """[T + 1] bool: the steps at which roles are chosen."""
        steps = torch.arange(batch.max_seq_length, device=batch.device)
        return steps % self.controller.options.role_interval == 0

    def _rewards(self, batch: EpisodeBatch) -> tuple[Tensor, Tensor]:
        """[B, T, 1] rewards of the roles and of the actions; what agents earn is a mean over those at the start."""
        if not self.splits:
            return batch["reward"][:, :-1], batch["reward"][:, :-1]
        earned = batch[AGENT_REWARD][:, :-1].sum(-1, keepdim=True)
        present = batch["agent_alive"][:, :1].sum(-1, keepdim=True).clamp(min=1)
        return batch["reward_high"][:, :-1], earned / present

    @override
    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {
            "encoder": self.encoder.state_dict(),
            "encoder_optimizer": self.encoder_optimizer.state_dict(),
            "encoder_rhythm": self._encoder_rhythm.state_dict(),
            "rng": rng_state(self._rng),
        }

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.encoder.load_state_dict(state["encoder"])
        self.encoder_optimizer.load_state_dict(state["encoder_optimizer"])
        self._encoder_rhythm.load_state_dict(state["encoder_rhythm"])
        load_rng_state(self._rng, state["rng"])
