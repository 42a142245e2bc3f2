"""Exact batch solver for the assignment LP with integral capacities, compiled with Numba.

Successive shortest paths over the M task nodes. Every agent starts at its best task. While a task holds more
agents than its capacity, one Dijkstra search finds the cheapest chain of moves from it to a task with room;
one agent moves along each edge of the chain and the prices of the tasks passed rise. An edge j -> t costs the
least loss, over the agents of j, of moving from j to t at the present prices. The prices start at 0 and rise no
further than needed: at the end they are an optimal solution of the dual, so they certify the assignment.

A forbidden pair has the score -inf, which no move can prefer. Lower bounds are a second phase of their own
(:mod:`modules.assignment.lower_bounds`).

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numba import config, njit
from numpy.typing import NDArray

from modules.assignment.feasibility import check_places
from modules.assignment.lower_bounds import fill_lower
from modules.assignment.problem import AssignmentProblem
from modules.assignment.solution import Assignment, require_integral

Array = NDArray[Any]

# A score costs about 10 ns of work; less than about a millisecond of it is not worth a thread.
SCORES_PER_THREAD = 100_000

# Inlined before compiling: a call that passes nine arrays costs more than the work it does at small N and M.
inlined = njit(inline="always", error_model="numpy")


class Scratch(NamedTuple):
    """Working memory that all states of a batch share; one entry per task unless said otherwise.

    Attributes:
        reach: distance from the source minus price: a whole row is relaxed without looking at prices.
        bar: the price, or infinity for a dead task and, during a search, for a settled one: no test for "done".
        base: ``reach`` of the settled tasks, in the order of settling; so ``distance`` and ``old_price``.
        distance: distance of the settled tasks.
        old_price: price of the settled tasks before the search.
        order: the settled tasks.
        head: first agent of each task's linked list, -1 at its end.
        room: free places, negative when over-full.
        follow: [N] next agent of the same task.
    """

    reach: Array
    bar: Array
    base: Array
    distance: Array
    old_price: Array
    order: Array
    head: Array
    room: Array
    follow: Array


@inlined
def _seat_at_best(b: int, scores: Array, agent_mask: Array, work: Scratch, index: Array) -> None:
    """Gives each living agent its best task (lowest index on ties) and links the agents of each task."""
    n, m = scores.shape[1:]
    bar, head, room, follow = work.bar, work.head, work.room, work.follow
    for i in range(n):
        best, chosen = -np.inf, 0
        for t in range(m):
            value = scores[b, i, t] - bar[t]
            if value > best:
                best, chosen = value, t
        index[b, i] = chosen
    for i in range(n):
        if agent_mask[b, i]:
            chosen = index[b, i]
            follow[i] = head[chosen]
            head[chosen] = i
            room[chosen] -= 1
        else:
            index[b, i] = -1


@inlined
def _search(b: int, scores: Array, source: int, work: Scratch) -> tuple[int, int, float]:
    """Dijkstra from an over-full task to the nearest one with room.

    Returns:
        The number of settled tasks (listed in ``work.order``), the target (-1: none), and its distance.
    """
    m = scores.shape[2]
    reach, bar, head, room, follow = work.reach, work.bar, work.head, work.room, work.follow
    order, base, distance, old_price = work.order, work.base, work.distance, work.old_price
    for t in range(m):
        reach[t] = np.inf
    j, start, length, count = source, -bar[source], 0.0, 0
    while True:
        order[count], base[count], distance[count], old_price[count] = j, start, length, bar[j]
        count += 1
        bar[j] = np.inf
        i = head[j]
        while i >= 0:
            here = start + scores[b, i, j]
            for t in range(m):
                there = here - scores[b, i, t]
                reach[t] = there if there < reach[t] else reach[t]
            i = follow[i]
        length, j = np.inf, -1
        for t in range(m):
            candidate = reach[t] + bar[t]
            if candidate < length:
                length, j = candidate, t
        if j < 0 or room[j] > 0:
            return count, j, length
        start = reach[j]


@inlined
def _shift(b: int, scores: Array, target: int, count: int, work: Scratch, index: Array) -> None:
    """Moves one agent along each edge of the shortest path, found backwards from the target."""
    head, follow, order, base = work.head, work.follow, work.order, work.base
    while count > 0:
        best, rank, mover, before = np.inf, 0, -1, -1
        for r in range(count):
            j, previous = order[r], -1
            i = head[j]
            while i >= 0:
                cost = base[r] + scores[b, i, j] - scores[b, i, target]
                if cost < best:
                    best, rank, mover, before = cost, r, i, previous
                previous = i
                i = follow[i]
        j = order[rank]
        if before < 0:
            head[j] = follow[mover]
        else:
            follow[before] = follow[mover]
        follow[mover] = head[target]
        head[target] = mover
        index[b, mover] = target
        target, count = j, rank


@inlined
def _empty_overfull(b: int, scores: Array, work: Scratch, index: Array) -> bool:
    """Moves agents out of over-full tasks, one shortest path each; False if no task with room can be reached."""
    bar, room, order = work.bar, work.room, work.order
    distance, old_price = work.distance, work.old_price
    for source in range(scores.shape[2]):
        while room[source] < 0:
            count, target, length = _search(b, scores, source, work)
            for r in range(count):
                bar[order[r]] = old_price[r] + max(length - distance[r], 0.0)
            if target < 0:
                return False
            _shift(b, scores, target, count, work, index)
            room[source] += 1
            room[target] -= 1
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _solve_all(
    scores: Array, capacity: Array, agent_mask: Array, task_mask: Array, index: Array, price: Array, feasible: Array
) -> None:  # fmt: skip
    n_states, n, m = scores.shape
    work = Scratch(
        np.empty(m), np.empty(m), np.empty(m), np.empty(m), np.empty(m), np.empty(m, np.int64),
        np.empty(m, np.int64), np.empty(m, np.int64), np.empty(n, np.int64),
    )  # fmt: skip
    bar, room, head = work.bar, work.room, work.head
    for b in range(n_states):
        living = 0
        for t in range(m):
            live = task_mask[b, t]
            living += live
            bar[t] = 0.0 if live else np.inf
            room[t] = min(capacity[b, t], n) if live else 0
            head[t] = -1
        if living == 0:
            continue
        _seat_at_best(b, scores, agent_mask, work, index)
        feasible[b] = _empty_overfull(b, scores, work, index)
        for t in range(m):
            price[b, t] = bar[t] if task_mask[b, t] else 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _states_with_a_stuck_agent(pair_mask: Array, agent_mask: Array, task_mask: Array) -> Array:
    """[B] states with a living agent that may go to no living task, so that it has no best task to start at."""
    n_states, n, m = pair_mask.shape
    stuck = np.zeros(n_states, np.bool_)
    for b in range(n_states):
        if not task_mask[b].any():
            continue
        for i in range(n):
            placed = not agent_mask[b, i]
            for t in range(m):
                placed |= pair_mask[b, i, t] & task_mask[b, t]
            stuck[b] |= not placed
    return stuck


def solve_batch(
    scores: Array,
    capacity: Array,
    agent_mask: Array,
    task_mask: Array,
    pair_mask: Array | None = None,
    lower: Array | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """Solves ``max sum c_ij z_ij, sum_j z_ij = 1, l_j <= sum_i z_ij <= k_j, z >= 0`` for each state of a batch.

    Large batches are split over up to ``NUMBA_NUM_THREADS`` threads, which changes no result.

    Args:
        scores: c, [B, N, M] float64; entries of allowed pairs of living agents and tasks must be finite.
        capacity: k, [B, M] int64, not negative.
        agent_mask: [B, N] bool, living agents.
        task_mask: [B, M] bool, living tasks.
        pair_mask: [B, N, M] bool, allowed pairs; None: all.
        lower: l, [B, M] int64, not negative, 0 for dead tasks; None: 0.

    Returns:
        index: [B, N], each agent's task; -1 for dead agents and where no task lives.
        price: [B, M], the least optimal dual prices, what one more unit of capacity is worth; negative prices, what
            the lower bound costs, see :mod:`modules.assignment.lower_bounds`; 0 for dead tasks.
        feasible: [B]; where False, index and price of that state mean nothing.
    """
    n_states, n, m = scores.shape
    index = np.full((n_states, n), -1, np.int64)
    price = np.zeros((n_states, m))
    feasible = np.ones(n_states, np.bool_)
    stuck = None
    if pair_mask is not None:
        scores = np.where(pair_mask, scores, -np.inf)
        stuck = _states_with_a_stuck_agent(pair_mask, agent_mask, task_mask)
        agent_mask = agent_mask & ~stuck[:, None]
    arrays = scores, capacity, agent_mask, task_mask, lower, index, price, feasible
    threads: int = config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    workers = min(threads, n_states, scores.size // SCORES_PER_THREAD)
    if workers > 1:
        cuts = np.linspace(0, n_states, workers + 1).astype(int)
        parts = [[None if x is None else x[a:b] for x in arrays] for a, b in pairwise(cuts)]
        # New threads each time: those of a kept pool would be missing after a fork, and waited for without end.
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda part: _solve_part(*part), parts))
    else:
        _solve_part(*arrays)
    if stuck is not None:
        feasible &= ~stuck
    return index, price, feasible


def _solve_part(
    scores: Array, capacity: Array, agents: Array, tasks: Array, lower: Array | None,
    index: Array, price: Array, feasible: Array,
) -> None:  # fmt: skip
    _solve_all(scores, capacity, agents, tasks, index, price, feasible)
    if lower is not None:
        fill_lower(scores, capacity, lower, tasks, index, price, feasible)


def solve_kernel(problem: AssignmentProblem) -> Assignment:
    """The kernel behind the common solver interface.

    Raises:
        UserError: a capacity or lower bound is fractional, or there are extra constraints.
        InfeasibleAssignment: a state has no assignment.
    """
    require_integral(problem, "kernel")
    n = problem.scores.shape[1]
    places = np.minimum(problem.capacity, n).astype(np.int64)
    lower = None if problem.lower is None else np.minimum(problem.lower, n + 1).astype(np.int64)
    index, price, feasible = solve_batch(
        problem.scores, places, problem.agent_mask, problem.task_mask, problem.pair_mask, lower
    )
    if not feasible.all():
        check_places(problem)
        raise RuntimeError(f"the kernel found {problem.name_of(int(np.argmin(feasible)))} infeasible, which it is not")
    return Assignment(problem, index, price, solver="kernel")
