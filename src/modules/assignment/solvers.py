"""One interface to all assignment solvers: check, dispatch by name, return an ``Assignment``.

A constraint matrix of agents against tasks is totally unimodular: with integral capacities every vertex of the
LP is 0/1, so an exact assignment solver returns what the simplex method returns (up to ties). With fractional
capacities the optimum may be fractional and only the general LP solver is right.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import numpy as np

from components.errors import UserError
from components.registry import Registry
from modules.assignment.problem import AssignmentProblem, check_feasible
from modules.assignment.solution import Assignment, fractional_states

log = logging.getLogger(__name__)


# Solves a checked problem; pure: a state's answer depends on that state alone.
Solver = Callable[[AssignmentProblem], Assignment]

SOLVERS = Registry("assignment solver")


def solve(problem: AssignmentProblem, solver: str = "auto") -> Assignment:
    """Solves a batch of assignment problems.

    Deterministic, and independent of the order and the size of the batch.

    Args:
        problem: see :func:`modules.assignment.problem.make_problem`.
        solver: ``auto``, ``kernel``, ``lsa`` or ``glop``, see ``SOLVERS``.

    Raises:
        InfeasibleAssignment: a state has fewer places than living agents.
        UserError: the solver is unknown, lacks its package, or cannot handle fractional capacities.
    """
    chosen: Solver = SOLVERS[solver]
    check_feasible(problem)
    return chosen(problem)


def solve_auto(problem: AssignmentProblem) -> Assignment:
    """Picks per state, so that no state's answer depends on its neighbors in the batch.

    The Numba kernel for integral capacities (SciPy when Numba is missing), GLOP for fractional ones.
    """
    fractional = fractional_states(problem)
    if not fractional.any():
        exact: Solver = SOLVERS[exact_solver()]
        return exact(problem)
    general: Solver = SOLVERS["glop"]
    if fractional.all():
        return general(problem)
    exact = SOLVERS[exact_solver()]
    return _merge(problem, fractional, general(problem.take(fractional)), exact(problem.take(~fractional)))


@cache
def exact_solver() -> str:
    """Name of the fastest installed solver for integral capacities."""
    try:
        SOLVERS["kernel"]
    except UserError as error:
        log.warning("%s. Using 'lsa' instead, about 30 times slower", error)
        return "lsa"
    return "kernel"


def _merge(problem: AssignmentProblem, fractional: np.ndarray, general: Assignment, exact: Assignment) -> Assignment:
    """Puts the two parts of a mixed batch back in order."""
    index = np.empty(problem.agent_mask.shape, np.int64)
    index[fractional], index[~fractional] = general.index, exact.index
    shares = np.empty(problem.scores.shape)
    shares[fractional], shares[~fractional] = general.z, exact.z
    if general.price is None or exact.price is None:
        return Assignment(problem, index, None, shares)
    price = np.empty(problem.capacity.shape)
    price[fractional], price[~fractional] = general.price, exact.price
    return Assignment(problem, index, price, shares)


SOLVERS.add("auto", solve_auto)
SOLVERS.add("kernel", "modules.assignment.kernel:solve_kernel", package="numba")
SOLVERS.add("lsa", "modules.assignment.lsa:solve_lsa")
SOLVERS.add("glop", "modules.assignment.glop:solve_glop", package="ortools")
