"""Random assignment LPs that have a solution, and what a solution is checked by: SciPy's HiGHS and the dual.

Shape legend: B states, N agents, M tasks.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from modules.assignment import AssignmentProblem, LinearConstraint, make_problem

SHAPES = [(1, 1), (2, 3), (5, 3), (4, 6), (7, 5), (6, 1), (12, 4)]


def random_problem(
    rng: np.random.Generator,
    states: int,
    n: int,
    m: int,
    ties: bool = False,
    pairs: bool = False,
    bounds: bool = False,
) -> AssignmentProblem:
    """Tight and slack capacities, zero capacities, dead agents and tasks, all around the loads of some assignment."""
    agents, tasks = rng.random((states, n)) > 0.2, rng.random((states, m)) > 0.2
    tasks[np.arange(states), rng.integers(0, m, states)] = True
    start = some_assignment(rng, agents, tasks)
    load = start.sum(1)
    capacity = load + rng.integers(0, 2, (states, m)) * rng.integers(0, 2, (states, 1))
    allowed = start | (rng.random((states, n, m)) > 0.4) if pairs else np.ones(start.shape, np.bool_)
    lower = np.maximum(load - rng.integers(0, 2, (states, m)), 0) if bounds else None
    scores = rng.integers(-2, 3, (states, n, m)).astype(float) if ties else rng.normal(size=(states, n, m))
    scores[~(agents[:, :, None] & tasks[:, None, :] & allowed)] = np.nan
    return make_problem(scores, capacity, agents, tasks, allowed if pairs else None, lower)


def some_assignment(rng: np.random.Generator, agents: NDArray, tasks: NDArray) -> NDArray:
    """[B, N, M] bool, each living agent at any living task."""
    chosen = np.where(tasks[:, None, :], rng.random((*agents.shape, tasks.shape[1])), -1.0).argmax(2)
    return (chosen[:, :, None] == np.arange(tasks.shape[1])) & agents[:, :, None]


def general_problem(rng: np.random.Generator, states: int, n: int, m: int) -> AssignmentProblem:
    """The same with fractional numbers, and with a constraint of each sense that some solution keeps."""
    problem = random_problem(rng, states, n, m, pairs=True, bounds=True)
    # A mixture of two assignments lies within bounds that hold the loads of both.
    own = np.where(problem.allowed(), np.nan_to_num(problem.scores), -9.0).argmax(2)
    z = 0.3 * (own[:, :, None] == np.arange(m)) * problem.allowed().any(2)[:, :, None]
    z = z + 0.7 * some_solution(problem)
    load = z.sum(1)
    weights = rng.normal(size=(3, states, n, m)) * 10.0 ** rng.integers(-3, 4, (3, 1, 1, 1))
    bound = (weights * z).sum((2, 3))
    size = np.abs(weights).max((1, 2, 3))
    return replace(
        problem,
        capacity=load + 0.2,
        lower=np.maximum(load - 0.1, 0.0),
        constraints=(
            LinearConstraint("at most", weights[0], bound[0] + 0.1 * size[0], "<="),
            LinearConstraint("at least", weights[1, 0], (weights[1, 0] * z).sum((1, 2)) - 0.1 * size[1], ">="),
            LinearConstraint("exactly", weights[2], bound[2], "="),
        ),
    )


def some_solution(problem: AssignmentProblem) -> NDArray:
    """[B, N, M] a solution of a problem of :func:`random_problem`, by SciPy's HiGHS."""
    return np.stack([highs(problem, b)[1] for b in range(len(problem.scores))])


def optimum(problem: AssignmentProblem) -> NDArray:
    """[B] the best objective, by SciPy's HiGHS."""
    return np.array([highs(problem, b)[0] for b in range(len(problem.scores))])


def highs(problem: AssignmentProblem, b: int) -> tuple[float, NDArray]:
    """Best objective and z [N, M] of state b."""
    _, n, m = problem.scores.shape
    agents = problem.agent_mask[b] & problem.task_mask[b].any()
    scores = np.where(problem.allowed()[b], problem.scores[b], 0.0)
    scale = np.abs(scores).max() or 1.0
    places = np.kron(np.ones((1, n)), np.eye(m))
    at_most, limits = [places], [np.where(problem.task_mask[b], np.minimum(problem.capacity[b], n), 0.0)]
    exactly, sums = [np.kron(np.eye(n), np.ones((1, m)))], [agents.astype(float)]
    if problem.lower is not None and agents.any():
        at_most.append(-places)
        limits.append(-problem.lower[b])
    for constraint in problem.constraints:
        weights, bound = constraint.of(b)
        size = np.abs(weights).max()
        if constraint.sense == "=":
            exactly.append(weights.reshape(1, -1) / size)
            sums.append(np.array([bound / size]))
        else:
            sign = 1.0 if constraint.sense == "<=" else -1.0
            at_most.append(sign * weights.reshape(1, -1) / size)
            limits.append(np.array([sign * bound / size]))
    result = linprog(
        -scores.ravel() / scale,
        A_ub=np.vstack(at_most),
        b_ub=np.concatenate(limits),
        A_eq=np.vstack(exactly),
        b_eq=np.concatenate(sums),
        bounds=[(0.0, float(allowed)) for allowed in problem.allowed()[b].ravel()],
        method="highs-ds",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    assert result.status == 0, result.message
    return -result.fun * scale, result.x.reshape(n, m)


def dual_objective(problem: AssignmentProblem, price: NDArray) -> NDArray:
    """[B] an upper bound of the objective without extra constraints; equal to it, it proves the optimum."""
    allowed = problem.allowed()
    net = np.where(allowed, problem.scores - price[:, None, :], -np.inf).max(2, initial=-np.inf)
    lower = 0.0 if problem.lower is None else problem.lower
    capacity = np.where(price > 0.0, problem.capacity, 0.0)
    places = np.where(problem.task_mask, capacity * np.maximum(price, 0.0) - lower * np.maximum(-price, 0.0), 0.0)
    return np.where(allowed.any(2), net, 0.0).sum(1) + places.sum(1)


def violation(problem: AssignmentProblem, z: NDArray) -> float:
    """The largest amount by which z [B, N, M] breaks anything; of extra constraints relative to their weights."""
    living = problem.agent_mask & problem.task_mask.any(1, keepdims=True)
    faults = [np.abs(z.sum(2) - living), (z.sum(1) - problem.capacity) * problem.task_mask, -z, z * ~problem.allowed()]
    if problem.lower is not None:
        faults.append(problem.lower - z.sum(1))
    faults += [constraint.violation(z) / np.abs(constraint.weights).max() for constraint in problem.constraints]
    return max(float(fault.max(initial=0.0)) for fault in faults)
