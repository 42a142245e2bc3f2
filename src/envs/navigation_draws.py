"""Uniform numbers to sizes and capacities of navigation worlds.

Shape legend: B worlds, N agents, M landmarks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def draw_sizes(draws: Array, fewest: tuple[int, int], most: tuple[int, int]) -> Array:
    """Agents uniform in fewest..most, then landmarks uniform in fewest..min(agents, most).

    Args:
        draws: [B, 2] uniform in [0, 1).
        fewest: agents, landmarks; not more landmarks than agents.
        most: agents, landmarks.

    Returns:
        [B, 2] int64 agents, landmarks.
    """
    n = fewest[0] + (draws[:, 0] * (most[0] - fewest[0] + 1)).astype(np.int64)
    m = fewest[1] + (draws[:, 1] * (np.minimum(n, most[1]) - fewest[1] + 1)).astype(np.int64)
    return np.stack([n, m], 1)


def compositions(draws: Array, n: Array | int, m: Array | int) -> Array:
    """Compositions of n into m positive parts, each equally likely.

    Walks over the n - 1 gaps between n agents in a row and cuts m - 1 of them: gap g is cut with probability
    (cuts left) / (gaps left), which draws every set of cuts equally often.

    Args:
        draws: [B, n - 1] uniform in [0, 1), for the largest n.
        n: agents, [B] or the same everywhere.
        m: parts, [B] or the same everywhere, at most n.

    Returns:
        [B, largest m] int64, rows sum to n; 0 beyond their m parts.
    """
    b = len(draws)
    n, cuts_left = np.broadcast_to(n, b), np.broadcast_to(m, b) - 1
    part = np.zeros(b, dtype=np.int64)
    sizes = np.zeros((b, int(np.max(m))), dtype=np.int64)
    rows = np.arange(b)
    for agent in range(int(n.max())):
        sizes[rows, part] += agent < n
        gaps_left = n - 1 - agent
        if (gaps_left > 0).any():
            cut = (gaps_left > 0) & (draws[:, agent] * gaps_left < cuts_left)
            part += cut
            cuts_left = cuts_left - cut
    return sizes


def ranks(draws: Array, sizes: Array) -> Array:
    """A random order of the agents that are there.

    Args:
        draws: [B, N] uniform in [0, 1).
        sizes: [B] agents that are there: the first ones.

    Returns:
        [B, N] int64: place of each agent in the order, 0 first; absent agents come last.
    """
    absent = np.arange(draws.shape[1]) >= sizes[:, None]
    order: Array = np.argsort(np.argsort(draws + absent, axis=1), axis=1)
    return order
