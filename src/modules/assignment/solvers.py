"""One interface to all assignment solvers: check, dispatch by name, return an ``Assignment``.

A constraint matrix of agents against tasks is totally unimodular: with integral capacities and lower bounds every
vertex of the LP is 0/1, so an exact assignment solver returns what the simplex method returns (up to ties). With
fractional ones, or with extra constraints, the optimum may be fractional and only the general LP solver is right.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np

from components.errors import UserError
from components.registry import Registry
from modules.assignment.feasibility import check_places
from modules.assignment.problem import AssignmentProblem
from modules.assignment.solution import Assignment, general_states

log = logging.getLogger(__name__)


# Solves a problem, or raises InfeasibleAssignment; pure: a state's answer depends on that state alone.
Solver = Callable[[AssignmentProblem], Assignment]

SOLVERS = Registry("assignment solver")


def solve(problem: AssignmentProblem, solver: str = "auto") -> Assignment:
    """Solves a batch of assignment problems.

    Deterministic, and independent of the order and the size of the batch.

    Args:
        problem: see :func:`modules.assignment.problem.make_problem`.
        solver: ``auto``, ``kernel``, ``lsa``, ``glop`` or ``torch``, see ``SOLVERS``.

    Returns:
        The assignments; ``Assignment.solver`` says which solver was at work.

    Raises:
        InfeasibleAssignment: a state has no assignment; its message says why.
        UserError: the solver is unknown, lacks its package, or cannot handle fractional numbers or constraints.
    """
    chosen: Solver = SOLVERS[solver]
    answer = chosen(problem)
    if problem.idle:
        last = problem.scores.shape[2] - 1
        answer = replace(answer, index=np.where(answer.index == last, -1, answer.index))
    return answer if answer.solver else replace(answer, solver=solver)


def solve_auto(problem: AssignmentProblem) -> Assignment:
    """Picks per state, so that no state's answer depends on its neighbors in the batch.

    The Numba kernel for integral capacities and lower bounds (SciPy when Numba is missing), GLOP for fractional ones
    and for extra constraints.
    """
    general = general_states(problem)
    if not general.any():
        return _solve_exactly(problem)
    by_glop: Solver = SOLVERS["glop"]
    if general.all():
        return replace(by_glop(problem), solver="glop")
    check_places(problem)  # here, since the parts below number their states anew
    return _merge(problem, general, by_glop(problem.take(general)), _solve_exactly(problem.take(~general)))


def _solve_exactly(problem: AssignmentProblem) -> Assignment:
    name = exact_solver()
    exact: Solver = SOLVERS[name]
    return replace(exact(problem), solver=name)


@cache
def exact_solver() -> str:
    """Name of the fastest installed solver for integral capacities."""
    try:
        SOLVERS["kernel"]
    except UserError as error:
        log.warning("%s. Using 'lsa' instead, about 30 times slower", error)
        return "lsa"
    return "kernel"


def _merge(problem: AssignmentProblem, general: np.ndarray, by_glop: Assignment, exact: Assignment) -> Assignment:
    """Puts the two parts of a mixed batch back in order."""
    index = np.empty(problem.agent_mask.shape, np.int64)
    index[general], index[~general] = by_glop.index, exact.index
    shares = np.empty(problem.scores.shape)
    shares[general], shares[~general] = by_glop.z, exact.z
    price = None
    if by_glop.price is not None and exact.price is not None:
        price = np.empty(problem.capacity.shape)
        price[general], price[~general] = by_glop.price, exact.price
    return Assignment(problem, index, price, shares, f"{exact.solver}+glop")


SOLVERS.add("auto", solve_auto)
SOLVERS.add("kernel", "modules.assignment.kernel:solve_kernel", package="numba")
SOLVERS.add("lsa", "modules.assignment.lsa:solve_lsa")
SOLVERS.add("glop", "modules.assignment.glop:solve_glop", package="ortools")
SOLVERS.add("torch", "modules.assignment.torch_solver:solve_torch", package="torch")
