"""What an optimal assignment hangs on: the worth of places, the regret of alternatives, the margin of the optimum.

Everything follows from one graph per state. Its nodes are the tasks; an edge j -> t costs the least loss, over the
agents of j, of moving one of them to t. One more node, the yard, stands for places that are left over: t -> yard
costs 0 where t has room, yard -> j costs 0 where j holds more agents than it must. A closed walk is an exchange
after which all capacities and lower bounds still hold, and Z is optimal exactly when no closed walk gains. So the best
answer to a change is a shortest path. Shortest paths are found on reduced costs (never negative), with potentials
from the graph itself: they are exact whichever back end solved the problem, and whether or not it returned prices.

Integral capacities and lower bounds only, no extra linear constraints: otherwise a path is not the best answer.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.errors import UserError
from modules.assignment.solution import Assignment, fractional_states

Array = NDArray[np.float64]

# So much may a closed walk gain by rounding and by the solvers' own tolerances: of the largest loss of a move, and of
# the largest score, whose last digits a solver cannot see.
LOSS_ROUNDING, SCORE_ROUNDING = 1e-7, 1e-12


class PlaceValues(NamedTuple):
    """What a place is worth, in units of the scores; V is the optimal value.

    Attributes:
        more: [B, M] V(k_j + 1) - V, the smallest optimal dual price of the capacity; 0 where there is room.
        fewer: [B, M] V - V(k_j - 1), the largest optimal dual price; infinite where the agents need that place.
        required: [B, M] V(l_j - 1) - V, what asking for one agent less at the task is worth; 0 where l_j = 0.
    """

    more: Array
    fewer: Array
    required: Array


class ScoreRange(NamedTuple):
    """Between which values one score may lie, all others fixed, for the assignment to stay optimal.

    Attributes:
        lowest: [B, N, M], minus infinity where the pair is not chosen.
        highest: [B, N, M], infinite where the pair is chosen.
    """

    lowest: Array
    highest: Array


class _Exchanges(NamedTuple):
    """The graph of a batch, K = M + 1 nodes, the yard last.

    Attributes:
        task: [B, N] each agent's task; meaningless for agents that are out.
        loss: [B, N, M] what moving agent i alone to task t costs; infinite where it may not go or is already.
        potential: [B, K].
        reduced: [B, K, K] cost of each edge + potential of its start - potential of its end, not negative.
        full: [B, M] bool, no room at the task.
        tied: [B, M] bool, no agent of the task may leave it without another in its place.
    """

    task: NDArray[np.int64]
    loss: Array
    potential: Array
    reduced: Array
    full: NDArray[np.bool_]
    tied: NDArray[np.bool_]


def place_values(assignment: Assignment) -> PlaceValues:
    """What one more place at each task is worth, what one less costs, and what a lower bound costs.

    Dead tasks get 0.

    Raises:
        UserError: fractional capacities or extra constraints.
        ValueError: the assignment is not optimal.
    """
    graph = _exchanges(assignment)
    problem = assignment.problem
    distance = _distances(graph.reduced) + graph.potential[:, None, :] - graph.potential[:, :, None]
    from_yard, to_yard = distance[:, -1, :-1], distance[:, :-1, -1]
    needed = False if problem.lower is None else problem.lower >= problem.capacity
    fewer = np.where(needed, np.inf, np.maximum(to_yard, 0.0))
    full = graph.full & problem.task_mask
    return PlaceValues(
        np.where(full, np.maximum(-from_yard, 0.0), 0.0),
        np.where(full, fewer, 0.0),
        np.where(graph.tied, np.maximum(-to_yard, 0.0), 0.0),
    )


def regrets(assignment: Assignment) -> Array:
    """[B, N, M] what the best objective loses when agent i must go to task j.

    0 where the optimum sends the agent there (in any optimum, up to rounding), infinite where it cannot go, also for
    agents that are out and for dead tasks. The agent's own pair is exactly 0.

    Raises:
        UserError: fractional capacities or extra constraints.
        ValueError: the assignment is not optimal.
    """
    graph = _exchanges(assignment)
    out = assignment.column < 0
    return np.where(out[:, :, None], np.inf, _regrets(graph))


def score_range(assignment: Assignment) -> ScoreRange:
    """Between which values each score may lie, all others fixed, for the assignment to stay optimal.

    Scores that are no part of the problem may be anything.

    Raises:
        UserError: fractional capacities or extra constraints.
        ValueError: the assignment is not optimal.
    """
    loss, scores = regrets(assignment), assignment.problem.scores
    chosen = assignment.column[:, :, None] == np.arange(scores.shape[2])
    best_other = np.where(chosen, np.inf, loss).min(2, keepdims=True, initial=np.inf)
    counted = np.isfinite(loss)
    known = np.where(counted, scores, 0.0)
    return ScoreRange(np.where(chosen, known - best_other, -np.inf), np.where(counted & ~chosen, known + loss, np.inf))


def margin(assignment: Assignment) -> Array:
    """[B] the largest r such that Z stays optimal however every score changes by at most r.

    Exact: another assignment Z' overtakes Z first when the scores of Z fall and those of Z' rise by r, so
    r = min over Z' of (V - V') / |Z - Z'|_1, where |Z - Z'|_1 is twice the number of agents that move. The difference
    of two assignments is a sum of exchanges, so the least ratio is that of one exchange: half the minimum mean of the
    closed walks, by Karp's algorithm. 0 on ties (up to rounding), infinite where there is no other assignment.

    Raises:
        UserError: fractional capacities or extra constraints.
        ValueError: the assignment is not optimal.
    """
    graph = _exchanges(assignment)
    moves = graph.reduced[:, :-1, :-1]
    to_yard, from_yard = graph.reduced[:, :-1, -1], graph.reduced[:, -1, :-1]
    # A walk through the yard moves nobody: joined to the move before it, so that every edge moves one agent.
    leave = (moves + to_yard[:, None, :]).min(2, initial=np.inf)
    return 0.5 * _least_mean(np.minimum(moves, leave[:, :, None] + from_yard[:, None, :]))


def _exchanges(assignment: Assignment) -> _Exchanges:
    _require_paths(assignment)
    problem, out = assignment.problem, assignment.column < 0
    b, n, m = problem.scores.shape
    task = np.where(out, 0, assignment.column)
    chosen = assignment.column[:, :, None] == np.arange(m)
    may = problem.allowed() & ~chosen & ~out[:, :, None]
    scores = np.where(may | chosen, problem.scores, 0.0)
    loss = np.where(may, np.where(chosen, scores, 0.0).sum(2, keepdims=True) - scores, np.inf)
    edge = np.full((b, m + 1, m + 1), np.inf)
    states = np.arange(b)
    for i in range(n if m else 0):
        edge[states, task[:, i], :m] = np.minimum(edge[states, task[:, i], :m], loss[:, i])
    load = chosen.sum(1)
    full = (load >= problem.capacity) | ~problem.task_mask
    tied = load <= (0.0 if problem.lower is None else problem.lower)
    edge[:, :m, m] = np.where(full, np.inf, 0.0)
    edge[:, m, :m] = np.where(tied, np.inf, 0.0)
    largest = np.abs(scores).max((1, 2), initial=0.0), np.where(may, np.abs(loss), 0.0).max((1, 2), initial=0.0)
    potential = _potentials(edge, SCORE_ROUNDING * largest[0] + LOSS_ROUNDING * largest[1])
    reduced = np.maximum(edge + potential[:, :, None] - potential[:, None, :], 0.0)
    return _Exchanges(task, loss, potential, reduced, full, tied)


def _require_paths(assignment: Assignment) -> None:
    problem = assignment.problem
    if problem.constraints:
        names = ", ".join(repr(constraint.name) for constraint in problem.constraints)
        raise UserError(
            f"the problem has extra constraints ({names}): regrets, margins and values of places are known for "
            "capacities, lower bounds and masks only. Leave the constraints out, or compare solutions of `solve`"
        )
    fractional = fractional_states(problem)
    if fractional.any():
        b = int(np.argmax(fractional))
        raise UserError(
            f"{problem.name_of(b)} has fractional capacities or lower bounds ({problem.capacity[b].tolist()}): "
            "regrets, margins and values of places are known for integral ones only. Round them, or compare solutions "
            "of `solve`"
        )


def _potentials(edge: Array, tolerance: Array) -> Array:
    """[B, K] length of the shortest walk that ends at each node (Bellman and Ford).

    Args:
        edge: [B, K, K].
        tolerance: [B] what a closed walk may gain.

    Raises:
        ValueError: some closed walk gains more.
    """
    b, k, _ = edge.shape
    potential = np.zeros((b, k))
    change = np.zeros(b)
    for _ in range(k + 1):
        through = (potential[:, :, None] + edge).min(1)
        change = (potential - through).max(1)
        if not (change > 0.0).any():
            return potential
        np.minimum(potential, through, out=potential)
    gains = change > tolerance
    if gains.any():
        raise ValueError(f"state {int(np.argmax(gains))}: the assignment is not optimal: an exchange of agents gains")
    return potential


def _distances(reduced: Array) -> Array:
    """[B, K, K] length of the shortest path between two different nodes (Floyd and Warshall)."""
    distance = reduced.copy()
    for k in range(distance.shape[1]):
        np.minimum(distance, distance[:, :, k, None] + distance[:, None, k, :], out=distance)
    return distance


def _regrets(graph: _Exchanges) -> Array:
    """The agent's own move, and the shortest way to fill its place and to make room at its new task."""
    b, _, m = graph.loss.shape
    states = np.arange(b)[:, None]
    back = _distances(graph.reduced).swapaxes(1, 2)[states, graph.task][:, :, :m]
    own = graph.potential[states, graph.task][:, :, None]
    found = np.maximum(graph.loss + own - graph.potential[:, None, :m], 0.0) + back
    stays = ~np.isfinite(graph.loss) & (graph.task[:, :, None] == np.arange(m))
    return np.where(stays, 0.0, found)


def _least_mean(edge: Array) -> Array:
    """[B] the least mean cost of a closed walk, infinite where there is none (Karp).

    Args:
        edge: [B, M, M], not negative.
    """
    b, m, _ = edge.shape
    walks = np.zeros((m + 1, b, m))  # cost of the cheapest walk of s edges that ends at each node
    for s in range(m):
        walks[s + 1] = (walks[s][:, :, None] + edge).min(1)
    longest = walks[m]
    ends = np.isfinite(longest)
    known = np.where(ends, longest, 0.0)
    worst = np.full((b, m), -np.inf)
    for s in range(m):
        np.maximum(worst, (known - walks[s]) / (m - s), out=worst)
    return np.where(ends, np.maximum(worst, 0.0), np.inf).min(1, initial=np.inf)
