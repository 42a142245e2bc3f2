"""SciPy's ``linear_sum_assignment`` on capacity-replicated columns: exact, one state at a time, no compiler needed.

A lower bound makes l_j of the k_j columns of task j mandatory. One dummy row per column beyond the number of agents
makes the matrix square, so that every column is used; a dummy may take optional columns only, at the score 0.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from modules.assignment.feasibility import check_places
from modules.assignment.problem import AssignmentProblem
from modules.assignment.solution import Assignment, require_integral


def solve_lsa(problem: AssignmentProblem) -> Assignment:
    """Solves each state by repeating the column of task j min(k_j, N) times.

    Raises:
        UserError: a capacity or lower bound is fractional, or there are extra constraints.
        InfeasibleAssignment: a state has no assignment.
    """
    require_integral(problem, "lsa")
    check_places(problem)
    b, n, m = problem.scores.shape
    places = np.where(problem.task_mask, np.minimum(problem.capacity, n), 0.0).astype(np.int64)
    index = np.full((b, n), -1, np.int64)
    for state in np.flatnonzero(problem.task_mask.any(1)):
        columns = np.repeat(np.arange(m), places[state])
        rows = np.flatnonzero(problem.agent_mask[state])
        # SciPy takes -inf for a forbidden pair when it maximizes.
        matrix = problem.scores[state][np.ix_(rows, columns)]
        if problem.pair_mask is not None:
            matrix = np.where(problem.pair_mask[state][np.ix_(rows, columns)], matrix, -np.inf)
        if problem.lower is not None:
            matrix = np.vstack([matrix, _dummies(problem.lower[state], places[state], len(rows))])
        _, chosen = linear_sum_assignment(matrix, maximize=True)
        index[state, rows] = columns[chosen[: len(rows)]]
    return Assignment(problem, index, solver="lsa")


def _dummies(lower: NDArray[np.float64], places: NDArray[np.int64], n_agents: int) -> NDArray[Any]:
    """[columns - agents, columns] rows of 0 that may not take the first l_j columns of each task."""
    rank = np.arange(places.sum()) - np.repeat(places.cumsum() - places, places)
    row = np.where(rank < np.repeat(lower, places), -np.inf, 0.0)
    return np.tile(row, (len(row) - n_agents, 1))
