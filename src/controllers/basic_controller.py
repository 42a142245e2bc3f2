"""One network over [observation, last action, agent index] of each agent, and epsilon-greedy on its values.

``BasicController`` is the controller of IQL, VDN, QMIX and QPLEX.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from components.action_selectors import epsilon_greedy
from components.episode_buffer import EpisodeBatch, one_hot
from components.registry import Options
from components.schedules import linear
from controllers.base import Clock, Controller, Decision, Rows, numpy_rows
from envs.base import EnvInfo
from modules.agents.base import ValueAgent


class InputOptions(Options):
    """What the agents see."""

    obs_last_action: bool = Field(True, description="append the agent's last action, one-hot, to its observation")
    obs_agent_id: bool = Field(True, description="append the agent's index, one-hot, to its observation")


class BasicOptions(InputOptions):
    """What the agents see and how they explore."""

    epsilon_start: float = Field(1.0, ge=0, le=1, description="probability of a random action at the start")
    epsilon_finish: float = Field(0.05, ge=0, le=1, description="probability of a random action after the decay")
    epsilon_anneal_time: int = Field(50_000, ge=1, description="environment steps of the linear decay")


class AgentController(Controller):
    """Agent network over [observation, last action, agent index]; subclasses choose actions from what it gives.

    Args:
        info: shapes of the environment.
        options: what the agents see.
        agent: ``agent(input_dim, n_actions)`` builds the network.
        rng: draws exploration.
        device: where the network runs.
    """

    fields = ("obs", "avail_actions")

    def __init__(
        self,
        info: EnvInfo,
        options: InputOptions,
        agent: Callable[[int, int], nn.Module],
        rng: np.random.Generator,
        device: torch.device,
    ) -> None:
        self.info = info
        self.options = options
        self.device = device
        told = options.obs_last_action * info.n_actions + options.obs_agent_id * info.n_agents
        self.input_dim = info.obs_shape + told
        self.agent = agent(self.input_dim, info.n_actions).to(device)
        self._ids = torch.eye(info.n_agents, device=device)
        self._rng = rng
        self._hidden: Tensor | None = None

    @override
    def modules(self) -> dict[str, nn.Module]:
        return {"agent": self.agent}

    @override
    def begin_episodes(self, batch_size: int) -> None:
        self._hidden = None

    def outputs(self, batch: EpisodeBatch, t: int, rows: Rows) -> Tensor:
        """[R, N, A] what the network gives at step t; its hidden state goes on with it."""
        values: Tensor = self.advance(batch, t, rows, self.agent)
        return values[:, 0]

    @torch.no_grad()
    def advance(
        self, batch: EpisodeBatch, t: int, rows: Rows, forward: Callable[..., tuple[Any, Tensor | None]]
    ) -> Any:
        """What ``forward(inputs, hidden)`` gives at step t, [R, 1, ...]; the hidden state goes on with it."""
        obs = batch["obs"][rows, t : t + 1].to(self.device)
        remembers = self.options.obs_last_action and t > 0
        last = one_hot(batch["actions"][rows, t - 1 : t].to(self.device), self.info.n_actions) if remembers else None
        hidden = None if self._hidden is None else self._hidden[rows]
        found, hidden = forward(self._inputs(obs, last), hidden)
        self._keep_hidden(hidden, rows)
        return found

    def _keep_hidden(self, hidden: Tensor | None, rows: Rows) -> None:
        if hidden is None or isinstance(rows, slice):
            self._hidden = hidden
        elif self._hidden is not None:
            self._hidden[rows] = hidden

    def unroll(self, batch: EpisodeBatch, agent: nn.Module) -> Tensor:
        """[B, T, N, A] values of whole episodes under a network of this controller's shape.

        Args:
            batch: episodes on the network's device.
            agent: the controller's own network, or a target copy of it.
        """
        values: Tensor = agent(self.inputs(batch), None)[0]
        return values

    def inputs(self, batch: EpisodeBatch) -> Tensor:
        """[B, T, N, F] what the network sees in whole episodes."""
        actions = one_hot(batch["actions"][:, :-1], self.info.n_actions) if self.options.obs_last_action else None
        if actions is not None:
            actions = torch.cat([torch.zeros_like(actions[:, :1]), actions], 1)
        return self._inputs(batch["obs"], actions)

    def _inputs(self, obs: Tensor, last_actions: Tensor | None) -> Tensor:
        """[B, T, N, F] from observations [B, T, N, O] and one-hot actions of the step before (None: first step)."""
        parts = [obs]
        if self.options.obs_last_action:
            if last_actions is None:
                last_actions = obs.new_zeros((*obs.shape[:-1], self.info.n_actions))
            parts.append(last_actions)
        if self.options.obs_agent_id:
            parts.append(self._ids.expand(*obs.shape[:-1], -1))
        return torch.cat(parts, -1) if len(parts) > 1 else obs


class BasicController(AgentController):
    """One value network shared by all agents, epsilon-greedy. Arguments as :class:`AgentController`."""

    options: BasicOptions

    def __init__(
        self,
        info: EnvInfo,
        options: BasicOptions,
        agent: Callable[[int, int], ValueAgent],
        rng: np.random.Generator,
        device: torch.device,
    ) -> None:
        super().__init__(info, options, agent, rng, device)
        self.epsilon = options.epsilon_start

    @override
    def act(self, batch: EpisodeBatch, t: int, rows: Rows, clock: Clock, test_mode: bool) -> Decision:
        return self.choose(self.outputs(batch, t, rows), batch, t, rows, clock, test_mode)

    def choose(
        self, values: Tensor, batch: EpisodeBatch, t: int, rows: Rows, clock: Clock, test_mode: bool
    ) -> Decision:
        """Epsilon-greedy on values [R, N, A]."""
        options = self.options
        self.epsilon = linear(
            options.epsilon_start, options.epsilon_finish, clock.env_steps / options.epsilon_anneal_time
        )
        avail = batch["avail_actions"].numpy()[numpy_rows(rows), t]
        return Decision(epsilon_greedy(values.cpu().numpy(), avail, 0.0 if test_mode else self.epsilon, self._rng))
