"""The high level of LPMARL's learner: the value of an assignment, and how the policy follows it (eqs. 12 to 16).

Shape legend: K decisions, N agents, M tasks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from controllers.base import Clock
from controllers.lpmarl_controller import LpmarlController
from controllers.task_structure import Observed
from learners.lpmarl_batches import HighBatch
from learners.lpmarl_options import UNAVAILABLE, LpmarlLearnerOptions
from modules.assignment import make_problem, solve
from modules.assignment.differentiators import Differentiator, make_differentiator
from modules.assignment.layer import surrogate_loss
from modules.critics.lpmarl_critic import LpmarlCritic
from modules.graph import build_graph

Logged = dict[str, Tensor | float]


class HighLevel(ABC):
    """Critic and actor losses of one kind of high-level policy.

    Args:
        controller: holds the actor, and makes the assignments.
        critic: the values that are learned.
        target: the values of what follows.
        options: of the learner.
        rng: draws noise.
    """

    def __init__(
        self,
        controller: LpmarlController,
        critic: LpmarlCritic,
        target: LpmarlCritic,
        options: LpmarlLearnerOptions,
        rng: np.random.Generator,
    ) -> None:
        self.controller = controller
        self.actor = controller.agent
        self.critic = critic
        self.target = target
        self.options = options
        self._rng = rng

    @abstractmethod
    def state_value(self, seen: Observed) -> Tensor:
        """[K] V(s): what the target critic expects of the next assignment."""

    @abstractmethod
    def actor_loss(self, high: HighBatch, values: Tensor, clock: Clock) -> tuple[Tensor, Logged]:
        """The loss of the scores for given values Q [K, N, M], and what to log."""

    def critic_loss(self, high: HighBatch) -> tuple[Tensor, Tensor, Logged]:
        """Segment TD loss: (sum_i Q_{i,a_i}(s_d) - R_d - gamma^tau V(s_d'))^2 (eqs. 13 and 14).

        Returns:
            Q [K, N, M] without gradient, the loss, and what to log.
        """
        values = self.critic.high_values(high.graph)
        target = high.ret.clone()
        # Nobody decides in a final state, where the tasks need not have places for everybody.
        goes_on = high.discount > 0
        future = self.state_value(Observed(*(field[goes_on] for field in high.after)))
        target[goes_on] += high.discount[goes_on] * future
        taken = values.gather(-1, high.assign.unsqueeze(-1)).squeeze(-1)
        total = (taken * high.now.agent_alive).sum(-1)
        loss = (total - target).square().mean()
        return values.detach(), loss, {"high_critic_loss": loss.detach(), "high_target_mean": target.mean()}

    def _advantage(self, high: HighBatch, values: Tensor) -> tuple[Tensor, Tensor]:
        """A [K, N, M]: Q centered for each agent and divided by its spread, 0 off the graph; and that spread."""
        edges = (high.now.agent_alive.unsqueeze(2) & high.now.task_alive.unsqueeze(1)).float()
        mean = (values * edges).sum(-1, keepdim=True) / edges.sum(-1, keepdim=True).clamp(min=1.0)
        advantage = (values - mean) * edges
        spread = (advantage.square().sum() / edges.sum().clamp(min=1.0)).sqrt()
        return advantage / spread.clamp(min=self.options.high_advantage_floor), spread


class AssignedByLp(HighLevel):
    """LPMARL: the assignment is the optimum of the LP on the scores."""

    def __init__(
        self,
        controller: LpmarlController,
        critic: LpmarlCritic,
        target: LpmarlCritic,
        options: LpmarlLearnerOptions,
        rng: np.random.Generator,
    ) -> None:
        super().__init__(controller, critic, target, options, rng)
        self.differentiator = _differentiator(options)

    @override
    @torch.no_grad()
    def state_value(self, seen: Observed) -> Tensor:
        """[K] V(s): the largest sum_ij z_ij Q'_ij over feasible assignments, one more LP (or ``high_target``)."""
        graph = build_graph(*seen[:4])
        values = self.target.high_values(graph)
        if self.options.high_target == "per_agent_max":
            best = values.masked_fill(~seen.task_alive.unsqueeze(1), -torch.inf).max(-1).values
            playing = seen.agent_alive & seen.task_alive.any(1, keepdim=True)
            return best.masked_fill(~playing, 0.0).sum(-1)
        scores = values if self.options.high_target == "feasible_max" else self.actor.scores(graph)
        solution = solve(self._problem(seen, scores), self.controller.options.assignment_solver)
        index = torch.from_numpy(np.maximum(solution.index, 0)).to(values.device)
        taken = values.gather(-1, index.unsqueeze(-1)).squeeze(-1)
        return (taken * torch.from_numpy(solution.index >= 0).to(values.device)).sum(-1)

    @override
    def actor_loss(self, high: HighBatch, values: Tensor, clock: Clock) -> tuple[Tensor, Logged]:
        """Gradient of J = sum_ij z_ij Q_ij through the LP (eqs. 12, 15, 16), by the chosen differentiator.

        Q enters as a centered, scaled advantage: a constant per agent changes no assignment. The LP is solved at
        the noisy scores that the acting policy uses: without noise the gradient vanishes as soon as the order of
        the scores is right, their spread shrinks to nothing, and any noise then makes the assignment random.
        """
        scores = self.actor.scores(high.graph)
        advantage, spread = self._advantage(high, values)
        problem = self._problem(high.now, scores)
        drawn = self.controller.noise.scale(clock) * self.controller.noise.standard(scores.shape, self._rng)
        noise = torch.from_numpy(drawn).to(scores)
        result = surrogate_loss(
            scores + noise,
            advantage,
            problem.capacity,
            problem.agent_mask,
            problem.task_mask,
            solver=self.controller.options.assignment_solver,
            differentiator=self.differentiator,
            generator=self._generator(),
        )
        return result.loss, {
            "high_actor_loss": result.loss.detach(),
            "assignment_changed": result.changed,
            "high_advantage_scale": spread,
            "score_spread": scores.detach().std(-1, correction=0).mean(),
        }

    def _generator(self) -> torch.Generator | None:
        """For differentiators that draw noise: follows from the learner's own stream."""
        if not self.differentiator.stochastic:
            return None
        return torch.Generator().manual_seed(int(self._rng.integers(2**62)))

    def _problem(self, seen: Observed, scores: Tensor) -> Any:
        masks = seen.agent_alive.cpu().numpy(), seen.task_alive.cpu().numpy()
        capacity = self.controller.allowed(seen.capacity.cpu().numpy(), *masks)
        return make_problem(scores.detach().double().cpu().numpy(), capacity, *masks)


class ChosenByEach(HighLevel):
    """No-LP, the paper's ablation: pi^h(a_i = j | s) = softmax_j of the scores, and no capacity anywhere."""

    @override
    @torch.no_grad()
    def state_value(self, seen: Observed) -> Tensor:
        """[K] V(s) = sum_i sum_j pi_ij Q'_ij."""
        graph = build_graph(*seen[:4])
        pi = self._log_pi(self.actor.score_logits(graph), seen.task_alive).exp()
        return ((pi * self.target.high_values(graph)).sum(-1) * seen.agent_alive).sum(-1)

    @override
    def actor_loss(self, high: HighBatch, values: Tensor, clock: Clock) -> tuple[Tensor, Logged]:
        """-sum_i [sum_j pi_ij A_ij + beta H(pi_i)], mean over decisions: the policy gradient summed over choices."""
        log_pi = self._log_pi(self.actor.score_logits(high.graph), high.now.task_alive)
        advantage, spread = self._advantage(high, values)
        pi, alive = log_pi.exp(), high.now.agent_alive
        entropy = -(pi * log_pi).sum(-1)
        per_agent = -(pi * advantage).sum(-1) - self.options.high_entropy_weight * entropy
        loss = (per_agent * alive).sum(-1).mean()
        return loss, {
            "high_actor_loss": loss.detach(),
            "high_entropy": (entropy.detach() * alive).sum() / alive.sum().clamp(min=1),
            "high_advantage_scale": spread,
        }

    @staticmethod
    def _log_pi(logits: Tensor, task_alive: Tensor) -> Tensor:
        return logits.masked_fill(~task_alive.unsqueeze(1), UNAVAILABLE).log_softmax(-1)


# The high-level policies that learn, by name.
HIGH_LEVELS: dict[str, type[HighLevel]] = {"lp": AssignedByLp, "softmax": ChosenByEach}


def _differentiator(options: LpmarlLearnerOptions) -> Differentiator:
    """The differentiator; the default one gets ``blackbox_lambda`` where no step size is given."""
    given = dict(options.differentiator_args)
    default = LpmarlLearnerOptions.model_fields["differentiator"].default
    if options.differentiator == default and not {"lam", "tau"} & set(given):
        given["lam"] = options.blackbox_lambda
    return make_differentiator(options.differentiator, given)
