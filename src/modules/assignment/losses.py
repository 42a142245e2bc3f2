"""Losses for learning scores from known good assignments, or from known scores.

Both are convex in the scores, need no layer, and return one loss per state: take their mean.

Shape legend: B states, N agents, M tasks, S noisy copies; ``...`` is any leading shape, also none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modules.assignment.differentiators.base import Field, TensorProblem, tensor_problem
from modules.assignment.differentiators.noise import NoiseName, draw_noise


def fenchel_young_loss(
    scores: Tensor,
    target: Tensor,
    capacity: Field,
    agent_mask: Field | None = None,
    task_mask: Field | None = None,
    *,
    generator: torch.Generator,
    samples: int = 8,
    sigma: float = 0.5,
    noise: NoiseName = "gaussian",
    **fields: Any,
) -> Tensor:
    """How far the scores are from answering with an observed assignment, with a margin of about ``sigma``.

    Formula: mean_s <C + sigma xi_s, Z_s - Z*>, Z_s = Z(C + sigma xi_s); the Fenchel-Young loss of the perturbed
    LP up to a constant (Berthet et al. 2020, section 4.1). Never negative, 0 where every noisy copy answers with Z*;
    given the noise, its gradient mean_s Z_s - Z* is exact. Gradient steps *lower* it. S solves.

    Args:
        scores: C, [..., N, M].
        target: Z*, the observed assignment: [..., N] task numbers (-1: none), or [..., N, M] shares.
        capacity: [M] or [..., M].
        agent_mask: [..., N] bool, living agents.
        task_mask: [..., M] bool, living tasks.
        generator: CPU generator of the noise.
        samples: S, noisy copies of each state.
        sigma: scale of the noise, in units of the scores.
        noise: its distribution.
        fields: ``pair_mask``, ``lower``, ``constraints`` and ``solver``, as in :class:`AssignmentLayer`.

    Returns:
        [...] one loss per state.

    Raises:
        ValueError: as :func:`make_problem`; a target of the wrong shape or outside the allowed pairs.
        InfeasibleAssignment: a state has no assignment.
    """
    problem = tensor_problem(scores, capacity, agent_mask, task_mask, **fields)
    wanted = _target(problem, target, scores)
    noisy = problem.scores + sigma * draw_noise(noise, samples, problem, generator)
    excess = problem.plan(noisy) - wanted
    constant = ((noisy - problem.scores) * excess).mean(0)
    return _linear(scores, problem, excess.mean(0), constant)


def spo_plus_loss(
    scores: Tensor,
    true_scores: Tensor,
    capacity: Field,
    agent_mask: Field | None = None,
    task_mask: Field | None = None,
    *,
    target: Tensor | None = None,
    **fields: Any,
) -> Tensor:
    """Convex bound on the regret <Q, Z(Q)> - <Q, Z(C)> of acting on C when Q is true.

    Formula: max_Z <2 C - Q, Z> - 2 <C, Z(Q)> + <Q, Z(Q)> (Elmachtoub and Grigas 2022, definition 3, maximizing).
    Never below the regret, 0 at C = Q; its subgradient is 2 [Z(2 C - Q) - Z(Q)]. Gradient steps *lower* it. 2
    solves, 1 with ``target``.

    Args:
        scores: C, [..., N, M].
        true_scores: Q, [..., N, M]; no gradient flows into them.
        capacity: [M] or [..., M].
        agent_mask: [..., N] bool, living agents.
        task_mask: [..., M] bool, living tasks.
        target: Z(Q) if it is known already: [..., N] task numbers (-1: none), or [..., N, M] shares.
        fields: ``pair_mask``, ``lower``, ``constraints`` and ``solver``, as in :class:`AssignmentLayer`.

    Returns:
        [...] one loss per state.

    Raises:
        ValueError: as :func:`make_problem`; true scores that are not finite; a target as in
            :func:`fenchel_young_loss`.
        InfeasibleAssignment: a state has no assignment.
    """
    problem = tensor_problem(scores, capacity, agent_mask, task_mask, **fields)
    true = problem.take_in(true_scores)
    wanted = problem.plan(true) if target is None else _target(problem, target, scores)
    excess = problem.plan(2.0 * problem.scores - true) - wanted
    return _linear(scores, problem, 2.0 * excess, -true * excess)


def _linear(scores: Tensor, problem: TensorProblem, slope: Tensor, constant: Tensor) -> Tensor:
    """[...] <slope, C> + sum of ``constant``, with ``slope`` as its gradient."""
    weight = problem.give_back(slope, scores)
    # Scores that carry no weight may be anything, also infinite.
    product = weight * scores.masked_fill(weight == 0, 0.0)
    return (product + problem.give_back(constant, scores)).sum((-2, -1))


def _target(problem: TensorProblem, target: Tensor, scores: Tensor) -> Tensor:
    """[B, N, M] Z*; refuses one that is no plan of this problem."""
    if target.shape not in (scores.shape, scores.shape[:-1]):
        raise ValueError(
            f"the target must have the shape {tuple(scores.shape[:-1])} (task numbers) or {tuple(scores.shape)} "
            f"(shares), not {tuple(target.shape)}"
        )
    shares = target.detach().to(problem.scores.device)
    if target.shape != scores.shape:
        if target.is_floating_point():
            raise ValueError(f"task numbers must be integers, not {target.dtype}")
        shares = problem.z(shares)
    shares = shares.to(torch.float64).reshape(problem.scores.shape)
    placed = problem.allowed.any(2) & (problem.task_mask.any(1, keepdim=True))
    wrong = ((shares != 0.0) & ~problem.allowed).any(2) | ((shares.sum(2) - placed.double()).abs() > 1e-6)
    if wrong.any():
        b, i = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"{problem.host.name_of(b)}: the target gives agent {i} the shares {shares[b, i].tolist()}; living agents "
            "need one allowed living task each (or shares that sum to 1), dead agents none"
        )
    return shares
