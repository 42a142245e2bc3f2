"""What task-structured environments show, and what their actions mean to an agent that has a task.

Shape legend: R states, N agents, M tasks, A actions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from components.errors import UserError
from controllers.base import Array
from envs.base import EnvInfo, TaskInfo
from modules.graph import POSITION_DIM, distances


class Observed(NamedTuple):
    """The task-structured observation of R states, on the network's device."""

    agent_feats: Tensor
    task_feats: Tensor
    agent_alive: Tensor
    task_alive: Tensor
    capacity: Tensor


def distance_to_tasks(seen: Observed) -> Tensor:
    """[R, N, M] distance of every agent to every task."""
    return distances(seen.agent_feats[..., :POSITION_DIM], seen.task_feats[..., :POSITION_DIM])


def task_structure(info: EnvInfo) -> TaskInfo:
    """The environment's task structure.

    Raises:
        UserError: there is none.
    """
    if info.tasks is None:
        raise UserError("mac = 'lpmarl_mac' needs an environment with tasks, such as constrained_navigation")
    return info.tasks


def network_dims(info: EnvInfo) -> tuple[int, int, int]:
    """Agent features, task features (both without the position) and low-level actions."""
    tasks = task_structure(info)
    first = tasks.first_task_action
    n_low_actions = info.n_actions if first is None else first + 1
    return tasks.agent_feats - POSITION_DIM, tasks.task_feats - POSITION_DIM, n_low_actions


def low_availability(avail: Tensor, assign: Tensor, first_task_action: int | None) -> Tensor:
    """[R, N, A_low]: which low-level actions each agent may take.

    Low-level actions are the environment's that name no task, then one "act on my task".

    Args:
        avail: [R, N, A] the environment's mask.
        assign: [R, N] each agent's task.
        first_task_action: ``TaskInfo.first_task_action``.
    """
    if first_task_action is None:
        return avail
    own = avail.gather(-1, first_task_action + assign.unsqueeze(-1))
    return torch.cat([avail[..., :first_task_action], own], -1)


def env_actions(low: Array, assign: Array, first_task_action: int | None) -> Array:
    """[R, N] the environment's actions: "act on my task" becomes the action that names it."""
    if first_task_action is None:
        return low
    return np.where(low == first_task_action, first_task_action + assign, low)
