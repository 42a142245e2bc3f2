"""Implicit maximum likelihood: blackbox differentiation on noisy copies.

Shape legend: S noisy copies, B states, N agents, M tasks.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from modules.assignment.differentiators.base import Ascent, Differentiator, Plan, TensorProblem, ascent, generator_of
from modules.assignment.differentiators.noise import NoiseName, NoiseOptions, NoisyCopies, noisy_copies
from modules.assignment.differentiators.step_size import StepOptions, step_size


class ImleOptions(StepOptions, NoiseOptions):
    """Noise and size of the perturbation."""

    tau: float = Field(50.0, gt=0, description="spread of lambda A relative to that of the scores, when lam is null")
    samples: int = Field(8, ge=1, description="noisy copies of each state")
    noise: NoiseName = Field("gaussian", description="sum_of_gamma is the paper's; it takes longer to draw than to use")
    forward: Literal["exact", "mean"] = Field("exact", description="the LP, or the mean assignment of the noisy copies")


class Imle(Differentiator):
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

    stochastic = True

    def __init__(self, options: ImleOptions) -> None:
        self.options = options

    @override
    def forward(self, problem: TensorProblem, rng: torch.Generator | None) -> Plan:
        if self.options.forward == "exact":
            return Plan(problem.plan(problem.scores))
        copies = self._copies(problem, rng)
        return Plan(copies.plans.mean(0), copies)

    @override
    def ascent(self, problem: TensorProblem, start: Plan, direction: Tensor, rng: torch.Generator | None) -> Ascent:
        copies: NoisyCopies = start.memory or self._copies(problem, rng)
        size = step_size(problem, direction, self.options)
        return ascent((problem.plan(copies.scores + size * direction) - copies.plans).mean(0) / size)

    def _copies(self, problem: TensorProblem, rng: torch.Generator | None) -> NoisyCopies:
        options = self.options
        return noisy_copies(options.noise, options.samples, problem, options, generator_of(self, rng))
