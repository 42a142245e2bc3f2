"""Value-based learning with a mixer: IQL (no mixer), VDN, QMIX, QPLEX.

Loss = sum mask (Q_tot - y)^2 / sum mask, with double-Q, TD(lambda) targets y.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from components.episode_buffer import EpisodeBatch, ReplayBuffer
from components.registry import Options
from components.schedules import UpdateSchedule
from controllers.base import Array, Clock
from controllers.basic_controller import BasicController
from envs.base import EnvInfo
from learners.base import Learner, Metrics, adam, blend_target, read_metrics, step
from learners.returns import td_lambda_targets
from modules.mixers.base import UNAVAILABLE, Mixer, mix


class QLearnerOptions(Options):
    """Targets, optimizer and update rhythm."""

    gamma: float = Field(0.99, ge=0, le=1, description="discount per step")
    td_lambda: float = Field(0.0, ge=0, le=1, description="lambda of the TD(lambda) targets; 0: one step")
    double_q: bool = Field(True, description="the online network picks the target's action")
    lr: float = Field(5e-4, gt=0, description="learning rate")
    optimizer: Literal["adam", "rmsprop"] = Field("rmsprop", description="PyMARL's RMSprop, or Adam")
    optim_alpha: float = Field(0.99, gt=0, lt=1, description="RMSprop smoothing")
    optim_eps: float = Field(1e-5, gt=0, description="RMSprop epsilon")
    grad_norm_clip: float = Field(10.0, gt=0, description="gradient norm is cut to this")
    batch_size: int = Field(32, ge=1, description="episodes of one update")
    episodes_per_update: float = Field(8.0, gt=0, description="episodes gathered for each update")
    target_update_interval: int = Field(200, ge=1, description="episodes between target updates")
    target_update_tau: float = Field(
        1.0, gt=0, le=1, description="share of the new weights in a target update; 1: copy"
    )


class TargetLearner(Learner):
    """Learns from sampled episodes by one loss: networks, their targets, one optimizer, and when each moves.

    Args:
        nets: what is learned; the agents' network under "agent".
        options: targets, optimizer and rhythm.
        device: where to learn.
    """

    def __init__(self, nets: nn.ModuleDict, options: QLearnerOptions, device: torch.device) -> None:
        self.options = options
        self.device = device
        self.nets = nets
        self.targets = deepcopy(nets).requires_grad_(False)
        self.fields = ("state",) if any(getattr(net, "uses_state", False) for net in nets.values()) else ()
        self.optimizer = make_optimizer(nets.parameters(), options)
        self._rhythm = UpdateSchedule(options.episodes_per_update)
        self._last_target_update = 0
        self.needs_episodes = options.batch_size
        self.updates = 0

    @abstractmethod
    def loss(self, batch: EpisodeBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch of episodes, and what to log about it."""

    @override
    def update(self, buffer: ReplayBuffer, clock: Clock) -> Metrics | None:
        metrics: dict[str, Tensor] | None = None
        for _ in range(self._rhythm.due(clock.episodes, ready=len(buffer) >= self.needs_episodes)):
            metrics = self.learn(buffer.sample(self.options.batch_size).to(self.device))
            self.updates += 1
        # A move for each interval, however many episodes come in a round.
        for _ in range((clock.episodes - self._last_target_update) // self.options.target_update_interval):
            blend_target(self.targets, self.nets, self.options.target_update_tau)
            self._last_target_update = clock.episodes
        return None if metrics is None else read_metrics(metrics)

    def learn(self, batch: EpisodeBatch) -> dict[str, Tensor]:
        """One gradient step; returns what to log about it."""
        loss, metrics = self.loss(batch)
        metrics["grad_norm"] = step(self.optimizer, loss, self.options.grad_norm_clip)
        return metrics

    def td_loss(
        self, batch: EpisodeBatch, values: Tensor, ahead: Tensor, behind: Tensor, rewards: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Masked mean of (Q_tot - y)^2, and what to log about it.

        Args:
            batch: B episodes.
            values: [B, T-1, N, A] of every step but the last.
            ahead: [B, T-1, N, A] of the steps after; without gradient.
            behind: the same by the target network.
            rewards: [B, T-1, 1].
        """
        options, mask = self.options, batch.mask()
        terminated = batch["terminated"][:, :-1].float()
        with torch.no_grad():
            best = best_choice(ahead if options.double_q else behind, batch["avail_actions"][:, 1:])
            next_values = self._mix(self.targets, behind, best, batch, slice(1, None))
            targets = td_lambda_targets(rewards, next_values, terminated, mask, options.gamma, options.td_lambda)
        q_tot = self._mix(self.nets, values, batch["actions"][:, :-1], batch, slice(None, -1))
        error = (q_tot - targets) * mask
        entries = mask.sum() * q_tot.shape[-1]
        loss = error.square().sum() / entries
        return loss, {
            "loss": loss.detach(),
            "td_error_abs": error.detach().abs().sum() / entries,
            "q_taken_mean": (q_tot.detach() * mask).sum() / entries,
            "target_mean": (targets * mask).sum() / entries,
        }

    def _mix(self, nets: nn.ModuleDict, values: Tensor, actions: Tensor, batch: EpisodeBatch, steps: slice) -> Tensor:
        """Values [B, T, N, A] and actions [B, T, N, 1] -> [B, T, 1] of the team; without a mixer the agents' own."""
        if "mixer" not in nets:
            return values.gather(-1, actions).squeeze(-1)
        mixer: Any = nets["mixer"]
        states = batch["state"][:, steps] if mixer.uses_state else None
        return mix(mixer, values, actions, states, batch["avail_actions"][:, steps])

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "nets": self.nets.state_dict(),
            "targets": self.targets.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rhythm": self._rhythm.state_dict(),
            "last_target_update": self._last_target_update,
            "updates": self.updates,
        }

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.nets.load_state_dict(state["nets"])
        self.targets.load_state_dict(state["targets"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._rhythm.load_state_dict(state["rhythm"])
        self._last_target_update = state["last_target_update"]
        self.updates = state["updates"]


class QLearner(TargetLearner):
    """Q-learning over whole episodes with a target network and an optional mixer.

    Args:
        controller: acts and unrolls the agent network.
        info: shapes of the environment.
        options: targets, optimizer and rhythm.
        rng: not used: the buffer draws the samples.
        device: where to learn.
        mixer: ``mixer(n_agents, state_dim, n_actions)`` builds the mixer; ``None`` for independent learners.
    """

    def __init__(
        self,
        controller: BasicController,
        info: EnvInfo,
        options: QLearnerOptions,
        rng: np.random.Generator,
        device: torch.device,
        mixer: Callable[[int, int, int], Mixer] | None = None,
    ) -> None:
        self.controller = controller
        nets = nn.ModuleDict({"agent": controller.agent})
        if mixer is not None:
            nets["mixer"] = mixer(info.n_agents, info.state_shape, info.n_actions).to(device)
        super().__init__(nets, options, device)
        self.explains = mixer is not None

    @override
    def loss(self, batch: EpisodeBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """TD loss of a batch of episodes, and what to log about it."""
        values = self.controller.unroll(batch, self.nets["agent"])
        with torch.no_grad():
            behind = self.controller.unroll(batch, self.targets["agent"])
        return self.q_loss(batch, values, behind)

    def q_loss(self, batch: EpisodeBatch, values: Tensor, behind: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """TD loss of values [B, T, N, A] of the networks and of their targets."""
        return self.td_loss(batch, values[:, :-1], values[:, 1:], behind[:, 1:], batch["reward"][:, :-1])

    @override
    def explain(self, batch: EpisodeBatch) -> dict[str, Array]:
        """Each agent's value of the action taken, and dQ_tot / dQ_i: how much it counts for the team's."""
        batch = batch.to(self.device)
        with torch.no_grad():
            values = self.controller.unroll(batch, self.nets["agent"])
        total = self._mix(self.nets, values.requires_grad_(), batch["actions"], batch, slice(None))
        (weights,) = torch.autograd.grad(total.sum(), values)
        own, weight = (x.detach().gather(-1, batch["actions"]).squeeze(-1).cpu().numpy() for x in (values, weights))
        return {"Q_i": own, "dQ_tot / dQ_i": weight}


def make_optimizer(parameters: Iterable[nn.Parameter], options: QLearnerOptions) -> torch.optim.Optimizer:
    """PyMARL's RMSprop, or Adam."""
    if options.optimizer == "adam":
        return adam(parameters, options.lr)
    return torch.optim.RMSprop(
        list(parameters), lr=options.lr, alpha=options.optim_alpha, eps=options.optim_eps, foreach=True
    )


def best_choice(values: Tensor, avail: Tensor) -> Tensor:
    """[..., 1] the choice of largest value [..., A] among the available ones, where ``avail`` [..., A] is nonzero."""
    return values.masked_fill(avail == 0, UNAVAILABLE).argmax(-1, keepdim=True)
