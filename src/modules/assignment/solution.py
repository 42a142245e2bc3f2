"""What a solver returns, in one form for all solvers.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from components.errors import UserError
from modules.assignment.problem import AssignmentProblem


@dataclass(frozen=True)
class Assignment:
    """Optimal assignments of a batch.

    Attributes:
        problem: what was solved.
        index: [B, N] int64, each agent's task; -1 for dead agents and where no task lives. In a fractional
            optimum, the task with the agent's largest share (lowest index on ties).
        price: [B, M] optimal dual prices of the capacities, 0 for dead tasks; None from a solver without duals.
            Any optimal prices are right: compare them between solvers through the dual objective only.
        shares: [B, N, M], z, only where a capacity is fractional; None when z is the one-hot of ``index``.
    """

    problem: AssignmentProblem
    index: NDArray[np.int64]
    price: NDArray[np.float64] | None = None
    shares: NDArray[np.float64] | None = None

    @property
    def z(self) -> NDArray[np.float64]:
        """[B, N, M] the LP's solution, made on demand; rows of zeros for agents that are out."""
        return one_hot(self.index, self.problem.scores.shape[2]) if self.shares is None else self.shares

    @cached_property
    def value(self) -> NDArray[np.float64]:
        """[B] the objective, sum of c_ij z_ij over living pairs."""
        scores = self.problem.scores
        if self.shares is not None:
            return np.where(self.shares > 0.0, scores * self.shares, 0.0).sum((1, 2))
        if scores.shape[2] == 0:
            return np.zeros(len(scores))
        chosen = np.take_along_axis(scores, np.maximum(self.index, 0)[:, :, None], 2)[:, :, 0]
        return np.where(self.index >= 0, chosen, 0.0).sum(1)


def one_hot(index: NDArray[np.int64], n_tasks: int) -> NDArray[np.float64]:
    """[B, N] task numbers -> [B, N, M]; a row of zeros for -1."""
    return (index[:, :, None] == np.arange(n_tasks)).astype(np.float64)


def fractional_states(problem: AssignmentProblem) -> NDArray[np.bool_]:
    """[B] states in which a living task has a fractional capacity, so that the LP's vertices need not be 0/1."""
    return ((problem.capacity != np.rint(problem.capacity)) & problem.task_mask).any(1)


def require_integral(problem: AssignmentProblem, solver: str) -> None:
    """Refuses fractional capacities on behalf of a solver that returns 0/1 assignments only.

    Raises:
        UserError: names the first such state and its capacities.
    """
    fractional = fractional_states(problem)
    if fractional.any():
        b = int(np.argmax(fractional))
        raise UserError(
            f"assignment solver {solver!r} needs integral capacities, but state {b} has "
            f"{problem.capacity[b].tolist()}: use the solver 'auto' or 'glop', or round the capacities"
        )
