"""The perturbed optimizer: the mean assignment under noise, and its Jacobian.

Shape legend: S noisy copies, B states, N agents, M tasks.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from modules.assignment.differentiators.base import Ascent, Plan, TensorProblem, ascent
from modules.assignment.differentiators.noise import noise_scale
from modules.assignment.differentiators.noisy import Noisy, NoisyOptions
from modules.assignment.differentiators.step_size import without_row_means


class PerturbedOptions(NoisyOptions):
    """Noise and forward pass."""

    samples: int = Field(64, ge=2, description="noisy copies of each state")
    noise: Literal["gaussian", "gumbel"] = Field("gaussian", description="distribution of the noise")
    relative_sigma: float = Field(0.5, gt=0, description="the same relative to the spread of each state's scores")
    forward: Literal["mean", "exact"] = Field("mean", description="the mean assignment of the copies, or the LP")


class Perturbed(Noisy):
    """A smooth map from scores to mean assignments, differentiated without bias.

    Idea: Z_sigma(C) = E Z(C + sigma xi) is smooth, lies in the polytope, and its Jacobian is an expectation that needs
    no derivative of Z (integration by parts).

    Formula: D = (1 / (S sigma)) sum_s s(xi_s) <Z_s - Zbar_s, A> with Z_s = Z(C + sigma xi_s), Zbar_s the mean of the
    other copies, which lowers the variance and adds no bias, and s(xi) the noise's -d log density: xi (gaussian) or
    1 - exp(-xi) (gumbel). The mean of each row, whose true value is 0, is taken out.

    Sign: along +D the smoothed objective rises on average; a single estimate may point elsewhere.

    Solves: S forward, 0 backward; with ``forward = exact`` 1 and S.

    Exact for: an unbiased estimate of the gradient of E <Z(C + sigma xi), A>. The variance is high: it falls with S.

    Source: Berthet et al., Learning with Differentiable Perturbed Optimizers, 2020, proposition 3.1.
    """

    def __init__(self, options: PerturbedOptions) -> None:
        self.options: PerturbedOptions = options

    @override
    def ascent(self, problem: TensorProblem, start: Plan, direction: Tensor, rng: torch.Generator | None) -> Ascent:
        copies = self.copies(problem, start, rng)
        value = (copies.plans * direction).sum((2, 3), keepdim=True)
        # Less the mean of the others: S / (S - 1) times less the mean of all.
        value = value - value.mean(0, keepdim=True)
        slope = copies.noise if self.options.noise == "gaussian" else 1.0 - torch.exp(-copies.noise)
        step = (slope * value).sum(0) / ((self.options.samples - 1) * noise_scale(problem, self.options))
        return ascent(without_row_means(step, problem.allowed))
