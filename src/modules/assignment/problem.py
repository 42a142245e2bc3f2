"""The assignment problem: a batch of states, checked once, before any solver sees it.

``max sum_ij c_ij z_ij`` subject to ``sum_j z_ij = 1`` for each living agent i, ``sum_i z_ij <= k_j`` for each
living task j, ``z >= 0``. Dead agents and dead tasks are no part of the LP.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]

# Slack of the feasibility check: sums of fractional capacities are rounded.
CAPACITY_TOLERANCE = 1e-9


class InfeasibleAssignment(ValueError):
    """The living tasks of a state have fewer places than it has living agents."""


@dataclass(frozen=True)
class AssignmentProblem:
    """A batch of assignment LPs; build it with :func:`make_problem`, which checks it.

    Attributes:
        scores: c, [B, N, M] float64, higher is better; entries of dead agents or tasks mean nothing.
        capacity: k, [B, M] float64, places of each task; may be fractional or infinite.
        agent_mask: [B, N] bool, living agents.
        task_mask: [B, M] bool, living tasks.
    """

    scores: NDArray[np.float64]
    capacity: NDArray[np.float64]
    agent_mask: NDArray[np.bool_]
    task_mask: NDArray[np.bool_]

    def take(self, states: Array) -> AssignmentProblem:
        """The problem of some states only (``states`` indexes the batch axis)."""
        return AssignmentProblem(
            self.scores[states], self.capacity[states], self.agent_mask[states], self.task_mask[states]
        )


def make_problem(
    scores: ArrayLike, capacity: ArrayLike, agent_mask: ArrayLike | None = None, task_mask: ArrayLike | None = None
) -> AssignmentProblem:
    """Checks the parts of a batch of problems and brings them to one form.

    Args:
        scores: [B, N, M].
        capacity: [M] or [B, M], integers or floats.
        agent_mask: [B, N], living agents; all of them by default.
        task_mask: [B, M], living tasks; all of them by default.

    Raises:
        ValueError: wrong shapes, a non-finite score of a living pair, a negative or undefined capacity.
    """
    values = np.ascontiguousarray(scores, np.float64)
    if values.ndim != 3:
        raise ValueError(f"scores must have the shape [states, agents, tasks], not {values.shape}")
    b, n, m = values.shape
    places = np.asarray(capacity, np.float64)
    if places.shape not in ((m,), (b, m)):
        raise ValueError(f"capacity must have the shape {(m,)} or {(b, m)}, not {places.shape}")
    problem = AssignmentProblem(
        values,
        np.ascontiguousarray(np.broadcast_to(places, (b, m))),
        _mask("agent_mask", agent_mask, (b, n)),
        _mask("task_mask", task_mask, (b, m)),
    )
    _check_numbers(problem)
    return problem


def check_feasible(problem: AssignmentProblem) -> None:
    """Refuses a batch in which a state has living tasks, but too few places for its living agents.

    Raises:
        InfeasibleAssignment: names the first such state and its numbers.
    """
    places = np.where(problem.task_mask, problem.capacity, 0.0).sum(1)
    living = problem.agent_mask.sum(1)
    tasks = problem.task_mask.sum(1)
    short = (places < living - CAPACITY_TOLERANCE) & (tasks > 0)
    if not short.any():
        return
    b = int(np.argmax(short))
    raise InfeasibleAssignment(
        f"state {b} of {len(short)}: {living[b]} living agents, but {tasks[b]} living tasks with sum k = {places[b]:g} "
        f"places ({int(short.sum())} such states). Each agent needs a place: raise the capacities until sum k >= "
        f"{living[b]}, or choose the capacity rule 'relax'"
    )


def relax_capacity(capacity: ArrayLike, agent_mask: ArrayLike, task_mask: ArrayLike) -> Array:
    """Capacity rule ``relax``: the least uniform floor that lets every living agent have a place.

    Where the living tasks have fewer places than agents live, k_j <- max(k_j, ceil(N_alive / M_alive)) for the
    living tasks; elsewhere nothing changes.

    Args:
        capacity: [M] or [B, M].
        agent_mask: [B, N] bool.
        task_mask: [B, M] bool.

    Returns:
        [B, M], of the type of ``capacity``.
    """
    tasks = np.asarray(task_mask, np.bool_)
    places = np.broadcast_to(np.asarray(capacity), tasks.shape)
    living, alive = np.asarray(agent_mask, np.bool_).sum(1), tasks.sum(1)
    short = np.where(tasks, places, 0).sum(1) < living - CAPACITY_TOLERANCE
    least = -(-living // np.maximum(alive, 1))
    return np.where(short[:, None] & tasks, np.maximum(places, least[:, None]), places).astype(places.dtype)


def _mask(name: str, mask: ArrayLike | None, shape: tuple[int, int]) -> NDArray[np.bool_]:
    if mask is None:
        return np.ones(shape, np.bool_)
    array = np.ascontiguousarray(mask, np.bool_)
    if array.shape != shape:
        raise ValueError(f"{name} must have the shape {shape}, not {array.shape}")
    return array


def _check_numbers(problem: AssignmentProblem) -> None:
    finite = np.isfinite(problem.scores)
    if not finite.all():
        bad = ~finite & problem.agent_mask[:, :, None] & problem.task_mask[:, None, :]
        if bad.any():
            b, i, j = (int(x) for x in np.argwhere(bad)[0])
            raise ValueError(
                f"state {b}: the score of agent {i} for task {j} is {problem.scores[b, i, j]}; "
                "scores of living agents and tasks must be finite"
            )
    valid = problem.capacity >= 0.0
    if not valid.all():
        b, j = (int(x) for x in np.argwhere(~valid)[0])
        raise ValueError(f"state {b}: the capacity of task {j} is {problem.capacity[b, j]:g}; it must be 0 or more")
