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
        index: [B, N] int64, each agent's task; -1 for dead agents, for idle agents and where no task lives. In a
            fractional optimum, the task with the agent's largest share (lowest index on ties).
        price: [B, M] optimal dual prices, 0 for dead tasks: the dual of the capacity less the dual of the lower
            bound, so negative only where a lower bound binds; None from a solver without duals. Any optimal prices
            are right: compare them between solvers through the dual objective only.
        shares: [B, N, M], z, only where it may be fractional; None when z is the one-hot of the columns.
        solver: name of the solver that solved it; joined by "+" if several did.
    """

    problem: AssignmentProblem
    index: NDArray[np.int64]
    price: NDArray[np.float64] | None = None
    shares: NDArray[np.float64] | None = None
    solver: str = ""

    @property
    def column(self) -> NDArray[np.int64]:
        """[B, N] each agent's column of z: its task, the idle task for idle agents, -1 for agents that are out."""
        if not self.problem.idle:
            return self.index
        return np.where((self.index < 0) & self.problem.agent_mask, self.problem.scores.shape[2] - 1, self.index)

    @property
    def z(self) -> NDArray[np.float64]:
        """[B, N, M] the LP's solution, made on demand; rows of zeros for agents that are out."""
        return one_hot(self.column, self.problem.scores.shape[2]) if self.shares is None else self.shares

    @cached_property
    def value(self) -> NDArray[np.float64]:
        """[B] the objective, sum of c_ij z_ij over allowed pairs."""
        scores = self.problem.scores
        if self.shares is not None:
            return (np.where(self.shares > 0.0, scores, 0.0) * self.shares).sum((1, 2))
        if scores.shape[2] == 0:
            return np.zeros(len(scores))
        column = self.column
        chosen = np.take_along_axis(scores, np.maximum(column, 0)[:, :, None], 2)[:, :, 0]
        return np.where(column >= 0, chosen, 0.0).sum(1)


def one_hot(index: NDArray[np.int64], n_tasks: int) -> NDArray[np.float64]:
    """[B, N] task numbers -> [B, N, M]; a row of zeros for -1."""
    return (index[:, :, None] == np.arange(n_tasks)).astype(np.float64)


def fractional_states(problem: AssignmentProblem) -> NDArray[np.bool_]:
    """[B] states in which a living task has a fractional capacity or lower bound: the LP's vertices need not be 0/1."""
    fractional = problem.capacity != np.rint(problem.capacity)
    if problem.lower is not None:
        fractional |= problem.lower != np.rint(problem.lower)
    return (fractional & problem.task_mask).any(1)


def general_states(problem: AssignmentProblem) -> NDArray[np.bool_]:
    """[B] states that only a general LP solver can solve: fractional numbers or extra constraints."""
    if problem.constraints:
        return np.ones(len(problem.scores), np.bool_)
    return fractional_states(problem)


def require_integral(problem: AssignmentProblem, solver: str) -> None:
    """Refuses what needs the general LP on behalf of a solver that returns 0/1 assignments only.

    Raises:
        UserError: names the constraints, or the first fractional state and its capacities or lower bounds.
    """
    if problem.constraints:
        names = ", ".join(repr(constraint.name) for constraint in problem.constraints)
        raise UserError(
            f"assignment solver {solver!r} knows no extra constraints, but the problem has {names}: "
            "use the solver 'auto' or 'glop'"
        )
    fractional = fractional_states(problem)
    if fractional.any():
        b = int(np.argmax(fractional))
        lower = "" if problem.lower is None else f" and lower bounds {problem.lower[b].tolist()}"
        raise UserError(
            f"assignment solver {solver!r} needs integral capacities, but {problem.name_of(b)} has "
            f"{problem.capacity[b].tolist()}{lower}: use the solver 'auto' or 'glop', or round them"
        )
