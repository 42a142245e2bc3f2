"""Second phase of the kernel: pulls agents into tasks below their lower bound, compiled with Numba.

It starts from an optimal assignment and prices for the capacities alone. As long as a task is below its bound, one
Dijkstra search finds for each task the cheapest chain of moves that brings it one more agent and starts at a task
that has an agent to spare; the chain to the first task in need is carried out. An edge j -> t costs the least loss,
over the agents of j, of moving from j to t.

Prices: p_j = u_j - w_j with the dual u_j of the capacity and w_j of the lower bound. The u_j returned are the least
optimal ones, what one more place is worth; given these, the w_j are the least ones, and tasks without a bound have
w_j = 0. Optimal prices form a lattice, so both exist: the least prices come from the search itself, the greatest
prices below max(least, 0) from one more search in the other direction.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]


class Moves(NamedTuple):
    """Working memory that all states of a batch share.

    Attributes:
        edge: [M, M] least loss of moving an agent from a task (row) to another (column); infinite if none can.
        mover: [M, M] the agent that loses least.
        distance: [M] what Dijkstra finds.
        parent: [M] task before this one on the shortest path, -1 at its start.
        done: [M] settled.
        load: [M] agents at each task.
    """

    edge: Array
    mover: Array
    distance: Array
    parent: Array
    done: Array
    load: Array


@njit(cache=True, nogil=True, error_model="numpy")
def _find_edges(scores: Array, index: Array, work: Moves) -> None:
    edge, mover = work.edge, work.mover
    edge[:] = np.inf
    mover[:] = -1
    for i in range(len(index)):
        j = index[i]
        if j < 0:
            continue
        for t in range(scores.shape[1]):
            loss = scores[i, j] - scores[i, t]
            if loss < edge[j, t]:
                edge[j, t], mover[j, t] = loss, i


@njit(cache=True, nogil=True, error_model="numpy")
def _dijkstra(edge: Array, potential: Array, live: Array, work: Moves) -> None:
    """Distances at reduced lengths edge + potential(head) - potential(tail) from the starts in ``work.distance``."""
    distance, parent, done = work.distance, work.parent, work.done
    parent[:] = -1
    done[:] = ~live
    while True:
        length, j = np.inf, -1
        for t in range(len(distance)):
            if not done[t] and distance[t] < length:
                length, j = distance[t], t
        if j < 0:
            return
        done[j] = True
        for t in range(len(distance)):
            there = length + max(edge[j, t] + potential[t] - potential[j], 0.0)
            if not done[t] and there < distance[t]:
                distance[t], parent[t] = there, j


@njit(cache=True, nogil=True, error_model="numpy")
def _lower_prices(scores: Array, lower: Array, live: Array, index: Array, price: Array, work: Moves) -> None:
    """Lowers all prices to the least optimal ones; those of tasks where nobody more can come to 0 or below.

    The price of a task with an agent to spare may fall to 0, any other to what the price of a task from which an
    agent can come allows. Below 0 without a lower bound it comes to 0 again in the end: such a task is empty.
    """
    _find_edges(scores, index, work)
    distance = work.distance
    for t in range(len(live)):
        distance[t] = max(price[t], 0.0) if live[t] and work.load[t] > lower[t] else np.inf
    _dijkstra(work.edge, price, live, work)
    rest = 0.0
    for t in range(len(live)):
        if live[t]:
            rest = max(rest, price[t] if distance[t] == np.inf else distance[t])
    for t in range(len(live)):
        if live[t]:
            price[t] -= min(distance[t], rest)


@njit(cache=True, nogil=True, error_model="numpy")
def _raise_prices(live: Array, price: Array, work: Moves) -> None:
    """From the least optimal prices to the greatest ones below max(least, 0), or below 0 where nobody more can come."""
    unreached = work.distance == np.inf
    for t in range(len(live)):
        work.distance[t] = max(-price[t], 0.0) if live[t] else np.inf
        if unreached[t] and live[t]:
            work.distance[t] = -price[t]
    _dijkstra(work.edge.T, -price, live, work)
    for t in range(len(live)):
        if live[t]:
            price[t] += work.distance[t]


@njit(cache=True, nogil=True, error_model="numpy")
def _fill_one(
    scores: Array, capacity: Array, lower: Array, live: Array, index: Array, price: Array, work: Moves
) -> bool:
    load = work.load
    load[:] = 0
    for j in index:
        if j >= 0:
            load[j] += 1
    for t in range(len(live)):
        if live[t] and lower[t] > capacity[t]:
            return False
    for needy in range(len(live)):
        while live[needy] and load[needy] < lower[needy]:
            _lower_prices(scores, lower, live, index, price, work)
            if work.distance[needy] == np.inf:
                return False
            t = needy
            while work.parent[t] >= 0:
                index[work.mover[work.parent[t], t]] = t
                t = work.parent[t]
            load[t] -= 1
            load[needy] += 1
    _lower_prices(scores, lower, live, index, price, work)
    _raise_prices(live, price, work)
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def fill_lower(
    scores: Array, capacity: Array, lower: Array, task_mask: Array, index: Array, price: Array, feasible: Array
) -> None:  # fmt: skip
    """Changes index and price, optimal without the lower bounds, in place; ``feasible`` too.

    Args:
        scores: c, [B, N, M] float64, -inf for forbidden pairs.
        capacity: k, [B, M] int64.
        lower: l, [B, M] int64, 0 for dead tasks.
        task_mask: [B, M] bool.
        index: [B, N].
        price: [B, M].
        feasible: [B]; infeasible states are left as they are.
    """
    n_states, _, m = scores.shape
    work = Moves(
        np.empty((m, m)), np.empty((m, m), np.int64), np.empty(m), np.empty(m, np.int64), np.empty(m, np.bool_),
        np.empty(m, np.int64),
    )  # fmt: skip
    for b in range(n_states):
        if feasible[b] and lower[b].any():
            feasible[b] = _fill_one(scores[b], capacity[b], lower[b], task_mask[b], index[b], price[b], work)
