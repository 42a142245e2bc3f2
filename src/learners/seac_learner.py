"""SEAC (Christianos et al. 2020, arXiv 2006.07169): every agent learns from the experience of all.

Agent i minimizes, with A_ik = R_k - V_i(o_k) and rho_ik = pi_i(a_k | o_k) / pi_k(a_k | o_k) held fixed,

    sum_k w_ik mean rho_ik [-A_ik log pi_i(a_k | o_k) + 0.5 A_ik^2] - entropy_coef H(pi_i(o_i)),

w_ii = 1 and w_ik = lambda for the others (eqs. 4 and 5); R_k is the n-step return, which ends with V_k.

Shape legend: S transitions, N agents, A actions; in [N, S, N] the first agent learns from the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from components.episode_buffer import EpisodeBatch, ReplayBuffer
from components.random import load_rng_state, rng_state
from components.registry import Options
from controllers.base import Clock
from controllers.policy_controller import SeparatePolicyController, log_policy
from envs.base import EnvInfo
from learners.base import Learner, Metrics, adam, read_metrics, step
from learners.on_policy import NewEpisodes, entropy_of, has_choice, parts_of
from learners.returns import n_step_returns
from modules.agents.separate_mlp_agent import SeparateMLPAgent
from modules.orthogonal import orthogonal_
from modules.stacked import clip_each_agent_


class SeacOptions(Options):
    """Returns, sharing, optimizer and rhythm."""

    gamma: float = Field(0.99, ge=0, le=1, description="discount per step")
    n_step: int = Field(5, ge=1, description="rewards of a return before the value stands for the rest")
    share_coef: float = Field(
        1.0, ge=0, description="lambda, weight of each other agent's experience; 0: none is shared"
    )
    entropy_coef: float = Field(0.01, ge=0, description="weight of the policies' entropy")
    batch_size: int = Field(20, ge=1, description="transitions of a gradient step; each transition is used once")
    lr: float = Field(3e-4, gt=0, description="Adam learning rate")
    optim_eps: float = Field(1e-3, gt=0, description="Adam epsilon")
    grad_norm_clip: float = Field(0.5, gt=0, description="each agent's gradient norm is cut to this")


class Transitions(NamedTuple):
    """S transitions of all agents.

    Attributes:
        inputs: [S, N, F] what each agent sees.
        avail: [S, N, A] available actions.
        actions: [S, N] what was chosen.
        log_probs: [S, N] of the actions, by the policies that chose them.
        returns: [S, N] n-step returns.
    """

    inputs: Tensor
    avail: Tensor
    actions: Tensor
    log_probs: Tensor
    returns: Tensor


class SeacLearner(Learner):
    """Actor-critic for every agent on all agents' experience, in one product over the N x N pairs.

    Args:
        controller: acts, and holds the policies.
        info: shapes of the environment.
        options: returns, sharing, optimizer and rhythm.
        rng: orders the transitions.
        device: where to learn.
        critic: ``critic(n_agents, input_dim, 1)`` builds the value networks.
    """

    each_once = True

    def __init__(
        self,
        controller: SeparatePolicyController,
        info: EnvInfo,
        options: SeacOptions,
        rng: np.random.Generator,
        device: torch.device,
        critic: Callable[[int, int, int], SeparateMLPAgent],
    ) -> None:
        self.options = options
        self.controller = controller
        self.device = device
        n = info.n_agents
        self.critic = critic(n, controller.input_dim, 1).to(device)
        orthogonal_(self.critic, 1.0)
        own = torch.eye(n, device=device)
        self._shares = (own + options.share_coef * (1.0 - own)).unsqueeze(1)
        parameters = [*controller.parameters(), *self.critic.parameters()]
        self.optimizer = adam(parameters, options.lr, options.optim_eps)
        self._rng = rng
        self._new = NewEpisodes(at_least=1)
        self.updates = 0

    @override
    def update(self, buffer: ReplayBuffer, clock: Clock) -> Metrics | None:
        batch = self._new.take(buffer, clock)
        if batch is None:
            return None
        played = self.transitions(batch.to(self.device))
        metrics: dict[str, Tensor] = {}
        for ids in parts_of(len(played.returns), self.options.batch_size, self._rng):
            chosen = ids.to(self.device)
            loss, metrics = self.loss(Transitions(*(field[chosen] for field in played)))
            metrics["grad_norm"] = step(self.optimizer, loss, self.options.grad_norm_clip, clip_each_agent_)
            self.updates += 1
        return read_metrics(metrics)

    @torch.no_grad()
    def transitions(self, batch: EpisodeBatch) -> Transitions:
        """All transitions of the episodes, with returns that end with the value of the agent who earned them."""
        inputs, mask = self.controller.inputs(batch), batch.mask()
        values = self.critic(inputs, None)[0].squeeze(-1)
        returns = n_step_returns(
            batch["reward"][:, :-1].expand_as(values[:, 1:]),
            values[:, 1:],
            batch["terminated"][:, :-1].float(),
            mask,
            self.options.gamma,
            self.options.n_step,
        )
        played = mask.squeeze(-1) > 0
        return Transitions(
            inputs=inputs[:, :-1][played],
            avail=batch["avail_actions"][:, :-1][played],
            actions=batch["actions"][:, :-1][played].squeeze(-1),
            log_probs=batch["log_probs"][:, :-1][played].squeeze(-1),
            returns=returns[played],
        )

    def loss(self, part: Transitions) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of all agents' losses: each parameter belongs to one agent. And what to log, means over agents.

        Steps at which agent k had nothing to choose, being dead, teach no policy. They teach values: what its team
        still earns is in the returns of the steps before its death.
        """
        choice = has_choice(part.avail)
        log_pi = log_policy(self.controller.agent.pairs(part.inputs), part.avail)
        n, s = log_pi.shape[:2]
        actions = part.actions.expand(n, s, n).unsqueeze(-1)
        chosen = log_pi.gather(-1, actions).squeeze(-1)
        rho = (chosen.detach() - part.log_probs).exp()
        error = part.returns - self.critic.pairs(part.inputs).squeeze(-1)
        weight = self._shares * rho
        policy_loss = -(weight * choice * error.detach() * chosen).sum() / s
        value_loss = 0.5 * (weight * error.square()).sum() / s
        own = log_pi.diagonal(dim1=0, dim2=2).movedim(-1, 1)
        entropy = (entropy_of(own) * choice).sum() / s
        loss = policy_loss + value_loss - self.options.entropy_coef * entropy
        return loss, {
            "policy_loss": policy_loss.detach() / n,
            "value_loss": value_loss.detach() / n,
            "entropy": entropy.detach() / n,
            "importance_max": rho.max(),
        }

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "critic": self.critic.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "new": self._new.state_dict(),
            "rng": rng_state(self._rng),
            "updates": self.updates,
        }

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.critic.load_state_dict(state["critic"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._new.load_state_dict(state["new"])
        load_rng_state(self._rng, state["rng"])
        self.updates = state["updates"]
