"""OR-Tools' GLOP simplex on the general LP, one model per state, built anew each time.

A kept model would start from its last basis, which makes the vertex returned on ties depend on what was solved
before. It is the solver for fractional capacities and an independent check of the others.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from ortools.linear_solver import pywraplp

from modules.assignment.problem import AssignmentProblem
from modules.assignment.solution import Assignment, fractional_states

# Presolve costs more than it saves on LPs this small; tight tolerances, since near-ties must not be mistaken.
PARAMETERS = "use_preprocessing: false primal_feasibility_tolerance: 1e-10 dual_feasibility_tolerance: 1e-10"
# A share further than this from 0 and 1, with integral capacities, is not a vertex.
INTEGRAL_TOLERANCE = 1e-6


def solve_glop(problem: AssignmentProblem) -> Assignment:
    """Solves each state as a linear program.

    Raises:
        RuntimeError: GLOP did not report an optimum, or a fractional one where it must be 0/1.
    """
    b, n, m = problem.scores.shape
    shares, price = np.zeros((b, n, m)), np.zeros((b, m))
    for state in np.flatnonzero(problem.task_mask.any(1) & problem.agent_mask.any(1)):
        rows, columns = np.flatnonzero(problem.agent_mask[state]), np.flatnonzero(problem.task_mask[state])
        grid = np.ix_(rows, columns)
        try:
            shares[state][grid], price[state, columns] = _solve_one(
                problem.scores[state][grid], np.minimum(problem.capacity[state, columns], len(rows))
            )
        except RuntimeError as error:
            raise RuntimeError(f"state {state}: {error}") from error
    index = np.where(shares.any(2), shares.argmax(2), -1) if m else np.full((b, n), -1)
    fractional = fractional_states(problem)
    whole = shares[~fractional]
    if (np.abs(whole - np.rint(whole)) > INTEGRAL_TOLERANCE).any():
        raise RuntimeError("GLOP returned fractional assignments although all capacities are integral")
    shares[~fractional] = np.rint(whole)
    return Assignment(problem, index, price, shares if fractional.any() else None)


def _solve_one(
    scores: NDArray[np.float64], capacity: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One LP over living agents and tasks only.

    Subtracting each agent's best score and dividing by the spread leaves the optimum and makes GLOP's absolute
    tolerances mean the same for scores of every size.

    Returns:
        z [n, m] and the prices [m] in units of the scores.
    """
    n, m = scores.shape
    shifted = scores - scores.max(1, keepdims=True)
    spread = -float(shifted.min()) or 1.0
    solver = pywraplp.Solver("assignment", pywraplp.Solver.GLOP_LINEAR_PROGRAMMING)
    if not solver.SetSolverSpecificParametersAsString(PARAMETERS):
        raise RuntimeError(f"this OR-Tools does not know GLOP's parameters {PARAMETERS!r}")
    places = [solver.Constraint(0.0, float(k)) for k in capacity]
    objective = solver.Objective()
    objective.SetMaximization()
    z = []
    for row in shifted / spread:
        once = solver.Constraint(1.0, 1.0)
        for place, score in zip(places, row.tolist(), strict=True):
            share = solver.NumVar(0.0, solver.infinity(), "")
            once.SetCoefficient(share, 1.0)
            place.SetCoefficient(share, 1.0)
            objective.SetCoefficient(share, score)
            z.append(share)
    status = solver.Solve()
    if status != pywraplp.Solver.OPTIMAL:
        raise RuntimeError(f"GLOP ended with status {status} instead of OPTIMAL ({n} agents, {m} tasks)")
    prices = np.array([place.dual_value() for place in places]) * spread
    solution = np.array([share.solution_value() for share in z]).reshape(n, m)
    return np.clip(solution, 0.0, 1.0), np.maximum(prices, 0.0)
