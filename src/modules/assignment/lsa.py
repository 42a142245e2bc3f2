"""SciPy's ``linear_sum_assignment`` on capacity-replicated columns: exact, one state at a time, no compiler needed.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from modules.assignment.problem import AssignmentProblem
from modules.assignment.solution import Assignment, require_integral


def solve_lsa(problem: AssignmentProblem) -> Assignment:
    """Solves each state by repeating the column of task j min(k_j, N) times.

    Raises:
        UserError: a capacity is fractional.
    """
    require_integral(problem, "lsa")
    b, n, m = problem.scores.shape
    places = np.where(problem.task_mask, np.minimum(problem.capacity, n), 0.0).astype(np.int64)
    index = np.full((b, n), -1, np.int64)
    for state in np.flatnonzero(problem.task_mask.any(1)):
        columns = np.repeat(np.arange(m), places[state])
        rows = np.flatnonzero(problem.agent_mask[state])
        _, chosen = linear_sum_assignment(problem.scores[state][np.ix_(rows, columns)], maximize=True)
        index[state, rows] = columns[chosen]
    return Assignment(problem, index)
