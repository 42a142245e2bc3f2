"""The assignment problem: a batch of states, checked once, before any solver sees it.

``max sum_ij c_ij z_ij`` subject to ``sum_j z_ij = 1`` for each living agent i, ``l_j <= sum_i z_ij <= k_j`` for each
living task j, ``z >= 0``, and any extra linear constraints. Dead agents, dead tasks and forbidden pairs are no part
of the LP. A state without a living task has no LP at all: its agents are out (index -1), whatever else it asks for.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modules.assignment.constraints import LinearConstraint

Array = NDArray[Any]


@dataclass(frozen=True)
class AssignmentProblem:
    """A batch of assignment LPs; build it with :func:`make_problem`, which checks it.

    Attributes:
        scores: c, [B, N, M] float64, higher is better; entries of dead agents or tasks, and of forbidden pairs,
            mean nothing.
        capacity: k, [B, M] float64, places of each task; may be fractional or infinite.
        agent_mask: [B, N] bool, living agents.
        task_mask: [B, M] bool, living tasks.
        pair_mask: [B, N, M] bool, allowed pairs; None: all.
        lower: l, [B, M] float64, least number of agents at each task, 0 for dead tasks; None: 0.
        constraints: extra linear constraints, flat (see :meth:`LinearConstraint.flat`).
        idle: whether the last task stands for "no task", see :func:`modules.assignment.capacity_rules.with_idle`.
        leading: the leading shape that the user gave; None: (B,).
    """

    scores: NDArray[np.float64]
    capacity: NDArray[np.float64]
    agent_mask: NDArray[np.bool_]
    task_mask: NDArray[np.bool_]
    pair_mask: NDArray[np.bool_] | None = None
    lower: NDArray[np.float64] | None = None
    constraints: tuple[LinearConstraint, ...] = ()
    idle: bool = False
    leading: tuple[int, ...] | None = None

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading shape that the user gave; the arrays here have it flattened to B."""
        return (len(self.scores),) if self.leading is None else self.leading

    def take(self, states: Array) -> AssignmentProblem:
        """The problem of some states only (``states`` indexes the flat batch axis)."""
        return AssignmentProblem(
            self.scores[states],
            self.capacity[states],
            self.agent_mask[states],
            self.task_mask[states],
            None if self.pair_mask is None else self.pair_mask[states],
            None if self.lower is None else self.lower[states],
            tuple(constraint.take(states) for constraint in self.constraints),
            self.idle,
        )

    def with_scores(self, scores: NDArray[np.float64]) -> AssignmentProblem:
        """The same problem with other scores [B, N, M] float64, which are not checked."""
        return replace(self, scores=scores)

    def allowed(self) -> NDArray[np.bool_]:
        """[B, N, M] living agent, living task, allowed pair."""
        live = self.agent_mask[:, :, None] & self.task_mask[:, None, :]
        return live if self.pair_mask is None else live & self.pair_mask

    def name_of(self, state: int) -> str:
        """How messages call a state: its flat number, and its place in a batch of several axes."""
        if len(self.batch_shape) < 2:
            return f"state {state}"
        return f"state {state} (batch entry {tuple(int(x) for x in np.unravel_index(state, self.batch_shape))})"


def make_problem(
    scores: ArrayLike,
    capacity: ArrayLike,
    agent_mask: ArrayLike | None = None,
    task_mask: ArrayLike | None = None,
    pair_mask: ArrayLike | None = None,
    lower: ArrayLike | None = None,
    constraints: Sequence[LinearConstraint] = (),
) -> AssignmentProblem:
    """Checks the parts of a batch of problems and brings them to one form.

    The batch may have any leading shape, also none; ``...`` stands for it.

    Args:
        scores: [..., N, M].
        capacity: [M] or [..., M], integers or floats.
        agent_mask: [..., N], living agents; all of them by default.
        task_mask: [..., M], living tasks; all of them by default.
        pair_mask: [N, M] or [..., N, M], allowed pairs; all of them by default.
        lower: [M] or [..., M], least number of agents at each living task; 0 by default. Ignored for dead tasks.
        constraints: extra linear constraints, with weights [N, M] or [..., N, M] and bounds of shape [] or [...].

    Raises:
        ValueError: wrong shapes, a non-finite score of an allowed pair, a negative or undefined capacity or lower
            bound, two constraints of one name.
    """
    values = np.asarray(scores, np.float64)
    if values.ndim < 2:
        raise ValueError(f"scores must have the shape [..., agents, tasks], not {values.shape}")
    leading, (n, m) = values.shape[:-2], values.shape[-2:]
    b = int(np.prod(leading, dtype=np.int64))
    tasks = _mask("task_mask", task_mask, (*leading, m), b)
    problem = AssignmentProblem(
        np.ascontiguousarray(values).reshape(b, n, m),
        _per_state("capacity", np.asarray(capacity, np.float64), leading, (m,), b),
        _mask("agent_mask", agent_mask, (*leading, n), b),
        tasks,
        _optional("pair_mask", pair_mask, np.bool_, leading, (n, m), b),
        _lower(lower, tasks, leading, b),
        _flat(constraints, leading, n, m),
        leading=leading,
    )
    _check_scores(problem)
    _check_counts(problem, "capacity", problem.capacity, infinite=True)
    if problem.lower is not None:
        _check_counts(problem, "lower bound", problem.lower, infinite=False)
    return problem


def _mask(name: str, mask: ArrayLike | None, shape: tuple[int, ...], b: int) -> NDArray[np.bool_]:
    if mask is None:
        return np.ones((b, shape[-1]), np.bool_)
    array = np.ascontiguousarray(mask, np.bool_)
    if array.shape != shape:
        raise ValueError(f"{name} must have the shape {shape}, not {array.shape}")
    return array.reshape(b, shape[-1])


def _per_state(name: str, array: Array, leading: tuple[int, ...], own: tuple[int, ...], b: int) -> Array:
    """``array`` of the shape [*own] or [..., *own] as [B, *own]."""
    if array.shape not in (own, (*leading, *own)):
        shapes = dict.fromkeys(str(shape) for shape in (own, (*leading, *own)))
        raise ValueError(f"{name} must have the shape {' or '.join(shapes)}, not {array.shape}")
    if array.shape == (*leading, *own):
        return np.ascontiguousarray(array).reshape(b, *own)
    return np.ascontiguousarray(np.broadcast_to(array, (b, *own)))


def _optional(
    name: str, values: ArrayLike | None, dtype: Any, leading: tuple[int, ...], own: tuple[int, ...], b: int
) -> Array | None:
    return None if values is None else _per_state(name, np.asarray(values, dtype), leading, own, b)


def _lower(lower: ArrayLike | None, tasks: NDArray[np.bool_], leading: tuple[int, ...], b: int) -> Array | None:
    least = _optional("lower", lower, np.float64, leading, (tasks.shape[-1],), b)
    return None if least is None else np.where(tasks, least, 0.0)


def _flat(
    constraints: Sequence[LinearConstraint], leading: tuple[int, ...], n: int, m: int
) -> tuple[LinearConstraint, ...]:
    names = [constraint.name for constraint in constraints]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two constraints have the same name: {twice[0]!r}")
    return tuple(constraint.flat(leading, n, m) for constraint in constraints)


def _check_scores(problem: AssignmentProblem) -> None:
    finite = np.isfinite(problem.scores)
    if finite.all():
        return
    bad = ~finite & problem.allowed()
    if bad.any():
        b, i, j = (int(x) for x in np.argwhere(bad)[0])
        raise ValueError(
            f"{problem.name_of(b)}: the score of agent {i} for task {j} is {problem.scores[b, i, j]}; "
            "scores of living agents and tasks must be finite"
        )


def _check_counts(problem: AssignmentProblem, what: str, counts: Array, infinite: bool) -> None:
    valid = (counts >= 0.0) & (infinite or np.isfinite(counts))
    if not valid.all():
        b, j = (int(x) for x in np.argwhere(~valid)[0])
        wanted = "0 or more" if infinite else "a finite number, 0 or more"
        raise ValueError(f"{problem.name_of(b)}: the {what} of task {j} is {counts[b, j]:g}; it must be {wanted}")
