"""MAPPO and IPPO (Yu et al. 2022, arXiv 2103.01955; de Witt et al. 2020, arXiv 2011.09533).

Policy: maximize mean min(rho A, clip(rho, 1 - eps, 1 + eps) A) + entropy_coef H(pi), rho = pi / pi_old (eq. 1), with
A from GAE(lambda). Critic: minimize mean max of the squared errors of V and of V cut to within eps of what it was
(eq. 2), on normalized targets. MAPPO's critic sees the state, IPPO's what its agent sees.

Shape legend: B episodes, T transitions, N agents, A actions; K values of a step: 1 of the team, or N.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import override

from components.episode_buffer import EpisodeBatch, ReplayBuffer
from components.random import load_rng_state, rng_state
from components.registry import Options
from controllers.base import Clock
from controllers.policy_controller import PolicyController
from envs.base import EnvInfo
from learners.base import Learner, Metrics, adam, read_metrics, step
from learners.on_policy import NewEpisodes, entropy_of, has_choice
from learners.returns import td_lambda_targets
from modules.agents.base import ValueAgent
from modules.orthogonal import orthogonal_
from modules.value_norm import ValueNorm

SMALLEST_DEVIATION = 1e-5


class PpoOptions(Options):
    """Returns, clipping, optimizer and rhythm."""

    gamma: float = Field(0.99, ge=0, le=1, description="discount per step")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="lambda of the generalized advantage estimate")
    critic_input: Literal["state", "obs"] = Field(
        "state", description="the state (MAPPO), or what each agent sees (IPPO)"
    )
    eps_clip: float = Field(0.2, gt=0, description="how far the probability ratio and the value may move in an update")
    entropy_coef: float = Field(0.01, ge=0, description="weight of the policy's entropy")
    batch_size: int = Field(32, ge=1, description="new episodes to wait for; an update learns from all there are")
    epochs: int = Field(10, ge=1, description="passes over the new episodes")
    minibatches: int = Field(1, ge=1, description="gradient steps of a pass, each on its share of the episodes")
    lr: float = Field(5e-4, gt=0, description="Adam learning rate of policy and critic")
    optim_eps: float = Field(1e-5, gt=0, description="Adam epsilon")
    grad_norm_clip: float = Field(10.0, gt=0, description="the gradient norms of policy and critic are cut to this")

    @model_validator(mode="after")
    def _minibatches_hold_episodes(self) -> PpoOptions:
        if self.minibatches > self.batch_size:
            raise ValueError(
                f"minibatches = {self.minibatches} cannot be made of batch_size = {self.batch_size} episodes: use "
                f"minibatches <= {self.batch_size}"
            )
        return self


class Rollout(NamedTuple):
    """Episodes and what was true of them before the update.

    Attributes:
        batch: [B, T + 1] episodes.
        weight: [B, T, N] 1 where an agent chose, that is where it had more than one action.
        log_probs: [B, T, N] of the actions, by the policy that chose them.
        advantages: [B, T, N] normalized.
        values: [B, T, K] normalized values.
        targets: [B, T, K] normalized value targets.
    """

    batch: EpisodeBatch
    weight: Tensor
    log_probs: Tensor
    advantages: Tensor
    values: Tensor
    targets: Tensor

    def part(self, ids: Tensor) -> Rollout:
        """Some of the episodes."""
        batch, *tensors = self
        return Rollout(batch[ids], *(field[ids] for field in tensors))


class PpoLearner(Learner):
    """Clipped policy optimization over the newest episodes, several epochs each.

    Args:
        controller: acts and evaluates the policy.
        info: shapes of the environment.
        options: returns, clipping, optimizer and rhythm.
        rng: orders the episodes of an epoch.
        device: where to learn.
        critic: ``critic(input_dim, 1)`` builds the value network.
    """

    each_once = True

    def __init__(
        self,
        controller: PolicyController,
        info: EnvInfo,
        options: PpoOptions,
        rng: np.random.Generator,
        device: torch.device,
        critic: Callable[[int, int], ValueAgent],
    ) -> None:
        self.options = options
        self.controller = controller
        self.device = device
        self.sees_state = options.critic_input == "state"
        self.fields = ("state",) if self.sees_state else ()
        self.critic = critic(info.state_shape if self.sees_state else controller.input_dim, 1).to(device)
        orthogonal_(self.critic, 1.0)
        self.value_norm = ValueNorm().to(device)
        self.optimizers = {
            name: adam(network.parameters(), options.lr, options.optim_eps)
            for name, network in (("actor", controller.agent), ("critic", self.critic))
        }
        self._rng = rng
        self._new = NewEpisodes(options.batch_size)
        self.needs_episodes = options.batch_size
        self.updates = 0

    @override
    def update(self, buffer: ReplayBuffer, clock: Clock) -> Metrics | None:
        batch = self._new.take(buffer, clock)
        if batch is None:
            return None
        rollout = self.rollout(batch.to(self.device))
        metrics: dict[str, Tensor] = {}
        for _ in range(self.options.epochs):
            order = torch.from_numpy(self._rng.permutation(rollout.batch.batch_size))
            for ids in order.tensor_split(self.options.minibatches):
                metrics = self._step(rollout.part(ids.to(self.device)))
                self.updates += 1
        return read_metrics(metrics)

    def _step(self, part: Rollout) -> dict[str, Tensor]:
        metrics: dict[str, Tensor] = {}
        for name, loss_of in (("actor", self.policy_loss), ("critic", self.value_loss)):
            loss, more = loss_of(part)
            metrics |= more | {
                f"{name}_grad_norm": step(self.optimizers[name], loss, self.options.grad_norm_clip),
            }
        return metrics

    @torch.no_grad()
    def rollout(self, batch: EpisodeBatch) -> Rollout:
        """Advantages and value targets before the update; the value statistics take the targets in.

        The lambda-return minus the value is GAE(lambda); at a time limit it ends with the last observation's value.
        """
        options, mask = self.options, batch.mask()
        values = self.values(batch)
        real = self.value_norm.denormalize(values)
        terminated = batch["terminated"][:, :-1].float()
        targets = td_lambda_targets(
            batch["reward"][:, :-1], real[:, 1:], terminated, mask, options.gamma, options.gae_lambda
        )
        weight = has_choice(batch["avail_actions"][:, :-1]) * mask
        self.value_norm.update(targets, mask.expand_as(targets))
        return Rollout(
            batch,
            weight,
            batch["log_probs"][:, :-1].squeeze(-1),
            standardized(targets - real[:, :-1], weight),
            values[:, :-1],
            self.value_norm.normalize(targets),
        )

    def values(self, batch: EpisodeBatch) -> Tensor:
        """[B, T + 1, K] normalized values of whole episodes."""
        inputs = batch["state"].unsqueeze(2) if self.sees_state else self.controller.inputs(batch)
        values: Tensor = self.critic(inputs, None)[0]
        return values.squeeze(-1)

    def policy_loss(self, part: Rollout) -> tuple[Tensor, dict[str, Tensor]]:
        """Clipped surrogate and entropy, mean over the choices made, and what to log."""
        eps, weight = self.options.eps_clip, part.weight
        count = weight.sum().clamp(min=1.0)
        log_pi = self.controller.log_pi(part.batch)[:, :-1]
        chosen = log_pi.gather(-1, part.batch["actions"][:, :-1]).squeeze(-1)
        difference = (chosen - part.log_probs) * weight
        ratio = difference.exp()
        surrogate = torch.minimum(ratio * part.advantages, ratio.clamp(1.0 - eps, 1.0 + eps) * part.advantages)
        entropy = (entropy_of(log_pi) * weight).sum() / count
        gain = (surrogate * weight).sum() / count
        with torch.no_grad():
            clipped = (((ratio - 1.0).abs() > eps) * weight).sum() / count
            # Unbiased and never negative (Schulman 2020, "Approximating KL divergence").
            divergence = ((ratio - 1.0 - difference) * weight).sum() / count
        return -gain - self.options.entropy_coef * entropy, {
            "policy_loss": -gain.detach(),
            "entropy": entropy.detach(),
            "clip_fraction": clipped,
            "approx_kl": divergence,
        }

    def value_loss(self, part: Rollout) -> tuple[Tensor, dict[str, Tensor]]:
        """Clipped squared error of the normalized values, mean over all values, those of dead agents too.

        What a dead agent's team still earns is in the targets of the steps before its death.
        """
        eps, mask = self.options.eps_clip, part.batch.mask()
        values = self.values(part.batch)[:, :-1]
        near = part.values + (values - part.values).clamp(-eps, eps)
        error = torch.maximum((values - part.targets).square(), (near - part.targets).square()) * mask
        loss = 0.5 * error.sum() / (mask.sum() * values.shape[-1])
        return loss, {"value_loss": loss.detach()}

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "critic": self.critic.state_dict(),
            "value_norm": self.value_norm.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "new": self._new.state_dict(),
            "rng": rng_state(self._rng),
            "updates": self.updates,
        }

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.critic.load_state_dict(state["critic"])
        self.value_norm.load_state_dict(state["value_norm"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self._new.load_state_dict(state["new"])
        load_rng_state(self._rng, state["rng"])
        self.updates = state["updates"]


def standardized(advantages: Tensor, weight: Tensor) -> Tensor:
    """[B, T, N]: mean 0 and deviation 1 where ``weight`` [B, T, N] is 1. ``advantages`` are [B, T, K]."""
    count = weight.sum().clamp(min=1.0)
    mean = (advantages * weight).sum() / count
    deviation = (((advantages - mean) * weight).square().sum() / count).sqrt()
    return ((advantages - mean) / (deviation + SMALLEST_DEVIATION)) * weight
