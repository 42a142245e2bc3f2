"""From action values or probabilities to actions, always among the available ones.

Shape legend: R rows (environments), N agents, A actions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def greedy(values: Array, avail: Array) -> Array:
    """[R, N] the available action of largest value; lowest index on ties."""
    return np.where(avail > 0, values, -np.inf).argmax(-1)


def epsilon_greedy(values: Array, avail: Array, epsilon: float, rng: np.random.Generator) -> Array:
    """[R, N] greedy, but with probability epsilon per agent uniform over the available actions."""
    actions = greedy(values, avail)
    explore = rng.random(actions.shape) < epsilon
    uniform = (rng.random(values.shape, dtype=np.float32) * (avail > 0)).argmax(-1)
    return np.where(explore, uniform, actions)


def soft(logits: Array, avail: Array, epsilon: float, rng: np.random.Generator) -> Array:
    """[R, N] drawn from (1 - epsilon) softmax(logits) + epsilon uniform, both over the available actions."""
    gumbel = rng.gumbel(size=logits.shape)
    actions = greedy(logits + gumbel, avail)
    explore = rng.random(actions.shape) < epsilon
    return np.where(explore, greedy(gumbel, avail), actions)
