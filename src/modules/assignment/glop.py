"""OR-Tools' GLOP simplex on the general LP: fractional capacities and bounds, forbidden pairs, extra constraints.

One model per state, built anew each time: a kept model would start from its last basis, which makes the vertex
returned on ties depend on what was solved before. The model is filled from one sparse matrix, through the module that
OR-Tools' own ``model_builder`` is made of: three times faster at (5,3) than adding variables one by one by
``pywraplp``. It solves general problems, and is an independent check of the other solvers.

Shape legend: B states, N agents, M tasks, K extra constraints, P allowed pairs of a state.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from ortools.linear_solver.python.model_builder_helper import ModelBuilderHelper, ModelSolverHelper, SolveStatus
from scipy.sparse import csr_matrix

from modules.assignment.constraints import LinearConstraint
from modules.assignment.feasibility import check_places, explain
from modules.assignment.problem import AssignmentProblem
from modules.assignment.solution import Assignment, general_states

Array = NDArray[np.float64]

# Presolve costs more than it saves on LPs this small. The first basis is dual feasible, since no shifted score is
# positive: the dual simplex then needs up to three times less time. Tight tolerances: near-ties must not be mistaken.
PARAMETERS = (
    "use_preprocessing: false use_dual_simplex: true "
    "primal_feasibility_tolerance: 1e-10 dual_feasibility_tolerance: 1e-10"
)
# A share further than this from 0 and 1, with integral capacities and no extra constraints, is not a vertex.
INTEGRAL_TOLERANCE = 1e-6
# A share this close to 0 or 1 is meant to be it.
ROUNDING = 1e-9


class _Program(NamedTuple):
    """``max objective' x`` subject to ``lowest <= rows x <= highest``, x >= 0; one x per allowed pair.

    Attributes:
        objective: [P].
        rows: [n + m + K, P], living agents, living tasks, extra constraints.
        lowest: [n + m + K], may be -inf.
        highest: [n + m + K], may be inf.
    """

    objective: Array
    rows: csr_matrix
    lowest: Array
    highest: Array


def solve_glop(problem: AssignmentProblem) -> Assignment:
    """Solves each state as a linear program.

    Raises:
        InfeasibleAssignment: says by how much which extra constraints must give way, or where places are missing.
        RuntimeError: GLOP did not report an optimum, or a fractional one where it must be 0/1.
    """
    check_places(problem)
    b, n, m = problem.scores.shape
    shares, price = np.zeros((b, n, m)), np.zeros((b, m))
    allowed = problem.allowed()
    for state in np.flatnonzero(problem.task_mask.any(1)):
        _solve_state(problem, int(state), allowed[state], shares[state], price[state])
    np.clip(shares, 0.0, 1.0, out=shares)
    # Without a lower bound a price below 0 is a rounding error.
    np.maximum(price, 0.0, out=price, where=True if problem.lower is None else problem.lower == 0.0)
    whole = ~general_states(problem)
    near = np.rint(shares)
    if (np.abs(shares - near)[whole] > INTEGRAL_TOLERANCE).any():
        raise RuntimeError("GLOP returned fractional assignments although all capacities are integral")
    # In place: a batch of large states should not be held twice.
    np.copyto(shares, near, where=whole[:, None, None] | (np.abs(shares - near) < ROUNDING))
    index = np.where(shares.any(2), shares.argmax(2), -1) if m else np.full((b, n), -1)
    return Assignment(problem, index, price, None if whole.all() else shares, "glop")


def _solve_state(
    problem: AssignmentProblem, state: int, allowed: NDArray[np.bool_], shares: Array, price: Array
) -> None:
    """Writes z [N, M] and the prices [M] of one state."""
    agents, tasks = np.flatnonzero(problem.agent_mask[state]), np.flatnonzero(problem.task_mask[state])
    pairs = np.flatnonzero(allowed[np.ix_(agents, tasks)])
    row, column = np.divmod(pairs, len(tasks))
    at = agents[row], tasks[column]
    complete = len(pairs) == len(agents) * len(tasks)
    rows = _complete_rows(len(agents), len(tasks)) if complete else _rows(row, column, len(agents), len(tasks))
    lower = np.zeros(len(tasks)) if problem.lower is None else problem.lower[state, tasks]
    highest = np.maximum(np.minimum(problem.capacity[state, tasks], len(agents)), lower)
    once = np.ones(len(agents))
    objective, spread = _scaled(problem.scores[state][at], row, len(agents))
    program = _Program(objective, rows, np.concatenate([once, lower]), np.concatenate([once, highest]))
    if problem.constraints:
        program = _with_constraints(program, problem.constraints, state, at)
    status, solution, duals = _solve(program)
    if status != SolveStatus.OPTIMAL:
        raise _no_optimum(problem, state, status)
    shares[at] = solution
    price[tasks] = duals[len(agents) : len(agents) + len(tasks)] * spread


def _scaled(scores: Array, row: NDArray[np.int64], n_agents: int) -> tuple[Array, float]:
    """Scores [P] less the best of each agent, over the spread, and the spread.

    Neither changes the optimum, and GLOP's absolute tolerances then mean the same for scores of every size.
    """
    best = np.full(n_agents, -np.inf)
    np.maximum.at(best, row, scores)
    shifted = scores - best[row]
    spread = -float(shifted.min(initial=0.0)) or 1.0
    return shifted / spread, spread


@lru_cache(maxsize=16)
def _complete_rows(n: int, m: int) -> csr_matrix:
    """The rows where every pair is allowed; they are only read, so all states of a size can share them."""
    row, column = np.divmod(np.arange(n * m), m)
    return _rows(row, column, n, m)


def _rows(row: NDArray[np.int64], column: NDArray[np.int64], n: int, m: int) -> csr_matrix:
    """One row per agent and one per task, each with a 1 for the pairs [P] of it; pairs are sorted by agent."""
    pairs = len(row)
    ends = np.cumsum(np.concatenate([[0], np.bincount(row, minlength=n), np.bincount(column, minlength=m)]))
    places = np.concatenate([np.arange(pairs), np.argsort(column, kind="stable")])
    return csr_matrix((np.ones(2 * pairs), places, ends), shape=(n + m, pairs))


def _with_constraints(
    program: _Program, constraints: tuple[LinearConstraint, ...], state: int, at: tuple[Any, Any]
) -> _Program:
    """Appends one row per extra constraint, divided by its largest weight."""
    parts = [constraint.of(state) for constraint in constraints]
    weights, bound = np.array([weights[at] for weights, _ in parts]), np.array([bound for _, bound in parts])
    size = np.abs(weights).max(1, initial=0.0)
    size[size == 0.0] = 1.0
    weights, bound = weights / size[:, None], bound / size
    where = np.nonzero(weights)
    old = program.rows
    rows = csr_matrix(
        (
            np.concatenate([old.data, weights[where]]),
            np.concatenate([old.indices, where[1]]),
            np.concatenate([old.indptr, old.nnz + np.cumsum((weights != 0.0).sum(1))]),
        ),
        shape=(old.shape[0] + len(constraints), old.shape[1]),
    )
    sense = np.array([constraint.sense for constraint in constraints])
    return _Program(
        program.objective,
        rows,
        np.concatenate([program.lowest, np.where(sense == "<=", -np.inf, bound)]),
        np.concatenate([program.highest, np.where(sense == ">=", np.inf, bound)]),
    )


def _solve(program: _Program) -> tuple[SolveStatus, Array, Array]:
    """How it ended, the solution [P] and the dual value of each row."""
    pairs = len(program.objective)
    # Any: the type hints that OR-Tools ships for this module are not valid ones for arrays.
    model: Any = ModelBuilderHelper()
    model.fill_model_from_sparse_data(
        np.zeros(pairs), np.full(pairs, np.inf), program.objective, program.lowest, program.highest, program.rows
    )
    model.set_maximize(True)
    solver: Any = ModelSolverHelper("glop")
    solver.set_solver_specific_parameters(PARAMETERS)
    solver.solve(model)
    status = solver.status()
    if status != SolveStatus.OPTIMAL:
        return status, np.zeros(0), np.zeros(0)
    return status, solver.variable_values(), solver.dual_values()


def _no_optimum(problem: AssignmentProblem, state: int, status: SolveStatus) -> Exception:
    name = problem.name_of(state)
    if status == SolveStatus.INFEASIBLE:
        return explain(problem, state) or RuntimeError(
            f"{name}: GLOP found no assignment, but there is one within 1e-6: some constraints can only just be kept"
        )
    return RuntimeError(f"{name}: GLOP ended with {status.name} instead of OPTIMAL (parameters: {PARAMETERS})")
