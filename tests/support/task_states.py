"""Random task-structured states, and LPMARL's parts in small sizes for any number of agents and tasks."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from components.episode_buffer import EpisodeBatch, episode_fields
from controllers.lpmarl_controller import LpmarlController, LpmarlOptions
from controllers.task_structure import Observed
from envs.base import EnvInfo, TaskInfo
from learners.lpmarl_batches import HighBatch, LowBatch
from learners.lpmarl_learner import LpmarlLearner, LpmarlLearnerOptions
from modules.agents.lpmarl_agent import LpmarlAgent, LpmarlAgentOptions
from modules.critics.lpmarl_critic import LpmarlCritic, LpmarlCriticOptions
from modules.graph import Graph, build_graph

CPU = torch.device("cpu")
N_MOVES = 5


def task_info(n: int, m: int, sight: float = float("inf"), first_task_action: int | None = None) -> EnvInfo:
    tasks = TaskInfo(m, agent_feats=4, task_feats=3, agent_sight=sight, first_task_action=first_task_action)
    n_actions = N_MOVES if first_task_action is None else first_task_action + m
    return EnvInfo(n_agents=n, n_actions=n_actions, obs_shape=1, state_shape=1, episode_limit=20, tasks=tasks)


def random_state(s: int, n: int, m: int, seed: int = 0) -> Observed:
    """S states with everybody alive and room for everybody."""
    generator = torch.Generator().manual_seed(seed)
    return Observed(
        agent_feats=2.0 * torch.rand((s, n, 4), generator=generator) - 1.0,
        task_feats=2.0 * torch.rand((s, m, 3), generator=generator) - 1.0,
        agent_alive=torch.ones((s, n), dtype=torch.bool),
        task_alive=torch.ones((s, m), dtype=torch.bool),
        capacity=torch.full((s, m), n, dtype=torch.int64),
    )


def graph_of(seen: Observed) -> Graph:
    return build_graph(seen.agent_feats, seen.task_feats, seen.agent_alive, seen.task_alive)


def small_agent(info: EnvInfo, **options: Any) -> LpmarlAgent:
    torch.manual_seed(1)
    sizes = LpmarlAgentOptions(**({"graph_hidden_dim": 8, "head_hidden_dim": 16} | options)).model_dump()
    low = N_MOVES if info.tasks is None or info.tasks.first_task_action is None else info.tasks.first_task_action + 1
    return LpmarlAgent(2, 1, low, **sizes)


def small_controller(info: EnvInfo, agent_options: dict[str, Any] | None = None, **options: Any) -> LpmarlController:
    agent = small_agent(info, **(agent_options or {}))
    return LpmarlController(info, LpmarlOptions(**options), lambda *dims: agent, np.random.default_rng(0), CPU)


def small_critic() -> partial[LpmarlCritic]:
    torch.manual_seed(2)
    return partial(LpmarlCritic, **LpmarlCriticOptions.model_validate({"critic_graph_hidden_dim": 8}).model_dump())


def small_learner(controller: LpmarlController, info: EnvInfo, critic: Any = None, **options: Any) -> LpmarlLearner:
    return LpmarlLearner(
        controller, info, LpmarlLearnerOptions(**options), np.random.default_rng(0), CPU, critic or small_critic()
    )


class TableCritic(nn.Module):
    """One free number per (agent, task), whatever the state."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.high = nn.ParameterList([values.clone()])
        self.low = nn.Linear(1, 1)

    def high_values(self, graph: Graph) -> Tensor:
        return self.high[0].expand(len(graph.agents), -1, -1)


def low_batch(now: Observed, after: Observed, assign: Tensor, seed: int = 0, n_actions: int = N_MOVES) -> LowBatch:
    """Random actions, rewards and masks between two states; no episode ends."""
    generator = torch.Generator().manual_seed(seed)
    shape = (*assign.shape, n_actions)
    avail, avail_after = ((torch.rand(shape, generator=generator) < 0.6).int() for _ in range(2))
    avail[..., 0] = avail_after[..., 0] = 1
    return LowBatch(
        now=now,
        after=after,
        graph=graph_of(now),
        assign=assign,
        next_assign=assign,
        actions=torch.zeros_like(assign),
        avail=avail,
        avail_after=avail_after,
        reward=torch.randn(assign.shape, generator=generator),
        terminated=torch.zeros(len(assign), 1),
    )


def high_batch(now: Observed, after: Observed, assign: Tensor, ret: Tensor, discount: Tensor) -> HighBatch:
    return HighBatch(now, after, graph_of(now), assign, ret, discount)


def episode_of(info: EnvInfo, controller: LpmarlController, seen: Observed, steps: int) -> EpisodeBatch:
    """A batch that shows the same state at every step."""
    fields = episode_fields(info, controller.fields, (), controller.extra_fields())
    batch = EpisodeBatch.zeros(fields, len(seen.agent_feats), steps, info.n_actions)
    for name, value in seen._asdict().items():
        batch.data[name][:] = value.unsqueeze(1)
    batch.data["avail_actions"][:] = 1
    return batch
