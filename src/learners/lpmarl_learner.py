"""LPMARL's learner: four losses, two critics and the two levels of the actor (algorithm 1 of the paper).

The equation numbers are the paper's; docs/algorithms/lpmarl.md lists where this differs from it.

Shape legend: S states, N agents, M tasks, A low-level actions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from components.episode_buffer import ReplayBuffer
from components.random import load_rng_state, rng_state
from components.schedules import UpdateSchedule, linear
from controllers.base import Clock
from controllers.lpmarl_controller import LpmarlController
from controllers.task_structure import network_dims
from envs.base import EnvInfo
from learners.base import Learner, Metrics, adam, blend_target, read_metrics, step
from learners.lpmarl_batches import HighBatch, LowBatch, sample_high, sample_low
from learners.lpmarl_high import HIGH_LEVELS
from learners.lpmarl_options import UNAVAILABLE, LpmarlLearnerOptions
from modules.critics.lpmarl_critic import LpmarlCritic
from modules.graph import Graph, build_graph


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
        learned = HIGH_LEVELS.get(controller.learned_policy)
        self.high = learned(controller, self.critic, self.target, options, rng) if learned else None
        self.optimizers = {
            "actor": adam(self.actor.parameters(), options.lr),
            "low_critic": adam(self.critic.low.parameters(), options.low_critic_lr),
            "high_critic": adam(self.critic.high.parameters(), options.high_critic_lr),
        }
        self.rates = {
            "actor": options.lr,
            "low_critic": options.low_critic_lr,
            "high_critic": options.high_critic_lr,
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
        if self.high is not None and self.updates % self.options.high_interval == 0:
            high = self._sample_high(buffer)
            values, high_loss, more = self.high.critic_loss(high)
            step(self.optimizers["high_critic"], high_loss, clip)
            blend_target(self.target.high, self.critic.high, self.options.target_update_tau)
            metrics |= more
            # Until a success has been seen the high-level values are noise: they would teach a random assignment.
            if bool((high.ret != 0).any()):
                high_loss, more = self.high.actor_loss(high, values, clock)
                loss = w * loss + (1.0 - w) * self.options.high_actor_weight * high_loss
                metrics |= more
        metrics["actor_grad_norm"] = step(self.optimizers["actor"], loss, clip)
        return metrics | {"w": w}

    def low_critic_loss(self, low: LowBatch) -> tuple[Tensor, Tensor, dict[str, Tensor | float]]:
        """Group TD loss (eqs. 17 and 18), averaged over states and non-empty groups G_j = {i: a_i = j}.

        L = (sum_{i in G_j} Q_i(a_i) - y_j)^2 with y_j = sum_{i in G_j} r_i + gamma sum_{i in G_j} (1 - d_i) V_i(s').
        V_i is for the task that agent i goes on with (``low_next_task``); one whose task ended takes the one it was
        given next: to live is worth what it will still do. It has no future (d_i) when it died, or no task is left.

        Returns:
            Q [S, N, A] without gradient, the loss, and what to log.
        """
        m = low.now.task_alive.shape[1]
        values = self.critic.low_values(low.graph, low.assign)
        chosen = values.gather(-1, low.actions.unsqueeze(-1)).squeeze(-1)
        with torch.no_grad():
            future = self._low_state_value(low, build_graph(*low.after[:4]))
            goes_on = low.after.agent_alive & low.after.task_alive.gather(-1, low.next_assign)
            if not self.options.bootstrap_success:
                goes_on &= low.terminated == 0
            rewards = group_sum(low.reward, low.assign, low.now.agent_alive, m)
            target = rewards + self.options.gamma_low * group_sum(future, low.assign, goes_on, m)
        members = group_sum(torch.ones_like(low.reward), low.assign, low.now.agent_alive, m)
        groups = (members > 0).float()
        error = (group_sum(chosen, low.assign, low.now.agent_alive, m) - target) * groups
        loss = error.square().sum() / groups.sum().clamp(min=1.0)
        return values.detach(), loss, {"low_critic_loss": loss.detach(), "low_target_mean": target.mean()}

    def _low_state_value(self, low: LowBatch, graph: Graph) -> Tensor:
        """[S, N] V_i(s') with the next task: the policy's expectation, or the best available action's value."""
        values = self.target.low_values(graph, low.next_assign)
        unavailable = low.avail_after == 0
        if self.options.low_target == "policy":
            logits = self.actor.logits(self.controller.in_sight(graph), low.next_assign)
            return (logits.masked_fill(unavailable, UNAVAILABLE).softmax(-1) * values).sum(-1)
        ranking = values if self.options.low_target == "max" else self.critic.low_values(graph, low.next_assign)
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

    def _sample_low(self, buffer: ReplayBuffer) -> LowBatch:
        options, tasks = self.options, self.controller.tasks
        follow = options.low_next_task == "given"
        low = sample_low(buffer, options.batch_size_low, tasks, options.relabel, follow, self._rng, self.device)
        return low._replace(reward=low.reward * options.low_reward_scale)

    def _sample_high(self, buffer: ReplayBuffer) -> HighBatch:
        options = self.options
        count, gamma, n_step = options.batch_size_high, options.gamma_high, options.n_step_high
        return sample_high(buffer, count, gamma, n_step, self._rng, self.device)

    def _decay_lr(self, clock: Clock) -> None:
        hold = self.options.lr_hold
        factor = linear(1.0, self.options.lr_final, (clock.fraction - hold) / (1.0 - hold))
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = factor * self.rates[name]

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


def group_sum(values: Tensor, assign: Tensor, alive: Tensor, n_tasks: int) -> Tensor:
    """[S, M]: sum of the living agents' values [S, N] by task."""
    return values.new_zeros((len(values), n_tasks)).scatter_add(1, assign, values * alive)
