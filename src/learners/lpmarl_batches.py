"""What LPMARL's learner draws from the replay buffer: transitions for the low level, segments for the high level.

Shape legend: S transitions, K decisions, N agents, M tasks, A low-level actions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from components.episode_buffer import ReplayBuffer, StepIndex
from controllers.task_structure import Observed, low_availability
from envs.base import Array, TaskInfo
from learners.returns import n_step_segments, segments
from modules.graph import Graph, build_graph


class LowBatch(NamedTuple):
    """S transitions of the low level, with the tasks that they are learned for."""

    now: Observed
    after: Observed
    graph: Graph  # of now
    assign: Tensor  # [S, N]
    next_assign: Tensor  # [S, N] the task that each agent goes on with
    actions: Tensor  # [S, N]
    avail: Tensor  # [S, N, A]
    avail_after: Tensor  # [S, N, A]
    reward: Tensor  # [S, N] each agent's reward for its task
    terminated: Tensor  # [S, 1]


class HighBatch(NamedTuple):
    """K segments of the high level."""

    now: Observed
    after: Observed
    graph: Graph  # of now
    assign: Tensor  # [K, N]
    ret: Tensor  # [K]
    discount: Tensor  # [K] 0 where the episode ended


def sample_low(
    buffer: ReplayBuffer,
    count: int,
    tasks: TaskInfo,
    relabel: float,
    follow: bool,
    rng: np.random.Generator,
    device: torch.device,
) -> LowBatch:
    """Uniform transitions; in a share of the states every agent's task is replaced by a random one.

    Args:
        buffer: holds LPMARL's episodes.
        count: S.
        tasks: the environment's task structure.
        relabel: the share; ignored where actions name tasks, since they would mean others.
        follow: agents go on with the task that they were given next, instead of keeping theirs while it lives; not
            where their task is a replaced one, which nobody followed.
        rng: draws the replaced tasks.
        device: where the batch is wanted.
    """
    index = buffer.sample_steps(count)

    def read(name: str, offset: int = 0) -> Tensor:
        return buffer.at(name, index, offset).to(device)

    assign = read("assign").squeeze(-1)
    terminated = read("terminated")
    # Nobody is given a task in an episode's last state.
    stays = (terminated | read("truncated")).bool() if follow else torch.ones_like(terminated, dtype=torch.bool)
    if relabel and tasks.first_task_action is None:
        replaced = torch.from_numpy(rng.random((len(assign), 1)) < relabel).to(device)
        random_tasks = living_task(rng.integers(tasks.n_tasks, size=assign.shape), read("task_alive").cpu().numpy())
        assign = torch.where(replaced, torch.from_numpy(random_tasks).to(device), assign)
        stays = stays | replaced
    now, after = _observed(buffer, index, device), _observed(buffer, index, device, offset=1)
    keeps = stays & after.task_alive.gather(-1, assign)
    next_assign = torch.where(keeps, assign, read("assign", 1).squeeze(-1))
    return LowBatch(
        now=now,
        after=after,
        graph=build_graph(*now[:4]),
        assign=assign,
        next_assign=next_assign,
        actions=read("low_actions").squeeze(-1),
        avail=low_availability(read("avail_actions"), assign, tasks.first_task_action),
        avail_after=low_availability(read("avail_actions", 1), next_assign, tasks.first_task_action),
        reward=read("task_reward").gather(-1, assign.unsqueeze(-1)).squeeze(-1),
        terminated=terminated.float(),
    )


def living_task(drawn: Array, task_alive: Array) -> Array:
    """[S, N] tasks drawn among all M, led to living ones: the r-th where r is drawn, counted in a circle.

    Args:
        drawn: [S, N] of 0..M-1.
        task_alive: [S, M] bool; a state without a living task keeps what was drawn.
    """
    living_first = np.argsort(~task_alive, axis=1, kind="stable")
    count = task_alive.sum(1, keepdims=True)
    return np.take_along_axis(living_first, drawn % np.where(count > 0, count, task_alive.shape[1]), 1)


def sample_states(buffer: ReplayBuffer, count: int, device: torch.device) -> Observed:
    """``count`` uniform states in which an action was taken, with replacement."""
    return _observed(buffer, buffer.sample_steps(count), device)


def sample_high(
    buffer: ReplayBuffer, count: int, gamma: float, n_step: int, rng: np.random.Generator, device: torch.device
) -> HighBatch:
    """At most ``count`` decisions of uniformly drawn episodes.

    Args:
        buffer: holds LPMARL's episodes.
        count: K.
        gamma: high-level discount per step.
        n_step: decisions that a segment spans.
        rng: picks among the decisions of the drawn episodes.
        device: where the batch is wanted.
    """
    ids = buffer.sample_ids(min(count, len(buffer)))
    cut = segments(
        buffer.episodes("reward_high", ids).squeeze(-1),
        buffer.episodes("decide", ids).squeeze(-1),
        buffer.lengths(ids),
        gamma,
    )
    cut = n_step_segments(cut, n_step)
    picks = torch.from_numpy(rng.permutation(len(cut.start))[:count])
    start = StepIndex(ids[cut.episode[picks]], cut.start[picks])
    end = StepIndex(start.episode, cut.end[picks])
    now = _observed(buffer, start, device)
    return HighBatch(
        now=now,
        after=_observed(buffer, end, device),
        graph=build_graph(*now[:4]),
        assign=buffer.at("assign", start).squeeze(-1).to(device),
        ret=cut.ret[picks].to(device),
        discount=cut.discount[picks].to(device),
    )


def _observed(buffer: ReplayBuffer, index: StepIndex, device: torch.device, offset: int = 0) -> Observed:
    return Observed(*(buffer.at(name, index, offset).to(device) for name in Observed._fields))
