"""Extra linear constraints that a user adds to the assignment LP, and makers of the usual ones.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Sense = Literal["<=", ">=", "="]
SENSES = ("<=", ">=", "=")


@dataclass(frozen=True)
class LinearConstraint:
    """``sum_ij w_ij z_ij <= bound`` (or ``>=``, ``=``) in every state.

    Attributes:
        name: how messages call it; unique within a problem.
        weights: w, [N, M], or one per state, [B, N, M] (with the problem's leading shape for B). Weights of pairs
            that are out do not count.
        bound: right side, a number, or [B].
        sense: ``<=``, ``>=`` or ``=``.
    """

    name: str
    weights: Any
    bound: Any
    sense: Sense = "<="

    def flat(self, batch_shape: tuple[int, ...], n_agents: int, n_tasks: int) -> LinearConstraint:
        """The same constraint with weights [N, M] or [B, N, M] and a bound [B], all float64.

        Raises:
            ValueError: a shape that does not fit, a number that is not finite, an unknown sense.
        """
        if self.sense not in SENSES:
            raise ValueError(
                f"constraint {self.name!r}: the sense must be one of {', '.join(SENSES)}, not {self.sense!r}"
            )
        pairs, states = (n_agents, n_tasks), int(np.prod(batch_shape, dtype=np.int64))
        weights, bound = np.asarray(self.weights, np.float64), np.asarray(self.bound, np.float64)
        if weights.shape not in (pairs, (*batch_shape, *pairs)):
            raise ValueError(
                f"constraint {self.name!r}: weights must have the shape {pairs} or {(*batch_shape, *pairs)}, "
                f"not {weights.shape}"
            )
        if bound.shape not in ((), batch_shape):
            raise ValueError(
                f"constraint {self.name!r}: bound must be a number or have the shape {batch_shape}, not {bound.shape}"
            )
        if not np.isfinite(weights).all() or not np.isfinite(bound).all():
            raise ValueError(f"constraint {self.name!r}: weights and bound must be finite")
        if weights.shape != pairs:
            weights = weights.reshape(states, *pairs)
        return replace(self, weights=weights, bound=np.broadcast_to(bound.reshape(-1), (states,)))

    def take(self, states: NDArray[Any]) -> LinearConstraint:
        """The constraint of some states only; for a flat constraint."""
        weights = self.weights if self.weights.ndim == 2 else self.weights[states]
        return replace(self, weights=weights, bound=self.bound[states])

    def of(self, state: int) -> tuple[Array, float]:
        """Weights [N, M] and bound of one state; for a flat constraint."""
        return (self.weights if self.weights.ndim == 2 else self.weights[state]), float(self.bound[state])

    def violation(self, z: Array) -> Array:
        """[B] by how much ``z`` [B, N, M] breaks it, 0 where it does not; for a flat constraint."""
        excess: Array = (np.where(z != 0.0, self.weights * z, 0.0)).sum((1, 2)) - self.bound
        if self.sense == "=":
            return np.abs(excess)
        return np.maximum(excess if self.sense == "<=" else -excess, 0.0)


def budget(costs: ArrayLike, limit: ArrayLike, name: str = "budget") -> LinearConstraint:
    """The total cost of the assignment is at most ``limit``.

    Args:
        costs: [N, M] or [B, N, M], cost of each pair.
        limit: a number, or [B].
        name: for messages.
    """
    return LinearConstraint(name, costs, limit)


def incompatible(first_agent: int, second_agent: int, n_agents: int, n_tasks: int) -> tuple[LinearConstraint, ...]:
    """Two agents that may not work at the same task: one constraint per task.

    Raises:
        ValueError: the two agents are the same, or there is no such agent.
    """
    if first_agent == second_agent:
        raise ValueError(f"agent {first_agent} cannot be incompatible with itself")
    constraints = []
    for task in range(n_tasks):
        weights = np.zeros((n_agents, n_tasks))
        for agent in (first_agent, second_agent):
            weights[_number("agent", agent, n_agents), task] = 1.0
        constraints.append(
            LinearConstraint(f"agents {first_agent} and {second_agent} not both at task {task}", weights, 1.0)
        )
    return tuple(constraints)


def at_most(tasks: Sequence[int], count: float, n_agents: int, n_tasks: int) -> LinearConstraint:
    """At most ``count`` agents in all on a group of tasks.

    Raises:
        ValueError: there is no such task.
    """
    weights = np.zeros((n_agents, n_tasks))
    weights[:, [_number("task", task, n_tasks) for task in tasks]] = 1.0
    group = ", ".join(str(task) for task in tasks)
    return LinearConstraint(f"at most {count:g} agents on tasks {group}", weights, float(count))


def _number(kind: str, number: int, count: int) -> int:
    if not 0 <= number < count:
        raise ValueError(f"there is no {kind} {number}: the numbers go from 0 to {count - 1}")
    return number
