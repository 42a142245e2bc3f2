"""Whether a state has an assignment at all, and if not, why, in terms that can be checked by hand.

Places and lower bounds: by Hall's theorem (in Hoffman's form for both bounds) an assignment exists unless some
agents may go to tasks with too few places only, or some tasks need more agents than may go there, or a lower bound
exceeds its capacity. Counting decides all three unless pairs are forbidden; then a greedy placement settles most
states and a maximal flow the rest, whose minimal cut is the certificate. Extra constraints: the linear program with
the least total amount by which they must give way.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from modules.assignment.hall import CAPACITY_TOLERANCE, hall_violator
from modules.assignment.problem import AssignmentProblem

Array = NDArray[Any]

# HiGHS keeps rows to 1e-7; less than this is no violation of an extra constraint (times the size of its bound).
CONSTRAINT_TOLERANCE = 1e-6
# So many agents or tasks are named in a message; the certificate has them all.
LISTED = 12
# A constraint as rows of the form "at most": the signs they take.
SIGNS = {"<=": (1.0,), ">=": (-1.0,), "=": (1.0, -1.0)}


@dataclass(frozen=True)
class Certificate:
    """Why a state has no assignment.

    Attributes:
        kind: ``places``: ``agents`` may go to ``tasks`` only, whose capacities sum to ``missing`` less than the number
            of these agents. ``agents``: the lower bounds of ``tasks`` sum to ``missing`` more than the number of
            ``agents``, and nobody else may go there. ``bounds``: the lower bound of the task exceeds its capacity by
            ``missing``. ``constraints``: see ``relief``.
        state: flat number of the state.
        agents: living agents.
        tasks: living tasks.
        missing: number of places, or of agents.
        relief: of each extra constraint that must give way, by how much, in the way that is least in sum.
    """

    kind: Literal["places", "agents", "bounds", "constraints"]
    state: int
    agents: tuple[int, ...] = ()
    tasks: tuple[int, ...] = ()
    missing: float = 0.0
    relief: dict[str, float] = field(default_factory=dict)


class InfeasibleAssignment(ValueError):
    """A state has living tasks, but no assignment.

    Attributes:
        certificate: why.
    """

    def __init__(self, message: str, certificate: Certificate) -> None:
        super().__init__(message)
        self.certificate = certificate


def check_feasible(problem: AssignmentProblem) -> None:
    """Refuses a batch in which a state with living tasks has no assignment.

    With extra constraints this solves one LP per state.

    Raises:
        InfeasibleAssignment: explains the first such state.
    """
    check_places(problem)
    if problem.constraints:
        for state in np.flatnonzero(problem.task_mask.any(1)):
            error = _explain_constraints(problem, int(state))
            if error is not None:
                raise error


def check_places(problem: AssignmentProblem) -> None:
    """:func:`check_feasible` without the extra constraints; cheap.

    Raises:
        InfeasibleAssignment: explains the first infeasible state.
    """
    for state in np.flatnonzero(_suspects(problem)):
        error = _explain_places(problem, int(state))
        if error is not None:
            raise error


def explain(problem: AssignmentProblem, state: int) -> InfeasibleAssignment | None:
    """The error that says why a state has no assignment; None if it has one."""
    if not problem.task_mask[state].any():
        return None
    return _explain_places(problem, state) or _explain_constraints(problem, state)


def _suspects(problem: AssignmentProblem) -> NDArray[np.bool_]:
    """[B] states that may be infeasible: exactly those that are, if no pairs are forbidden."""
    living = problem.agent_mask.sum(1)
    suspects = np.where(problem.task_mask, problem.capacity, 0.0).sum(1) < living - CAPACITY_TOLERANCE
    if problem.lower is not None:
        suspects |= problem.lower.sum(1) > living + CAPACITY_TOLERANCE
        suspects |= (problem.lower > problem.capacity + CAPACITY_TOLERANCE).any(1)
    if problem.pair_mask is not None:
        allowed = problem.allowed()
        suspects |= ~_places_all(allowed, problem.capacity, problem.agent_mask)
        if problem.lower is not None:
            suspects |= ~_fills_all(allowed, problem.lower)
    return suspects & problem.task_mask.any(1)


def _places_all(allowed: Array, capacity: Array, agent_mask: Array) -> NDArray[np.bool_]:
    """[B] whether placing one agent after the other, the choosiest first, finds a place for everybody."""
    room = np.where(allowed.any(1), capacity, 0.0)
    placed = np.zeros(len(allowed), np.int64)
    for options in _choosiest_first(allowed):
        placed += _put(room, options, room >= 1.0)
    return np.asarray(placed == agent_mask.sum(1))


def _fills_all(allowed: Array, lower: Array) -> NDArray[np.bool_]:
    """[B] whether sending one agent after the other to the neediest task, the choosiest first, fills all bounds."""
    need = lower.copy()
    for options in _choosiest_first(allowed):
        _put(need, options, need > 0.0)
    return np.asarray((need <= 0.0).all(1))


def _choosiest_first(allowed: Array) -> Array:
    """[N, B, M] the allowed tasks of each state's agents, those with the fewest first."""
    order = allowed.sum(2).argsort(1, kind="stable")
    return np.take_along_axis(allowed, order[:, :, None], 1).swapaxes(0, 1)


def _put(left: Array, options: Array, usable: Array) -> Array:
    """One agent per state takes a unit of the task with the most ``left``, in place; [B] whether it could."""
    if left.shape[1] == 0:
        return np.zeros(len(left), np.bool_)
    able = options & usable
    chosen = np.where(able, left, -np.inf).argmax(1)
    took: Array = np.asarray(able.any(1))
    left[np.flatnonzero(took), chosen[took]] -= 1.0
    return took


def _explain_places(problem: AssignmentProblem, state: int) -> InfeasibleAssignment | None:
    allowed = problem.take(np.array([state])).allowed()[0]
    capacity = np.where(problem.task_mask[state], problem.capacity[state], 0.0)
    living = problem.agent_mask[state].astype(np.float64)
    if problem.lower is not None:
        over = np.flatnonzero(problem.lower[state] > capacity + CAPACITY_TOLERANCE)
        if len(over):
            return _contradiction(problem, state, int(over[0]), float(problem.lower[state, over[0]]))
    short = hall_violator(allowed, living, capacity)
    if short is not None:
        return _short_of_places(problem, state, *short)
    if problem.lower is not None:
        needy = hall_violator(allowed.T, problem.lower[state], living)
        if needy is not None:
            return _short_of_agents(problem, state, *needy, float(problem.lower[state, needy[0]].sum()))
    return None


def _contradiction(problem: AssignmentProblem, state: int, task: int, lower: float) -> InfeasibleAssignment:
    capacity = float(problem.capacity[state, task])
    message = f"living task {task} must get at least l = {lower:g} agents, but has k = {capacity:g} places"
    certificate = Certificate("bounds", state, tasks=(task,), missing=lower - capacity)
    return InfeasibleAssignment(f"{_place(problem, state)}: {message}. Lower the one or raise the other", certificate)


def _short_of_places(
    problem: AssignmentProblem, state: int, agents: list[int], tasks: list[int], missing: float
) -> InfeasibleAssignment:
    places, living = float(problem.capacity[state, tasks].sum()), int(problem.agent_mask[state].sum())
    if problem.pair_mask is None:
        message = (
            f"{living} living agents, but {len(tasks)} living tasks with sum k = {places:g} places. Each agent needs a "
            f"place: raise the capacities until sum k >= {living}, or choose the capacity rule 'relax'"
        )
    elif not tasks:
        message = (
            f"{_list('living agent', agents)} may go to no living task. Allow other pairs, "
            "or choose the capacity rule 'idle'"
        )
    else:
        message = (
            f"{_list('living agent', agents)} may go to {_list('living task', tasks)} only. These have sum k = "
            f"{places:g} places for {_count(len(agents), 'agent')}: {missing:g} missing. Raise these capacities, allow "
            "other pairs, or choose the capacity rule 'idle'"
        )
    certificate = Certificate("places", state, tuple(agents), tuple(tasks), missing)
    return InfeasibleAssignment(f"{_place(problem, state)}: {message}", certificate)


def _short_of_agents(
    problem: AssignmentProblem, state: int, tasks: list[int], agents: list[int], missing: float, need: float
) -> InfeasibleAssignment:
    who = f"only {_list('living agent', agents)} may go there" if agents else "no living agent may go there"
    message = (
        f"{_list('living task', tasks)} must get at least sum l = {need:g} agents, but {who}: {missing:g} missing. "
        "Lower these bounds" + ("" if problem.pair_mask is None else ", or allow other pairs")
    )
    certificate = Certificate("agents", state, tuple(agents), tuple(tasks), missing)
    return InfeasibleAssignment(f"{_place(problem, state)}: {message}", certificate)


def _explain_constraints(problem: AssignmentProblem, state: int) -> InfeasibleAssignment | None:
    relief = _least_relief(problem, state) if problem.constraints else {}
    if not relief:
        return None
    bounds = {constraint.name: constraint.of(state)[1] for constraint in problem.constraints}
    parts = "; ".join(f"{name!r} (bound {bounds[name]:g}) by {amount:g}" for name, amount in relief.items())
    message = f"no assignment keeps all extra constraints. At least these must give way: {parts}"
    return InfeasibleAssignment(
        f"{_place(problem, state)}: {message}", Certificate("constraints", state, relief=relief)
    )


def _least_relief(problem: AssignmentProblem, state: int) -> dict[str, float]:
    """Constraint name -> by how much it gives way in the LP that keeps the least total; only those that do."""
    one = problem.take(np.array([state]))
    agents, tasks = np.nonzero(one.allowed()[0])
    if not problem.constraints:
        return {}
    if not len(agents):  # nobody to assign: every sum is 0
        unmet = {
            constraint.name: float(constraint.violation(np.zeros_like(one.scores))[0]) for constraint in one.constraints
        }
        return {name: amount for name, amount in unmet.items() if amount > CONSTRAINT_TOLERANCE}
    n, m = one.scores.shape[1:]
    each_agent, each_task = (np.arange(n)[:, None] == agents) * 1.0, (np.arange(m)[:, None] == tasks) * 1.0
    soft = [(k, sign) for k, one_of in enumerate(one.constraints) for sign in SIGNS[one_of.sense]]
    weights = np.array([sign * one.constraints[k].of(0)[0][agents, tasks] for k, sign in soft])
    bound = np.array([sign * one.constraints[k].of(0)[1] for k, sign in soft])
    hard = [each_task] if one.lower is None else [each_task, -each_task]
    limits = [np.minimum(one.capacity[0], n)] if one.lower is None else [np.minimum(one.capacity[0], n), -one.lower[0]]
    rows = np.vstack(hard)
    result = linprog(
        np.r_[np.zeros(len(agents)), np.ones(len(soft))],
        A_ub=np.block([[rows, np.zeros((len(rows), len(soft)))], [weights, -np.eye(len(soft))]]),
        b_ub=np.concatenate([*limits, bound]),
        A_eq=np.hstack([each_agent[one.agent_mask[0]], np.zeros((int(one.agent_mask[0].sum()), len(soft)))]),
        b_eq=np.ones(int(one.agent_mask[0].sum())),
        method="highs",
    )
    if result.status != 0:
        raise RuntimeError(f"{problem.name_of(state)}: HiGHS could not relax the extra constraints: {result.message}")
    relief: dict[str, float] = {}
    for (k, _), amount, limit in zip(soft, result.x[len(agents) :], bound, strict=True):
        if amount > CONSTRAINT_TOLERANCE * max(1.0, abs(limit)):
            relief[one.constraints[k].name] = float(amount)
    return relief


def _list(what: str, numbers: Sequence[int]) -> str:
    listed = ", ".join(map(str, numbers[:LISTED]))
    rest = f", ... ({len(numbers)} in all)" if len(numbers) > LISTED else ""
    return f"{what}{'s' if len(numbers) > 1 else ''} {listed}{rest}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _place(problem: AssignmentProblem, state: int) -> str:
    return f"{problem.name_of(state)} of {len(problem.scores)}"
