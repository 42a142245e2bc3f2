"""What `assignment.py` measures besides the solvers of `modules.assignment`: the usual ways to solve such an LP.

Needs NumPy, SciPy and, for GLOP, OR-Tools; CVXPY is measured by a process of its own, which runs this file:

    python assignment_methods.py PROBLEMS.npz SECONDS    # prints LPs per CPU second as JSON

Shape legend: N agents, M tasks.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Smallest quadratic term that makes the LP's solution unique.
SMOOTHING = 1e-5


def direct_lsa(scores: Array, capacity: Array) -> float:
    """SciPy's ``linear_sum_assignment`` on a column per place; the objective."""
    from scipy.optimize import linear_sum_assignment

    columns = np.repeat(np.arange(len(capacity)), capacity)
    expanded = scores[:, columns]
    rows, chosen = linear_sum_assignment(expanded, maximize=True)
    return float(expanded[rows, chosen].sum())


def rebuilt_glop(scores: Array, capacity: Array) -> float:
    """GLOP the plain way: a new pywraplp model for each LP, written as sums of variables, default settings."""
    import ortools.linear_solver.pywraplp as pywraplp

    agents, tasks = range(len(scores)), range(len(capacity))
    solver = pywraplp.Solver.CreateSolver("GLOP")
    z = {(i, j): solver.NumVar(0.0, 1.0, f"z_{i}_{j}") for i in agents for j in tasks}
    for i in agents:
        solver.Add(sum(z[i, j] for j in tasks) == 1)
    for j in tasks:
        solver.Add(sum(z[i, j] for i in agents) <= float(capacity[j]))
    solver.Maximize(sum(float(scores[i, j]) * z[i, j] for i in agents for j in tasks))
    if solver.Solve() != pywraplp.Solver.OPTIMAL:
        raise RuntimeError("GLOP found no optimum")
    solution = np.array([[z[i, j].solution_value() for j in tasks] for i in agents])
    return float((solution * scores).sum())


def cvxpy_program(scores: Array, capacity: Array) -> float:
    """CVXPY with a slightly quadratic objective, as a differentiable layer needs it; built anew for each LP."""
    import cvxpy

    z = cvxpy.Variable(scores.shape, nonneg=True)
    objective = cvxpy.sum(cvxpy.multiply(scores, z)) - SMOOTHING * cvxpy.sum_squares(z)
    constraints = [cvxpy.sum(z, axis=1) == 1, cvxpy.sum(z, axis=0) <= capacity]
    cvxpy.Problem(cvxpy.Maximize(objective), constraints).solve()
    return float((z.value * scores).sum())


def main(problems: str, seconds: float) -> None:
    """CVXPY's rates for the arrays ``scores_<N>_<M>`` [B, N, M] and ``capacity_<N>_<M>`` [B, M] of a file."""
    import cvxpy

    arrays = np.load(problems)
    found = []
    for name in arrays.files:
        kind, n, m = name.split("_")
        if kind != "scores":
            continue
        scores, capacity = arrays[name], arrays[f"capacity_{n}_{m}"]
        values, began, solved = [cvxpy_program(scores[0], capacity[0])], time.process_time(), 0
        while (spent := time.process_time() - began) < seconds:
            values.append(cvxpy_program(scores[solved % len(scores)], capacity[solved % len(scores)]))
            solved += 1
        found.append({"n_agents": int(n), "n_tasks": int(m), "lps": solved, "rate": solved / spent, "value": values[0]})
    print(json.dumps({"version": cvxpy.__version__, "numpy": np.__version__, "sizes": found}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
