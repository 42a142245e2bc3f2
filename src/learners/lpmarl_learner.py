"""LPMARL's learner: four losses, two critics and the two levels of the actor (algorithm 1 of the paper).

The equation numbers are the paper's; docs/algorithms/lpmarl.md lists where this differs from it.

Shape legend: S states, K decisions, N agents, M tasks, A low-level actions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import override

from components.episode_buffer import ReplayBuffer
from components.random import load_rng_state, rng_state
from components.registry import Options
from components.schedules import UpdateSchedule, linear
from controllers.base import Clock
from controllers.lpmarl_controller import LpmarlController, Observed, network_dims
from envs.base import EnvInfo
from learners.base import Learner, Metrics, adam, blend_target, read_metrics, step
from learners.lpmarl_batches import HighBatch, LowBatch, sample_high, sample_low
from modules.assignment import make_problem, solve
from modules.assignment.differentiators import Differentiator, make_differentiator
from modules.assignment.layer import surrogate_loss
from modules.critics.lpmarl_critic import LpmarlCritic
from modules.graph import Graph, build_graph

UNAVAILABLE = -1e7


class LpmarlLearnerOptions(Options):
    """Discounts, targets, exploration bonuses and rhythm of both levels."""

    lr: float = Field(3e-3, gt=0, description="Adam learning rate of the actor, at the start")
    low_critic_lr: float = Field(3e-3, gt=0, description="Adam learning rate of the low-level critic, at the start")
    high_critic_lr: float = Field(1e-3, gt=0, description="Adam learning rate of the high-level critic, at the start")
    lr_final: float = Field(0.03, gt=0, le=1, description="share of each rate that is left at the end (linear decay)")
    lr_hold: float = Field(0.25, ge=0, lt=1, description="share of the run before lr starts to decay")
    grad_norm_clip: float = Field(10.0, gt=0, description="gradient norm is cut to this")
    env_steps_per_update: float = Field(128, gt=0, description="environment steps gathered for each update")
    warmup_episodes: int = Field(32, ge=1, description="episodes stored before the first update")
    target_update_tau: float = Field(0.2, gt=0, le=1, description="share of the new weights in each target update")
    w_start: float = Field(0.9, ge=0, le=1, description="weight of the low-level actor loss at the start")
    w_finish: float = Field(0.1, ge=0, le=1, description="the same at the end (linear)")

    batch_size_high: int = Field(256, ge=1, description="decisions of one high-level update")
    high_interval: int = Field(2, ge=1, description="low-level updates for each high-level update")
    gamma_high: float = Field(0.95, ge=0, le=1, description="high-level discount per environment step")
    high_target: Literal["feasible_max", "per_agent_max", "actor"] = Field(
        "feasible_max", description="next value: best feasible assignment, eq. 14 as printed, or the actor's assignment"
    )
    differentiator: str = Field("blackbox", description="gradient through the assignment LP, see docs/assignment.md")
    differentiator_args: dict[str, Any] = Field(default_factory=dict, description="options of the differentiator")
    blackbox_lambda: float = Field(
        20.0, gt=0, description="lambda of the blackbox differentiator, unless differentiator_args has lam or tau"
    )
    high_actor_weight: float = Field(
        1.0, gt=0, description="factor on the high-level actor loss: each differentiator's direction has its own size"
    )
    high_advantage_floor: float = Field(
        0.05, gt=0, description="least scale that the high-level advantage is divided by"
    )

    batch_size_low: int = Field(128, ge=1, description="states of one low-level update")
    gamma_low: float = Field(0.95, ge=0, le=1, description="low-level discount per environment step")
    low_target: Literal["policy", "double_q", "max"] = Field(
        "policy", description="next value: expected under the policy, double Q, or eq. 18 as printed (max)"
    )
    low_reward_scale: float = Field(0.1, gt=0, description="factor on the task rewards")
    normalize_low_advantage: bool = Field(True, description="divide the low-level advantage by its spread")
    low_actor: Literal["projection", "policy_gradient"] = Field(
        "projection", description="fit pi to softmax(A / beta), or follow the policy gradient to the same optimum"
    )
    bootstrap_success: bool = Field(True, description="the low level values the future beyond success")
    low_advantage_floor: float = Field(0.01, gt=0, description="least spread that it is divided by")
    entropy_weight: float = Field(0.2, ge=0, description="weight of the low-level policy's entropy")
    relabel: float = Field(
        0.5, ge=0, le=1, description="share of low-level states whose tasks are replaced by random ones"
    )

    @model_validator(mode="after")
    def _projection_needs_a_temperature(self) -> LpmarlLearnerOptions:
        if self.low_actor == "projection" and self.entropy_weight == 0:
            raise ValueError("entropy_weight = 0 needs low_actor = 'policy_gradient': the projection divides by it")
        return self


class LpmarlLearner(Learner):
    """One update: low critic, high critic, then both levels of the actor in one step.

    Args:
        controller: holds the actor and says which graph each level sees.
        info: shapes of the environment.
        options: losses and rhythm.
        rng: draws relabelled tasks and decisions.
        device: where to learn.
        critic: ``critic(agent_dim, task_dim, n_low_actions)`` builds both critics.
    """

    rewards = ("reward_high", "task_reward")

    def __init__(
        self,
        controller: LpmarlController,
        info: EnvInfo,
        options: LpmarlLearnerOptions,
        rng: np.random.Generator,
        device: torch.device,
        critic: Callable[[int, int, int], LpmarlCritic],
    ) -> None:
        self.options = options
        self.controller = controller
        self.device = device
        self.actor = controller.agent
        self.critic = critic(*network_dims(info)).to(device)
        self.target = deepcopy(self.critic).requires_grad_(False)
        self.differentiator = _differentiator(options)
        self.learns_high = controller.options.high_policy == "lp"
        self.optimizers = {
            "actor": adam(self.actor.parameters(), options.lr),
            "low_critic": adam(self.critic.low.parameters(), options.low_critic_lr),
            "high_critic": adam(self.critic.high.parameters(), options.high_critic_lr),
        }
        self._rng = rng
        self._rhythm = UpdateSchedule(options.env_steps_per_update)
        self.needs_episodes = options.warmup_episodes
        self.updates = 0

    @override
    def update(self, buffer: ReplayBuffer, clock: Clock) -> Metrics | None:
        metrics: dict[str, Tensor | float] = {}
        for _ in range(self._rhythm.due(clock.env_steps, ready=len(buffer) >= self.needs_episodes)):
            self._decay_lr(clock)
            metrics |= self._update_once(buffer, clock)
            self.updates += 1
        return read_metrics(metrics) if metrics else None

    def _update_once(self, buffer: ReplayBuffer, clock: Clock) -> dict[str, Tensor | float]:
        clip = self.options.grad_norm_clip
        low = self._sample_low(buffer)
        values, loss, metrics = self.low_critic_loss(low)
        step(self.optimizers["low_critic"], loss, clip)
        blend_target(self.target.low, self.critic.low, self.options.target_update_tau)
        w = linear(self.options.w_start, self.options.w_finish, clock.fraction)
        loss, more = self.low_actor_loss(low, values)
        metrics |= more
        if self.learns_high and self.updates % self.options.high_interval == 0:
            count, gamma = self.options.batch_size_high, self.options.gamma_high
            high = sample_high(buffer, count, gamma, self._rng, self.device)
            values, high_loss, more = self.high_critic_loss(high)
            step(self.optimizers["high_critic"], high_loss, clip)
            blend_target(self.target.high, self.critic.high, self.options.target_update_tau)
            metrics |= more
            # Until a success has been seen the high-level values are noise: they would teach a random assignment.
            if bool((high.ret != 0).any()):
                high_loss, more = self.high_actor_loss(high, values, clock)
                loss = w * loss + (1.0 - w) * self.options.high_actor_weight * high_loss
                metrics |= more
        metrics["actor_grad_norm"] = step(self.optimizers["actor"], loss, clip)
        return metrics | {"w": w}

    def low_critic_loss(self, low: LowBatch) -> tuple[Tensor, Tensor, dict[str, Tensor | float]]:
        """Group TD loss (eqs. 17 and 18), averaged over states and non-empty groups G_j = {i: a_i = j}.

        L = (sum_{i in G_j} Q_i(a_i) - y_j)^2 with y_j = sum_{i in G_j} r_i + gamma (1 - d_j) sum_{i in G_j} V_i(s').
        A task that ended (d_j) has no future.

        Returns:
            Q [S, N, A] without gradient, the loss, and what to log.
        """
        m = low.now.task_alive.shape[1]
        values = self.critic.low_values(low.graph, low.assign)
        chosen = values.gather(-1, low.actions.unsqueeze(-1)).squeeze(-1)
        with torch.no_grad():
            future = self._low_state_value(low, build_graph(*low.after[:4]))
            ended = (~low.after.task_alive).float()
            if not self.options.bootstrap_success:
                ended = torch.maximum(low.terminated, ended)
            target = group_sum(low.reward, low.assign, low.now.agent_alive, m) + self.options.gamma_low * (
                1.0 - ended
            ) * group_sum(future, low.assign, low.after.agent_alive, m)
        members = group_sum(torch.ones_like(low.reward), low.assign, low.now.agent_alive, m)
        groups = (members > 0).float()
        error = (group_sum(chosen, low.assign, low.now.agent_alive, m) - target) * groups
        loss = error.square().sum() / groups.sum().clamp(min=1.0)
        return values.detach(), loss, {"low_critic_loss": loss.detach(), "low_target_mean": target.mean()}

    def _low_state_value(self, low: LowBatch, graph: Graph) -> Tensor:
        """[S, N] V_i(s') for the same task: the policy's expectation, or the best available action's value."""
        values = self.target.low_values(graph, low.assign)
        unavailable = low.avail_after == 0
        if self.options.low_target == "policy":
            logits = self.actor.logits(self.controller.in_sight(graph), low.assign)
            return (logits.masked_fill(unavailable, UNAVAILABLE).softmax(-1) * values).sum(-1)
        ranking = values if self.options.low_target == "max" else self.critic.low_values(graph, low.assign)
        best = ranking.masked_fill(unavailable, UNAVAILABLE).argmax(-1, keepdim=True)
        return values.gather(-1, best).squeeze(-1)

    def low_actor_loss(self, low: LowBatch, values: Tensor) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Moves pi toward softmax(A / beta), A = Q - sum_b pi(b) Q(b) held fixed; mean over living agents.

        ``projection``: cross-entropy -sum_a softmax(A / beta)(a) log pi(a).
        ``policy_gradient``: -[sum_a pi(a) A(a) + beta H(pi)], eq. 19 summed over actions, with the same optimum; its
        gradient carries a factor pi(a), so a policy that has collapsed onto one action stays there.
        """
        logits = self.actor.logits(self.controller.in_sight(low.graph), low.assign)
        unavailable = low.avail == 0
        log_pi = logits.masked_fill(unavailable, UNAVAILABLE).log_softmax(-1)
        pi = log_pi.exp()
        alive = low.now.agent_alive.float()
        count = alive.sum().clamp(min=1.0)
        baseline = (pi.detach() * values).sum(-1, keepdim=True)
        advantage = (values - baseline).masked_fill(unavailable, 0.0)
        spread = advantage.std()
        if self.options.normalize_low_advantage:
            advantage = advantage / spread.clamp(min=self.options.low_advantage_floor)
        beta = self.options.entropy_weight
        entropy = -(pi * log_pi).sum(-1)
        if self.options.low_actor == "projection":
            best = (advantage / beta).masked_fill(unavailable, UNAVAILABLE).softmax(-1)
            per_agent = -(best * log_pi).sum(-1)
        else:
            per_agent = -(pi * advantage).sum(-1) - beta * entropy
        loss = (per_agent * alive).sum() / count
        metrics: dict[str, Tensor | float] = {
            "low_actor_loss": loss.detach(),
            "low_entropy": (entropy.detach() * alive).sum() / count,
            "low_advantage_scale": spread,
        }
        return loss, metrics

    def high_critic_loss(self, high: HighBatch) -> tuple[Tensor, Tensor, dict[str, Tensor | float]]:
        """Segment TD loss: (sum_i Q_{i,a_i}(s_d) - R_d - gamma^tau V(s_d'))^2 (eqs. 13 and 14).

        Returns:
            Q [K, N, M] without gradient, the loss, and what to log.
        """
        values = self.critic.high_values(high.graph)
        target = high.ret.clone()
        # Nobody decides in a final state, where the tasks need not have places for everybody.
        goes_on = high.discount > 0
        future = self.high_state_value(Observed(*(field[goes_on] for field in high.after)))
        target[goes_on] += high.discount[goes_on] * future
        taken = values.gather(-1, high.assign.unsqueeze(-1)).squeeze(-1)
        total = (taken * high.now.agent_alive).sum(-1)
        loss = (total - target).square().mean()
        return values.detach(), loss, {"high_critic_loss": loss.detach(), "high_target_mean": target.mean()}

    @torch.no_grad()
    def high_state_value(self, seen: Observed) -> Tensor:
        """[K] V(s): the largest sum_ij z_ij Q'_ij over feasible assignments, one more LP (or ``high_target``)."""
        graph = build_graph(*seen[:4])
        values = self.target.high_values(graph)
        if self.options.high_target == "per_agent_max":
            best = values.masked_fill(~seen.task_alive.unsqueeze(1), -torch.inf).max(-1).values
            playing = seen.agent_alive & seen.task_alive.any(1, keepdim=True)
            return best.masked_fill(~playing, 0.0).sum(-1)
        scores = values if self.options.high_target == "feasible_max" else self.actor.scores(graph)
        solution = solve(self._problem(seen, scores), self.controller.options.assignment_solver)
        index = torch.from_numpy(np.maximum(solution.index, 0)).to(self.device)
        taken = values.gather(-1, index.unsqueeze(-1)).squeeze(-1)
        return (taken * torch.from_numpy(solution.index >= 0).to(self.device)).sum(-1)

    def high_actor_loss(
        self, high: HighBatch, values: Tensor, clock: Clock
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Gradient of J = sum_ij z_ij Q_ij through the LP (eqs. 12, 15, 16), by the chosen differentiator.

        Q enters as a centered, scaled advantage: a constant per agent changes no assignment. The LP is solved at
        the noisy scores that the acting policy uses: without noise the gradient vanishes as soon as the order of
        the scores is right, their spread shrinks to nothing, and any noise then makes the assignment random.
        """
        scores = self.actor.scores(high.graph)
        edges = (high.now.agent_alive.unsqueeze(2) & high.now.task_alive.unsqueeze(1)).float()
        mean = (values * edges).sum(-1, keepdim=True) / edges.sum(-1, keepdim=True).clamp(min=1.0)
        advantage = (values - mean) * edges
        spread = (advantage.square().sum() / edges.sum().clamp(min=1.0)).sqrt()
        advantage = advantage / spread.clamp(min=self.options.high_advantage_floor)
        problem = self._problem(high.now, scores)
        sigma = self.controller.score_noise(clock)
        noise = torch.from_numpy(sigma * self._rng.standard_normal(scores.shape)).to(scores)
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
        metrics: dict[str, Tensor | float] = {
            "high_actor_loss": result.loss.detach(),
            "assignment_changed": result.changed,
            "high_advantage_scale": spread,
            "score_spread": scores.detach().std(-1, correction=0).mean(),
        }
        return result.loss, metrics

    def _generator(self) -> torch.Generator | None:
        """For differentiators that draw noise: follows from the learner's own stream."""
        if not self.differentiator.stochastic:
            return None
        return torch.Generator().manual_seed(int(self._rng.integers(2**62)))

    def _problem(self, seen: Observed, scores: Tensor) -> Any:
        masks = seen.agent_alive.cpu().numpy(), seen.task_alive.cpu().numpy()
        capacity = self.controller.allowed(seen.capacity.cpu().numpy(), *masks)
        return make_problem(scores.detach().double().cpu().numpy(), capacity, *masks)

    def _sample_low(self, buffer: ReplayBuffer) -> LowBatch:
        options, tasks = self.options, self.controller.tasks
        low = sample_low(buffer, options.batch_size_low, tasks, options.relabel, self._rng, self.device)
        return low._replace(reward=low.reward * options.low_reward_scale)

    def _decay_lr(self, clock: Clock) -> None:
        hold = self.options.lr_hold
        factor = linear(1.0, self.options.lr_final, (clock.fraction - hold) / (1.0 - hold))
        rates = {
            "actor": self.options.lr,
            "low_critic": self.options.low_critic_lr,
            "high_critic": self.options.high_critic_lr,
        }
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = factor * rates[name]

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "critic": self.critic.state_dict(),
            "target": self.target.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "rhythm": self._rhythm.state_dict(),
            "rng": rng_state(self._rng),
            "updates": self.updates,
        }

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.critic.load_state_dict(state["critic"])
        self.target.load_state_dict(state["target"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self._rhythm.load_state_dict(state["rhythm"])
        load_rng_state(self._rng, state["rng"])
        self.updates = state["updates"]


def _differentiator(options: LpmarlLearnerOptions) -> Differentiator:
    """The differentiator; the default one gets ``blackbox_lambda`` where no step size is given."""
    given = dict(options.differentiator_args)
    default = LpmarlLearnerOptions.model_fields["differentiator"].default
    if options.differentiator == default and not {"lam", "tau"} & set(given):
        given["lam"] = options.blackbox_lambda
    return make_differentiator(options.differentiator, given)


def group_sum(values: Tensor, assign: Tensor, alive: Tensor, n_tasks: int) -> Tensor:
    """[S, M]: sum of the living agents' values [S, N] by task."""
    return values.new_zeros((len(values), n_tasks)).scatter_add(1, assign, values * alive)
