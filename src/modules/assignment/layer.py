"""Gradients through the assignment LP by blackbox differentiation (Vlastelica et al. 2019).

Z(C) is piecewise constant, so its true gradient is 0 almost everywhere. The method solves the LP once more at
scores perturbed in the direction of improvement and takes the finite difference, which is the exact gradient of
a piecewise linear interpolation of the objective.

Sign: the LP maximizes. With an objective J to be raised, Z_lam = LP(C + lam dJ/dZ) is a *better* assignment and
dJ/dC = (Z_lam - Z) / lam (LPMARL, eqs. 12 and 16). With a loss L = -J and g = dL/dZ this is
Z_lam = LP(C - lam g) and dL/dC = (Z - Z_lam) / lam. The gradient vanishes once Z is optimal for C + lam dJ/dZ.

Solves: one forward, one backward. The LP runs on the CPU, through a numpy copy; tensors may be on any device.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from modules.assignment.problem import AssignmentProblem, make_problem
from modules.assignment.solution import Assignment
from modules.assignment.solvers import solve

LAMBDA = 20.0
Field = Tensor | ArrayLike


@dataclass(frozen=True)
class BlackboxStep:
    """One surrogate loss.

    Attributes:
        loss: scalar; its gradient with respect to the scores is the blackbox gradient, averaged over states.
        changed: share of the states in which the perturbed assignment differs; 0 means that nothing is learned.
    """

    loss: Tensor
    changed: float


class BlackboxAssignment(torch.autograd.Function):
    """Forward Z(C); backward (Z - LP(C - lam g)) / lam with g = dL/dZ. Call it through :func:`assign`."""

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, problem: AssignmentProblem, lam: float, tau: float | None, solver: str
    ) -> Tensor:
        """Solves the LP; only the index is kept for the backward pass, not Z."""
        ctx.assignment = solve(problem, solver)
        ctx.settings = lam, tau, solver
        return _like(ctx.assignment.z, scores)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        """One more LP; g = 0 gives exactly 0."""
        step, _ = _finite_difference(ctx.assignment, -_numpy(gradient), *ctx.settings)
        return _like(-step, gradient), None, None, None, None


def assign(
    scores: Tensor,
    capacity: Field,
    agent_mask: Field | None = None,
    task_mask: Field | None = None,
    lam: float = LAMBDA,
    tau: float | None = None,
    solver: str = "auto",
) -> Tensor:
    """The LP as a differentiable function, Z = LP(C).

    The perturbation is lam * g with the gradient as it arrives: a loss that is a mean over B states shrinks g,
    and so the effective lambda, by B. Use a summed loss, ``tau``, or :func:`surrogate_loss`.

    Args:
        scores: C, [B, N, M].
        capacity: [M] or [B, M].
        agent_mask: [B, N] bool, living agents; dead ones get a row of zeros and no gradient.
        task_mask: [B, M] bool, living tasks.
        lam: absolute lambda, ignored when ``tau`` is given.
        tau: makes lambda relative, see :func:`relative_lambda`.
        solver: name in ``SOLVERS``.

    Returns:
        Z [B, N, M], of the type and on the device of ``scores``.

    Raises:
        ValueError: as :func:`make_problem`; in the backward pass also for a non-finite gradient; ``lam`` or
            ``tau`` not positive.
        InfeasibleAssignment: too few places.
    """
    _check_step(lam, tau)
    problem = _problem(scores, capacity, agent_mask, task_mask)
    return BlackboxAssignment.apply(scores, problem, lam, tau, solver)


def surrogate_loss(
    scores: Tensor,
    advantage: Tensor,
    capacity: Field,
    agent_mask: Field | None = None,
    task_mask: Field | None = None,
    lam: float = LAMBDA,
    tau: float | None = None,
    solver: str = "auto",
) -> BlackboxStep:
    """Loss whose gradient is the blackbox gradient for J = sum_ij z_ij A_ij, with lambda untouched by the mean.

    loss = -(1/B) sum_b sum_ij stop_gradient((Z_lam - Z)_ij / lam) c_ij with Z_lam = LP(C + lam A). At B = 1 its
    gradient equals that of ``-(assign(C) * A).sum()``; at larger B it is 1/B of it. Two solves.

    Args:
        scores: C, [B, N, M].
        advantage: A = dJ/dZ, [B, N, M], higher is better; no gradient flows into it.
        capacity: [M] or [B, M].
        agent_mask: [B, N] bool, living agents.
        task_mask: [B, M] bool, living tasks.
        lam: absolute lambda, ignored when ``tau`` is given.
        tau: makes lambda relative, see :func:`relative_lambda`.
        solver: name in ``SOLVERS``.

    Raises:
        ValueError: as :func:`assign`.
        InfeasibleAssignment: too few places.
    """
    _check_step(lam, tau)
    start = solve(_problem(scores, capacity, agent_mask, task_mask), solver)
    step, changed = _finite_difference(start, _numpy(advantage), lam, tau, solver)
    weight = _like(step, scores)
    # Scores that carry no weight may be anything, also infinite: 0 times that would not be 0.
    total = (weight * scores.masked_fill(weight == 0, 0.0)).sum()
    return BlackboxStep(-total / max(len(scores), 1), float(changed.mean()) if len(changed) else 0.0)


def relative_lambda(problem: AssignmentProblem, direction: NDArray[np.float64], tau: float) -> NDArray[np.float64]:
    """[B] lambda per state: tau * (max - min of C) / max|A|, both over living pairs.

    The perturbation lambda * A then has the size tau relative to the spread of the scores, whatever the scale of
    either. A state without direction gets 1 (its perturbation is 0, so its gradient is too); a spread of 0
    counts as 1.

    Args:
        problem: holds C and the masks.
        direction: A, [B, N, M].
        tau: relative size, for example 0.5.
    """
    live = problem.agent_mask[:, :, None] & problem.task_mask[:, None, :]
    highest = np.where(live, problem.scores, -np.inf).max((1, 2), initial=-np.inf)
    lowest = np.where(live, problem.scores, np.inf).min((1, 2), initial=np.inf)
    spread = np.where(highest > lowest, highest - lowest, 1.0)
    largest = np.where(live, np.abs(direction), 0.0).max((1, 2), initial=0.0)
    return np.where(largest > 0.0, tau * spread / np.where(largest > 0.0, largest, 1.0), 1.0)


def _finite_difference(
    start: Assignment, direction: NDArray[np.float64], lam: float, tau: float | None, solver: str
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(Z_lam - Z) / lam with Z_lam = LP(C + lam A), [B, N, M], and [B] whether anything changed."""
    problem = start.problem
    size = np.full(len(direction), lam) if tau is None else relative_lambda(problem, direction, tau)
    with np.errstate(invalid="ignore", over="ignore"):  # pairs that are out may hold anything
        perturbed = problem.scores + size[:, None, None] * direction
    end = solve(make_problem(perturbed, problem.capacity, problem.agent_mask, problem.task_mask), solver)
    difference = end.z - start.z
    changed: NDArray[np.bool_] = np.any(difference != 0.0, axis=(1, 2))
    return difference / size[:, None, None], changed


def _problem(scores: Tensor, capacity: Field, agent_mask: Field | None, task_mask: Field | None) -> AssignmentProblem:
    masks = (None if mask is None else _numpy(mask, np.bool_) for mask in (agent_mask, task_mask))
    return make_problem(_numpy(scores, copy=True), _numpy(capacity), *masks)


def _numpy(values: Field, dtype: Any = np.float64, copy: bool = False) -> NDArray[Any]:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    # The backward pass needs the scores as they were, also when the tensor is changed in place since.
    return np.array(array, dtype) if copy else np.asarray(array, dtype)


def _like(values: NDArray[Any], tensor: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=tensor.dtype, device=tensor.device)


def _check_step(lam: float, tau: float | None) -> None:
    name, size = ("lam", lam) if tau is None else ("tau", tau)
    if not (np.isfinite(size) and size > 0.0):
        raise ValueError(f"{name} must be a positive number, not {size}")
