"""The gradient of the entropic LP.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from modules.assignment.differentiators.base import Ascent, Plan, TensorProblem, ascent
from modules.assignment.differentiators.smooth_plan import Entropy, unrolled_sinkhorn
from modules.assignment.differentiators.smoothed import Smoothed, SmoothedOptions


class SinkhornOptions(SmoothedOptions):
    """Smoothness and passes."""

    relative_epsilon: float = Field(0.1, gt=0, description="the same relative to the spread of each state's scores")
    backward: Literal["implicit", "unrolled"] = Field(
        "implicit", description="derivative of the optimum, or of so many Sinkhorn iterations"
    )
    iterations: int = Field(50, ge=1, description="Sinkhorn iterations of an unrolled backward pass")


class Sinkhorn(Smoothed):
    """Entropy makes the plan a smooth function of the scores.

    Idea: P(C) = argmax <C, P> - eps sum p log p over the same polytope, with places that may stay empty and
    lower bounds as inequalities. It is unique, strictly inside where it can be, and differentiable.

    Formula: D = (P / eps) (A - a_i - b_j), with a and b such that the rows of D sum to 0, and so do the columns of
    tasks whose bound binds (b_j = 0 elsewhere): one Laplacian system of size M per state.

    Sign: along +D the entropic objective <P(C), A> rises.

    Solves: 1 forward (``exact``: an LP; ``soft``: a plan), a plan backward with ``exact``; a plan takes some
    rounds of Newton in the log domain, many LPs' time.

    Exact for: the entropic objective (checked by finite differences); it is biased by eps for the LP. ``unrolled``
    is exact for so many iterations. No extra linear constraints.

    Source: Cuturi, Sinkhorn Distances, 2013; implicit gradient as in Luise et al. 2018 and Eisenberger et al. 2022.
    """

    regularizer = Entropy()
    options: SinkhornOptions

    def __init__(self, options: SinkhornOptions) -> None:
        self.options = options

    @override
    def ascent(self, problem: TensorProblem, start: Plan, direction: Tensor, rng: torch.Generator | None) -> Ascent:
        if self.options.backward == "implicit":
            return super().ascent(problem, start, direction, rng)
        with torch.enable_grad():
            scores = problem.scores.clone().requires_grad_()
            plan = unrolled_sinkhorn(problem, scores, self.epsilon(problem), self.options.iterations)
            return ascent(torch.autograd.grad((plan * direction).sum(), scores)[0])
