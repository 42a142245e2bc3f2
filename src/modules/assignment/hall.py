"""Sources that cannot all send their supply, found as the minimal cut of a maximal flow.

One state at a time, and written for clarity: it is asked only where counting and a greedy placement did not settle
whether a state has an assignment.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Slack of the feasibility check: sums of fractional capacities are rounded.
CAPACITY_TOLERANCE = 1e-9


def hall_violator(allowed: Array, supply: Array, capacity: Array) -> tuple[list[int], list[int], float] | None:
    """Sources that can reach sinks of too little capacity only, by a maximal flow with shortest augmenting paths.

    Args:
        allowed: [sources, sinks] bool.
        supply: [sources] amount that must leave each source.
        capacity: [sinks] amount that each sink takes.

    Returns:
        The sources, all sinks that they reach, and by how much the supply exceeds the capacity; None if all can flow.
    """
    flow = np.zeros(allowed.shape)
    left, room = supply.astype(np.float64), np.minimum(capacity, supply.sum())
    while True:
        reached, seen, path = _augmenting_path(allowed, flow, left, room)
        if not path:
            break
        forward, backward = path[::2], path[1::2]
        amount = min([left[path[0][0]], room[path[-1][1]], *(flow[i, j] for i, j in backward)])
        left[path[0][0]] -= amount
        room[path[-1][1]] -= amount
        for i, j in forward:
            flow[i, j] += amount
        for i, j in backward:
            flow[i, j] -= amount
    missing = float(left.sum())
    if missing <= CAPACITY_TOLERANCE:
        return None
    return np.flatnonzero(reached).tolist(), np.flatnonzero(seen).tolist(), missing


def _augmenting_path(
    allowed: Array, flow: Array, left: Array, room: Array
) -> tuple[Array, Array, list[tuple[int, int]]]:
    """Breadth-first search from all sources with supply left to a sink with room.

    Returns:
        [sources] and [sinks] reached, and the path as pairs, forward and backward in turn; empty if there is none.
    """
    smallest = CAPACITY_TOLERANCE / (1 + sum(allowed.shape))
    reached, seen = left > smallest, np.zeros(len(room), np.bool_)
    source_of, sink_of = np.full(len(room), -1), np.full(len(left), -1)
    queue = np.flatnonzero(reached).tolist()
    for i in queue:  # grows while it is read
        new = np.flatnonzero(allowed[i] & ~seen)
        seen[new], source_of[new] = True, i
        free = new[room[new] > smallest]
        if len(free):
            return reached, seen, _trace(int(free[0]), source_of, sink_of)
        for j in new:
            more = np.flatnonzero((flow[:, j] > smallest) & ~reached)
            reached[more], sink_of[more] = True, j
            queue.extend(more.tolist())
    return reached, seen, []


def _trace(sink: int, source_of: Array, sink_of: Array) -> list[tuple[int, int]]:
    path = []
    while True:
        source = int(source_of[sink])
        path.append((source, sink))
        if sink_of[source] < 0:
            return path[::-1]
        sink = int(sink_of[source])
        path.append((source, sink))
