"""HSD's learner (Yang et al. 2020, arXiv 1912.03558): QMIX over skills, Q-learning within them, and their decoder.

docs/algorithms/hsd.md lists where this differs from the paper and from its code.

Shape legend: B episodes, T transitions, D decisions, S whole segments, N agents, K skills, A actions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from components.episode_buffer import EpisodeBatch, ReplayBuffer
from components.registry import Options
from components.schedules import UpdateSchedule
from controllers.base import Clock
from controllers.hsd_controller import HsdController
from envs.base import AGENT_REWARD, EnvInfo
from learners.base import Learner, Metrics, adam, blend_target, read_metrics, step
from learners.returns import Segments, segments
from modules.mixers.base import UNAVAILABLE, Mixer, mix

Loss = tuple[Tensor, dict[str, Tensor]]


class HsdLearnerOptions(Options):
    """Rewards of both levels, optimizer and rhythm."""

    gamma: float = Field(0.99, ge=0, le=1, description="discount per step, at both levels")
    lr: float = Field(1e-3, gt=0, description="Adam learning rate of both levels and of the decoder")
    grad_norm_clip: float = Field(10.0, gt=0, description="gradient norm is cut to this")
    batch_size: int = Field(32, ge=1, description="episodes of one update")
    episodes_per_update: float = Field(1.0, gt=0, description="episodes gathered for each update")
    target_update_tau: float = Field(0.01, gt=0, le=1, description="share of the new weights in each target update")
    decoder_episodes: int = Field(8, ge=1, description="new episodes for each update of the decoder")
    level_rewards: Literal["split", "team"] = Field(
        "split",
        description="split: the high level earns reward_high, each agent its agent_reward; team: both earn the flat "
        "reward, as they do where there are no tasks",
    )
    alpha_start: float = Field(1.0, ge=0, le=1, description="share of the extrinsic in the low-level reward at first")
    alpha_finish: float = Field(0.6, ge=0, le=1, description="least share of the extrinsic reward")
    alpha_step: float = Field(0.05, gt=0, le=1, description="what it loses after each successful evaluation")
    alpha_threshold: float = Field(0.5, ge=0, le=1, description="success of an evaluation that lowers alpha")

    @model_validator(mode="after")
    def _alpha_falls(self) -> HsdLearnerOptions:
        if self.alpha_finish > self.alpha_start:
            raise ValueError(
                f"alpha_finish = {self.alpha_finish} is more than alpha_start = {self.alpha_start}, but alpha falls"
            )
        return self


class HsdLearner(Learner):
    """One update steps both levels on whole episodes; the decoder learns from new episodes only, each seen once.

    Args:
        controller: acts, and recognizes skills.
        info: shapes of the environment.
        options: rewards, optimizer and rhythm.
        rng: not used: the buffer draws the samples.
        device: where to learn.
        mixer: ``mixer(n_agents, state_dim, n_skills)`` builds the high level's mixer.
    """

    def __init__(
        self,
        controller: HsdController,
        info: EnvInfo,
        options: HsdLearnerOptions,
        rng: np.random.Generator,
        device: torch.device,
        mixer: Callable[[int, int, int], Mixer],
    ) -> None:
        self.options = options
        self.controller = controller
        self.device = device
        self.agent = controller.agent
        self.mixer = mixer(info.n_agents, info.state_shape, self.agent.n_skills).to(device)
        self.nets = nn.ModuleDict({"agent": self.agent, "mixer": self.mixer})
        self.targets = deepcopy(self.nets).requires_grad_(False)
        self.optimizers = {
            "high": adam([*self.agent.high.parameters(), *self.mixer.parameters()], options.lr),
            "low": adam(self.agent.low.parameters(), options.lr),
            "decoder": adam(self.agent.decoder.parameters(), options.lr),
        }
        self._knows_the_dead = info.tasks is not None
        self._splits = self._knows_the_dead and options.level_rewards == "split"
        self.rewards = ("reward_high", AGENT_REWARD) if self._splits else ()
        self.fields = (*(["state"] if self.mixer.uses_state else []), *(["agent_alive"] if info.tasks else []))
        self.alpha = options.alpha_start
        self._rhythm = UpdateSchedule(options.episodes_per_update)
        self._decoded = 0
        self.needs_episodes = options.batch_size
        self.updates = 0

    @override
    def update(self, buffer: ReplayBuffer, clock: Clock) -> Metrics | None:
        metrics: dict[str, Tensor | float] = {}
        for _ in range(self._rhythm.due(clock.episodes, ready=len(buffer) >= self.needs_episodes)):
            batch = buffer.sample(self.options.batch_size).to(self.device)
            metrics |= self._step("high", self.high_loss(batch))
            metrics |= self._step("low", self.low_loss(batch))
            blend_target(self.targets, self.nets, self.options.target_update_tau)
            self.updates += 1
        fresh = clock.episodes - self._decoded
        if fresh >= self.options.decoder_episodes:
            found = self.decoder_loss(buffer.newest(fresh).to(self.device))
            metrics |= self._step("decoder", found) if found else {}
            self._decoded = clock.episodes
        return read_metrics(metrics | {"alpha": self.alpha}) if metrics else None

    @override
    def after_test(self, metrics: Mapping[str, float]) -> None:
        if metrics.get("success", 0.0) >= self.options.alpha_threshold:
            self.alpha = max(self.options.alpha_finish, self.alpha - self.options.alpha_step)

    @override
    def not_begun(self) -> list[str]:
        wait = f"the decoder was not trained: it waits for {self.options.decoder_episodes} episodes (decoder_episodes)"
        return [*super().not_begun(), *([] if self._decoded else [wait])]

    def _step(self, level: str, found: Loss) -> dict[str, Tensor]:
        loss, metrics = found
        norm = step(self.optimizers[level], loss, self.options.grad_norm_clip)
        told = {"loss": loss.detach(), "grad_norm": norm, **metrics}
        return {f"{level}_{name}": value for name, value in told.items()}

    def decisions(self, batch: EpisodeBatch) -> Segments:
        """The D decisions of a batch; the future beyond a segment counts unless the task ended in it."""
        rewards = batch["reward_high" if self._splits else "reward"][:, :-1, 0]
        steps = torch.arange(rewards.shape[1], device=rewards.device)
        decide = (steps % self.controller.options.segment_length == 0).expand(len(rewards), -1)
        cut = segments(rewards, decide, batch.lengths(), self.options.gamma)
        ended = batch["terminated"][cut.episode, cut.end - 1, 0].float()
        return cut._replace(discount=self.options.gamma ** (cut.end - cut.start).float() * (1.0 - ended))

    def high_loss(self, batch: EpisodeBatch) -> Loss:
        """Mean over decisions of (Q_tot(s, z) - y)^2, y = sum_u gamma^u r_u + gamma^tau (1 - d) Q_tot'(s', z').

        z' maximizes the target agents' values, as in the authors' code.
        """
        cut = self.decisions(batch)
        now, after = (cut.episode, cut.start), (cut.episode, cut.end)
        inputs = self.controller.inputs(batch["obs"])
        values = self.agent.skill_values(inputs[now])
        q_tot = self._mix(self.mixer, values, batch["skills"][now], batch, now)
        with torch.no_grad():
            target: Any = self.targets["agent"]
            ahead = target.skill_values(inputs[after])
            future = self._mix(self.targets["mixer"], ahead, ahead.argmax(-1, keepdim=True), batch, after)
            y = cut.ret + cut.discount * future
        return (q_tot - y).square().mean(), {"target_mean": y.mean()}

    def _mix(
        self, mixer: Any, values: Tensor, skills: Tensor, batch: EpisodeBatch, at: tuple[Tensor, Tensor]
    ) -> Tensor:
        """[D] Q_tot of skills [D, N, 1]; every skill is available."""
        states = batch["state"][at] if mixer.uses_state else None
        return mix(mixer, values, skills, states, torch.ones_like(values)).squeeze(-1)

    def low_loss(self, batch: EpisodeBatch) -> Loss:
        """Mean over transitions and agents of (Q(o, z, a) - y)^2, y = r_i + gamma (1 - d) max_a Q'(o', z, a)."""
        mask, skills = batch.mask(), batch["skills"][:, :-1]
        inputs = self.controller.inputs(batch["obs"])
        values = self.agent.action_values(inputs[:, :-1], skills)
        chosen = values.gather(-1, batch["actions"][:, :-1]).squeeze(-1)
        with torch.no_grad():
            rewards = self.low_rewards(batch)
            target: Any = self.targets["agent"]
            ahead = target.action_values(inputs[:, 1:], skills)
            future = ahead.masked_fill(batch["avail_actions"][:, 1:] == 0, UNAVAILABLE).max(-1).values
            y = rewards + self.options.gamma * (1.0 - batch["terminated"][:, :-1].float()) * future
        error = (chosen - y) * mask
        entries = mask.sum() * error.shape[-1]
        return error.square().sum() / entries, {"reward_mean": (rewards * mask).sum() / entries}

    def low_rewards(self, batch: EpisodeBatch) -> Tensor:
        """[B, T, N] alpha r_i + (1 - alpha) p(z_i | tau_i), the latter at the last step of each whole segment.

        r_i is what agent i earns whatever its task: nobody gives it one.
        """
        extrinsic = batch[AGENT_REWARD][:, :-1] if self._splits else batch["reward"][:, :-1]
        if self.alpha == 1.0:  # What the decoder says counts nothing yet.
            return extrinsic.expand(-1, -1, batch["skills"].shape[2])
        return self.alpha * extrinsic + (1.0 - self.alpha) * self.intrinsic_rewards(batch)

    def intrinsic_rewards(self, batch: EpisodeBatch) -> Tensor:
        """[B, T, N] p(z_i | tau_i) at the last step of each whole segment that counts, 0 elsewhere."""
        last = self.controller.options.segment_length - 1
        rewards = torch.zeros(batch["skills"][:, :-1].shape[:-1], device=batch.device)
        at_ends = slice(last, None, last + 1)
        rewards[:, at_ends] = self.controller.recognized(batch)[:, :-1][:, at_ends].nan_to_num(0.0)
        episode, start = self.controller.whole_segments(batch)
        rewards[episode, start + last] *= self._counts(batch, episode, start)
        return rewards

    def _counts(self, batch: EpisodeBatch, episode: Tensor, start: Tensor) -> Tensor:
        """[S, N] 1 for an agent that lived for half of the segment or more: the decoder knows no others."""
        if not self._knows_the_dead:
            return torch.ones(len(episode), batch["skills"].shape[2], device=batch.device)
        steps = start.unsqueeze(1) + torch.arange(self.controller.options.segment_length, device=start.device)
        return (batch["agent_alive"][episode.unsqueeze(1), steps].float().mean(1) >= 0.5).float()

    def decoder_loss(self, batch: EpisodeBatch) -> Loss | None:
        """Cross-entropy of the skills given the whole segments in which the agent lived for half the time or more.

        ``None`` where there is no such segment.
        """
        episode, start = self.controller.whole_segments(batch)
        if not len(episode):
            return None
        logits = self.controller.recognize(batch, episode, start)
        skills = batch["skills"][episode, start].squeeze(-1)
        counts = self._counts(batch, episode, start)
        total = counts.sum().clamp(min=1.0)
        loss = (functional.cross_entropy(logits.transpose(1, 2), skills, reduction="none") * counts).sum() / total
        right = (logits.argmax(-1) == skills).float()
        return loss, {"accuracy": (right * counts).sum() / total}

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "mixer": self.mixer.state_dict(),
            "targets": self.targets.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "rhythm": self._rhythm.state_dict(),
            "alpha": self.alpha,
            "decoded": self._decoded,
            "updates": self.updates,
        }

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.mixer.load_state_dict(state["mixer"])
        self.targets.load_state_dict(state["targets"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self._rhythm.load_state_dict(state["rhythm"])
        self.alpha, self._decoded, self.updates = state["alpha"], state["decoded"], state["updates"]
