"""The score-function (REINFORCE) gradient of the policy "LP on noisy scores".

Shape legend: S pairs of noisy copies, B states, N agents, M tasks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from modules.assignment.differentiators.base import Ascent, Differentiator, Plan, TensorProblem, ascent, generator_of
from modules.assignment.differentiators.noise import NoiseOptions, draw_noise, noise_scale
from modules.assignment.differentiators.step_size import without_row_means

# Values [S, B] of assignments [S, B, N, M].
Objective = Callable[[Tensor], Tensor]


class ScoreFunctionOptions(NoiseOptions):
    """Gaussian noise."""

    pairs: int = Field(16, ge=1, description="antithetic pairs of noisy copies of each state")
    relative_sigma: float = Field(0.5, gt=0, description="the same relative to the spread of each state's scores")


class ScoreFunction(Differentiator):
    """Needs values of the objective only, not its derivative.

    Idea: the scores C + sigma xi are a Gaussian policy whose action is decoded by the LP. Its policy gradient is
    an average of noise weighted by value. Each noise comes with its opposite, whose value is the baseline.

    Formula: D = (1 / (2 S sigma)) sum_s xi_s [J(Z(C + sigma xi_s)) - J(Z(C - sigma xi_s))]; the mean of each row,
    whose true value is 0, is taken out. In a backward pass only A is known, so there J(Z) = <Z, A>; where J
    can be evaluated, :meth:`estimate` takes it as it is.

    Sign: along +D the expected objective rises on average; a single estimate may point elsewhere.

    Solves: 1 forward, 2 S backward. Forward: the exact LP.

    Exact for: an unbiased estimate of the gradient of E J(Z(C + sigma xi)), for any J. The variance is high: it
    falls with S and with sigma.

    Source: Williams 1992 (REINFORCE); antithetic pairs as in Salimans et al., Evolution Strategies, 2017.
    """

    stochastic = True

    def __init__(self, options: ScoreFunctionOptions) -> None:
        self.options = options

    @override
    def ascent(self, problem: TensorProblem, start: Plan, direction: Tensor, rng: torch.Generator | None) -> Ascent:
        return ascent(self.estimate(problem, lambda z: (z * direction).sum((-2, -1)), rng))

    def estimate(self, problem: TensorProblem, objective: Objective, rng: torch.Generator | None) -> Tensor:
        """[B, N, M] gradient of E J(Z(C + sigma xi)) with respect to C.

        Args:
            problem: C and the rest.
            objective: J, from assignments [S, B, N, M] to values [S, B]; need not be differentiable.
            rng: CPU generator of the noise.
        """
        pairs, sigma = self.options.pairs, noise_scale(problem, self.options)
        noise = draw_noise("gaussian", pairs, problem, generator_of(self, rng))
        plans = problem.plan(torch.cat((problem.scores + sigma * noise, problem.scores - sigma * noise)))
        better, worse = objective(plans).reshape(2, pairs, -1, 1, 1)
        step = (noise * (better - worse)).mean(0) / (2.0 * sigma)
        return without_row_means(step, problem.allowed)
