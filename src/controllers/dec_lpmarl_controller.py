"""Dec-LPMARL's controller: LPMARL's, whose assignment agents can also choose for themselves from what they see.

Shape legend: R rows (environments that still act), N agents, M tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from components.episode_buffer import EpisodeBatch
from components.schedules import linear
from controllers.base import Array, Clock, Decision, Rows, numpy_rows
from controllers.lpmarl_controller import LpmarlController, LpmarlOptions
from controllers.task_structure import Observed
from envs.base import EnvInfo
from modules.agents.dec_lpmarl_agent import DecLpmarlAgent
from modules.assignment import policies
from modules.graph import build_graph

DECENTRAL = "decentral"


class DecLpmarlOptions(LpmarlOptions):
    """When the imitator acts, and how often it decides."""

    high_policy: Literal["decentral", "lp", "softmax", "lp_distance", "lp_cost", "greedy", "random_feasible"] = Field(  # type: ignore[assignment]
        "decentral", description="the imitator (training is by the LP's side all the same), or as lpmarl_mac"
    )
    decentral_interval: int = Field(1, ge=1, description="steps between the imitator's decisions")
    decentral_share: float = Field(
        0.7, ge=0, le=1, description="share of training episodes in which the imitator decides, at the end of training"
    )
    decentral_start: float = Field(
        0.1, ge=0, lt=1, description="share of the run before it first does; from there its share grows linearly"
    )


class DecLpmarlController(LpmarlController):
    """Training episodes are LPMARL's or the imitator's own; test episodes follow ``high_policy``.

    Arguments as :class:`controllers.lpmarl_controller.LpmarlController`.
    """

    agent: DecLpmarlAgent
    options: DecLpmarlOptions

    def __init__(
        self,
        info: EnvInfo,
        options: DecLpmarlOptions,
        agent: Callable[[int, int, int], DecLpmarlAgent],
        rng: np.random.Generator,
        device: torch.device,
    ) -> None:
        self._decentral = options.high_policy == DECENTRAL
        central = options.model_copy(update={"high_policy": "lp"}) if self._decentral else options
        super().__init__(info, central, agent, rng, device)
        self._imitates = np.zeros(0, dtype=np.bool_)

    @override
    def act(self, batch: EpisodeBatch, t: int, rows: Rows, clock: Clock, test_mode: bool) -> Decision:
        if t == 0:
            share = 1.0 if test_mode else self._share(clock)
            self._imitates = self._decentral & (self._rng.random(len(self._assign)) < share)
        decision = super().act(batch, t, rows, clock, test_mode)
        if not test_mode:
            # The high level learns from its own decisions: the imitator's, one a step, would drown them.
            decision.extras["decide"] &= ~self._imitates[numpy_rows(rows), None]
        return decision

    def _share(self, clock: Clock) -> float:
        start = self.options.decentral_start
        return linear(0.0, self.options.decentral_share, (clock.fraction - start) / (1.0 - start))

    @override
    def _due(self, seen: Observed, avail: Tensor, t: int, where: slice | Array) -> Array:
        due = super()._due(seen, avail, t, where)
        if self.options.redecide == "every_k":
            due[self._imitates[where]] = t % self.options.decentral_interval == 0
        return due

    @override
    def _decide(self, environments: Array, seen: Observed, cost: Tensor | None, clock: Clock, test_mode: bool) -> Array:
        itself = self._imitates[environments]
        tasks = np.zeros((len(environments), self.n_agents), dtype=np.int64)
        if itself.any():
            tasks[itself] = self.imitated(Observed(*(field[torch.from_numpy(itself)] for field in seen)))
        if not itself.all():
            central = torch.from_numpy(~itself)
            rest = Observed(*(field[central] for field in seen))
            tasks[~itself] = super()._decide(
                environments[~itself], rest, None if cost is None else cost[central], clock, test_mode
            )
        return tasks

    def imitated(self, seen: Observed) -> Array:
        """[R, N] the task that every agent takes by what it sees; 0 for dead agents."""
        logits = self.agent.imitated(self.in_sight(build_graph(*seen[:4]))).cpu().numpy()
        return np.maximum(policies.greedy(-logits, seen.agent_alive.cpu().numpy(), seen.task_alive.cpu().numpy()), 0)

    @override
    def explain(self, batch: EpisodeBatch) -> dict[str, Array]:
        return {} if self._decentral else super().explain(batch)
