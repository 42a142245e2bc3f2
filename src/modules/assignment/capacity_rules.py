"""What to do where the living tasks have too few places: ``relax`` raises capacities, ``idle`` lets agents stay out.

The third rule, ``error``, needs nothing: the solvers refuse such a state.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modules.assignment.constraints import LinearConstraint
from modules.assignment.hall import CAPACITY_TOLERANCE
from modules.assignment.problem import AssignmentProblem


def relax_capacity(capacity: ArrayLike, agent_mask: ArrayLike, task_mask: ArrayLike) -> NDArray[Any]:
    """Capacity rule ``relax``: the least uniform floor that lets every living agent have a place.

    Where the living tasks have fewer places than agents live, k_j <- max(k_j, ceil(N_alive / M_alive)) for the
    living tasks; elsewhere nothing changes. Forbidden pairs are not looked at: a state can stay infeasible because
    of them, and the solvers then say so.

    Args:
        capacity: [M] or [B, M].
        agent_mask: [B, N] bool.
        task_mask: [B, M] bool.

    Returns:
        [B, M], of the type of ``capacity``.
    """
    tasks = np.asarray(task_mask, np.bool_)
    places = np.broadcast_to(np.asarray(capacity), tasks.shape)
    living, alive = np.asarray(agent_mask, np.bool_).sum(1), tasks.sum(1)
    short = np.where(tasks, places, 0).sum(1) < living - CAPACITY_TOLERANCE
    least = -(-living // np.maximum(alive, 1))
    return np.where(short[:, None] & tasks, np.maximum(places, least[:, None]), places).astype(places.dtype)


def with_idle(problem: AssignmentProblem, price: ArrayLike) -> AssignmentProblem:
    """Capacity rule ``idle``: an agent may stay without a task, at the score ``-price``.

    The problem gets one more task, number M, which lives in every state, takes everybody and stands in no extra
    constraint. ``Assignment.index`` is -1 for idle agents; ``z``, ``shares`` and ``price`` keep the column, and
    ``value`` counts the prices paid.

    Args:
        problem: of M tasks, without an idle one.
        price: a number, or [B]; the lower it is, the more agents stay idle although they could have a place.

    Raises:
        ValueError: a price that is not finite, or of the wrong shape; the problem has an idle task already.
    """
    if problem.idle:
        raise ValueError("this problem already has an idle task")
    b, n, _ = problem.scores.shape
    prices = np.asarray(price, np.float64)
    if prices.shape not in ((), (b,), problem.batch_shape) or not np.isfinite(prices).all():
        raise ValueError(
            f"the price of staying idle must be a finite number, or one for each of {b} states, not {price!r}"
        )
    column = np.broadcast_to(np.broadcast_to(prices.reshape(-1), (b,))[:, None], (b, n))
    return replace(
        problem,
        scores=_widen(problem.scores, -column),
        capacity=_widen(problem.capacity, float(n)),
        task_mask=_widen(problem.task_mask, True),
        pair_mask=None if problem.pair_mask is None else _widen(problem.pair_mask, True),
        lower=None if problem.lower is None else _widen(problem.lower, 0.0),
        constraints=tuple(_widen_constraint(constraint) for constraint in problem.constraints),
        idle=True,
    )


def _widen(array: NDArray[Any], value: Any) -> NDArray[Any]:
    """One more column along the last axis."""
    column = np.broadcast_to(np.asarray(value, array.dtype), array.shape[:-1])
    return np.concatenate([array, column[..., None]], -1)


def _widen_constraint(constraint: LinearConstraint) -> LinearConstraint:
    return replace(constraint, weights=_widen(constraint.weights, 0.0))
