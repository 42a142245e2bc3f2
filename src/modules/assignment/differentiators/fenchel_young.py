"""The Fenchel-Young gradient toward the assignment that is best under A.

Shape legend: S noisy copies, B states, N agents, M tasks.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from modules.assignment.differentiators.base import Ascent, Differentiator, Plan, TensorProblem, ascent, generator_of
from modules.assignment.differentiators.noise import NoiseOptions, noisy_copies
from modules.assignment.differentiators.step_size import best_plan, spread


class FenchelYoungOptions(NoiseOptions):
    """Gaussian noise."""

    samples: int = Field(8, ge=1, description="noisy copies of each state")


class FenchelYoung(Differentiator):
    """Imitates the assignment that is best under A, until noise no longer changes the LP's answer.

    Idea: the Fenchel-Young loss F_sigma(C) - <C, Z*> with F_sigma(C) = E max_Z <C + sigma xi, Z> is convex in C and
    least where the mean assignment under noise is the target Z*. It asks for a margin, not only for the right order.

    Formula: D = spread(A) [Z* - (1 / S) sum_s Z(C + sigma xi_s)], Z* = argmax_Z <Z, A> (ties: the best under C). The
    factor per state lets the gradient follow the size of A.

    Sign: along +D the scores of Z* rise.

    Solves: 1 forward, S + 1 backward. Forward: the exact LP.

    Exact for: given noise, the gradient of minus the loss times spread(A); the loss itself is
    :func:`modules.assignment.losses.fenchel_young_loss`. A counts as true scores: only the best assignment
    under A matters, not by how much.

    Source: Blondel et al., Learning with Fenchel-Young Losses, 2020; Berthet et al. 2020, section 4.1.
    """

    stochastic = True

    def __init__(self, options: FenchelYoungOptions) -> None:
        self.options = options

    @override
    def ascent(self, problem: TensorProblem, start: Plan, direction: Tensor, rng: torch.Generator | None) -> Ascent:
        copies = noisy_copies("gaussian", self.options.samples, problem, self.options, generator_of(self, rng))
        away = best_plan(problem, direction) - copies.plans.mean(0)
        return ascent(spread(direction, problem.allowed) * away)
