"""How far to perturb the scores: an absolute lambda, or one relative to the scores and the gradient.

What counts is the spread of lambda A against that of C. A loss that is a mean over B states has an A that is B times
smaller, so a relative lambda is the default of the layer.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from components.registry import Options
from modules.assignment.differentiators.base import TensorProblem

# Scores that differ by less than this share of the largest count as ties when the best assignment is sought.
TIE = 1e-6


class StepOptions(Options):
    """Size of the perturbation lambda * A."""

    lam: float | None = Field(None, gt=0, description="absolute lambda; null = relative, see tau")
    tau: float = Field(2.0, gt=0, description="spread of lambda A relative to that of the scores, when lam is null")


def step_size(problem: TensorProblem, direction: Tensor, options: StepOptions) -> Tensor:
    """[B, 1, 1] lambda of each state."""
    if options.lam is None:
        return relative_size(problem, direction, options.tau)
    return problem.scores.new_full((len(direction), 1, 1), options.lam)


def relative_size(problem: TensorProblem, direction: Tensor, tau: float) -> Tensor:
    """[B, 1, 1] lambda = tau * spread(C) / spread(A), see :func:`spread`.

    The perturbation lambda * A then has the size tau relative to the scores, whatever the scale of either. Where A
    prefers nothing lambda is 1; a spread of C of 0 counts as 1.

    Args:
        problem: holds C and the masks.
        direction: A, [B, N, M], 0 for pairs that are not allowed.
        tau: relative size.
    """
    preferred = spread(direction, problem.allowed)
    size = tau * scale(problem) / torch.where(preferred > 0.0, preferred, 1.0)
    return torch.where(preferred > 0.0, size, 1.0)


def spread(values: Tensor, allowed: Tensor) -> Tensor:
    """[B, 1, 1] largest difference between two allowed tasks of one agent; a constant per agent does not count."""
    if values.numel() == 0:
        return values.new_zeros((len(values), 1, 1))
    out = ~allowed
    highest = values.masked_fill(out, -torch.inf).amax(2, keepdim=True)
    lowest = values.masked_fill(out, torch.inf).amin(2, keepdim=True)
    return (highest - lowest).amax(1, keepdim=True).clamp(min=0.0)


def scale(problem: TensorProblem) -> Tensor:
    """[B, 1, 1] the spread of C; 1 where it is 0."""
    found = spread(problem.scores, problem.allowed)
    return torch.where(found > 0.0, found, 1.0)


def in_units(problem: TensorProblem, absolute: float | None, relative: float) -> Tensor:
    """[B, 1, 1] a width of smoothing in units of the scores, or else relative to the spread of each state."""
    if absolute is None:
        return relative * scale(problem)
    return problem.scores.new_full((len(problem.scores), 1, 1), absolute)


def best_plan(problem: TensorProblem, direction: Tensor) -> Tensor:
    """[B, N, M] the assignment that is best under A; ties go to the one that is best under C."""
    return problem.plan(problem.scores + relative_size(problem, direction, 1.0 / TIE) * direction)


def without_row_means(values: Tensor, allowed: Tensor) -> Tensor:
    """Values [..., B, N, M] less each agent's mean over its allowed tasks; 0 elsewhere.

    A constant per agent changes no assignment, so it is no part of any direction; an agent with a single task has
    nothing to decide.
    """
    count = allowed.sum(-1, keepdim=True)
    kept = values.masked_fill(~allowed, 0.0)
    centered = kept - kept.sum(-1, keepdim=True) / count.clamp(min=1)
    return centered.masked_fill(~(allowed & (count > 1)), 0.0)
