"""Implicit maximum likelihood: blackbox differentiation on noisy copies.

Shape legend: S noisy copies, B states, N agents, M tasks.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from modules.assignment.differentiators.base import Ascent, Plan, TensorProblem, ascent
from modules.assignment.differentiators.noise import NoiseName
from modules.assignment.differentiators.noisy import Noisy, NoisyOptions
from modules.assignment.differentiators.step_size import StepOptions, step_size


class ImleOptions(StepOptions, NoisyOptions):
    """Noise and size of the perturbation."""

    tau: float = Field(50.0, gt=0, description="spread of lambda A relative to that of the scores, when lam is null")
    noise: NoiseName = Field("gaussian", description="sum_of_gamma is the paper's; it takes longer to draw than to use")


class Imle(Noisy):
    """The blackbox difference, averaged over noisy copies that both of its sides share.

    Idea: the assignment is a sample of the policy "LP on noisy scores". The target policy has the scores C + lam A;
    the gradient of the KL divergence to it is a difference of mean assignments. Common noise cancels most of the
    variance. States whose LP would not change at C + lam A still answer in some of their copies.

    Formula: D = (1 / S) sum_s [Z(C + sigma xi_s + lam A) - Z(C + sigma xi_s)] / lam.

    Sign: along +D the objective rises; <D, A> is never negative.

    Solves: 1 forward (S with ``forward = mean``), 2 S backward (S with ``mean``).

    Exact for: given noise, mean_s [F(C + sigma xi_s + lam A) - F(C + sigma xi_s)] / lam, F(C) = max_Z <C, Z>; as
    lambda goes to 0, for E <Z(C + sigma xi), A>.

    Source: Niepert et al., Implicit MLE, 2021, algorithm 1 and section 3.3 (noise); the relative lambda follows the
    idea of Minervini et al., Adaptive Perturbation-Based Gradient Estimation, 2023.
    """

    def __init__(self, options: ImleOptions) -> None:
        self.options: ImleOptions = options

    @override
    def ascent(self, problem: TensorProblem, start: Plan, direction: Tensor, rng: torch.Generator | None) -> Ascent:
        copies = self.copies(problem, start, rng)
        size = step_size(problem, direction, self.options)
        return ascent((problem.plan(copies.scores + size * direction) - copies.plans).mean(0) / size)
