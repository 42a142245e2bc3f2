"""High-level policies by name: what each goes by, and whether the LP or every agent for itself chooses."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from scipy.special import log_ndtr

from controllers.base import Array


class HighPolicy(NamedTuple):
    """How agents get their tasks.

    Attributes:
        goes_by: the network's scores C, distance, a cost that the environment knows, or chance.
        feasible: the LP assigns all agents within the capacities; else every agent takes the best task for itself.
        learns: whether training the network trains it.
    """

    goes_by: Literal["scores", "distance", "cost", "chance"]
    feasible: bool
    learns: bool = False


HIGH_POLICIES = {
    "lp": HighPolicy("scores", True, True),
    "softmax": HighPolicy("scores", False, True),
    "lp_distance": HighPolicy("distance", True),
    "lp_cost": HighPolicy("cost", True),
    "greedy": HighPolicy("distance", False),
    "random_feasible": HighPolicy("chance", True),
}


def gumbel(normal: Array) -> Array:
    """Standard normal noise made standard Gumbel noise: added to logits, the largest is a sample of the softmax."""
    out: Array = -np.log(-log_ndtr(normal))
    return out
