"""The arrays that hold B navigation worlds, and those that show them.

Shape legend: B worlds, N agents, M landmarks; a world may hold fewer, which come first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class World(NamedTuple):
    """Everything that the coming steps and observations of B worlds depend on; steps change it in place.

    Attributes:
        position: [B, N, 2] float64; this and the next three are 0 for absent ones.
        velocity: [B, N, 2] float64.
        landmark: [B, M, 2] float64.
        capacity: [B, M] int64, agents that each landmark needs.
        sizes: [B, 2] int64, agents and landmarks that are there: the first ones.
        push: [B, N] float64, acceleration of an agent's push.
        needed: [B, N, M] int64, further steps that agent i stays at landmark j before it counts.
        agent_extra: [B, N, Ea] float64, further columns of the agents' features.
        task_extra: [B, M, Et] float64, further columns of the landmarks' features.
        at_landmark: [B, N] int64, the landmark that an agent is at: its nearest, within the occupancy radius; or -1.
        held: [B, N] int64, consecutive further steps at that landmark: 0 at the first one there.
        visited: [B, N, M] bool, whether agent i has been at landmark j in this episode.
        clock: [B, 2] int64, steps of the episode so far, overlapping pairs so far.
    """

    position: Array
    velocity: Array
    landmark: Array
    capacity: Array
    sizes: Array
    push: Array
    needed: Array
    agent_extra: Array
    task_extra: Array
    at_landmark: Array
    held: Array
    visited: Array
    clock: Array


class Views(NamedTuple):
    """Observed fields, float32; one of length 0 along B is not wanted. Entries of absent ones are not written.

    Attributes:
        obs: [B, N, O].
        state: [B, S].
        agent_feats: [B, N, 4 + Ea].
        task_feats: [B, M, 3 + Et].
    """

    obs: Array
    state: Array
    agent_feats: Array
    task_feats: Array


def present(sizes: Array, n: int, m: int) -> tuple[Array, Array]:
    """[B, n] and [B, m] bool: the agents and landmarks that are there, from ``World.sizes``."""
    return np.arange(n) < sizes[:, :1], np.arange(m) < sizes[:, 1:]
