"""RODE's controller (Wang et al. 2021, arXiv 2010.01523): a role every few steps, then actions of that role.

Shape legend: B episodes or environments, R rows (environments that still act), T steps, N agents, A actions, K roles.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from pydantic import Field
from torch import nn
from typing_extensions import override

from components.action_selectors import epsilon_greedy
from components.episode_buffer import EpisodeBatch, FieldSpec
from components.errors import UserError
from components.schedules import linear
from controllers.base import Array, Clock, Decision, Rows, numpy_rows
from controllers.basic_controller import AgentController, BasicOptions
from envs.base import EnvInfo
from modules.agents.rode_agent import RodeAgent, RoleValues

# Ranks an action outside of the role below all values of those inside.
OUTSIDE = -1e9


class RodeOptions(BasicOptions):
    """What the agents see, how they explore at both levels, and how long a role lasts."""

    role_interval: int = Field(5, ge=1, description="c, steps between choices of a role")
    epsilon_anneal_time_exp: int = Field(
        70_000, ge=1, description="environment steps of the linear decay that starts anew with the roles"
    )


class RodeController(AgentController):
    """Roles by epsilon-greedy every c steps, actions by epsilon-greedy at each; greedy actions keep to the role.

    Random actions are drawn among all that are available, and so are greedy ones where none of the role's is.

    Args:
        info: shapes of the environment.
        options: inputs, exploration and interval.
        agent: ``agent(input_dim, n_actions)`` builds the networks.
        rng: draws exploration.
        device: where the networks run.

    Raises:
        UserError: there are no actions to divide into roles.
    """

    agent: RodeAgent
    options: RodeOptions

    def __init__(
        self,
        info: EnvInfo,
        options: RodeOptions,
        agent: Callable[[int, int], RodeAgent],
        rng: np.random.Generator,
        device: torch.device,
    ) -> None:
        if info.n_actions < 2:
            raise UserError("RODE needs at least two actions to divide into roles; this environment has one")
        super().__init__(info, options, agent, rng, device)
        self._roles = np.zeros((0, info.n_agents), dtype=np.int64)

    @override
    def extra_fields(self) -> dict[str, FieldSpec]:
        return {"roles": FieldSpec((self.info.n_agents, 1), torch.int64)}

    @override
    def begin_episodes(self, batch_size: int) -> None:
        super().begin_episodes(batch_size)
        self._roles = np.zeros((batch_size, self.info.n_agents), dtype=np.int64)

    def epsilon(self, clock: Clock) -> float:
        """Probability of a random role and of a random action; it decays anew once there are roles."""
        options, since = self.options, int(self.agent.roles_since)
        if since < 0:
            fraction = clock.env_steps / options.epsilon_anneal_time
        else:
            fraction = (clock.env_steps - since) / options.epsilon_anneal_time_exp
        return linear(options.epsilon_start, options.epsilon_finish, fraction)

    @override
    @torch.no_grad()
    def act(self, batch: EpisodeBatch, t: int, rows: Rows, clock: Clock, test_mode: bool) -> Decision:
        where = numpy_rows(rows)
        values: RoleValues = self.advance(batch, t, rows, self.agent)
        epsilon = 0.0 if test_mode else self.epsilon(clock)
        if t % self.options.role_interval == 0:
            of_roles = values.roles[:, 0].cpu().numpy()
            exists = np.broadcast_to(self.agent.role_exists.cpu().numpy(), of_roles.shape)
            self._roles[where] = epsilon_greedy(of_roles, exists, epsilon, self._rng)
        roles = self._roles[where]
        of_actions = self.agent.action_values(values.keys[:, 0], torch.from_numpy(roles).to(self.device))
        inside = self.agent.role_actions.cpu().numpy()[roles]
        outside = OUTSIDE + self._rng.random(inside.shape)
        ranking = np.where(inside, of_actions.cpu().numpy(), outside)
        actions = epsilon_greedy(ranking, batch["avail_actions"].numpy()[where, t], epsilon, self._rng)
        return Decision(actions, {"roles": roles[..., None]})

    def role_values(self, batch: EpisodeBatch, agent: nn.Module) -> RoleValues:
        """Values over whole episodes, [B, T, ...], under a network of this controller's shape.

        Args:
            batch: episodes on the network's device.
            agent: the controller's own network, or a target copy of it.
        """
        values: RoleValues = agent(self.inputs(batch), None)[0]
        return values

    @override
    def explain(self, batch: EpisodeBatch) -> dict[str, Array]:
        """``role`` [B, T, N]: the role that each agent follows; nothing before actions were clustered into roles."""
        if int(self.agent.roles_since) < 0:
            return {}
        return {"role": batch["roles"].squeeze(-1).cpu().numpy()}
