"""The gradient of the entropic LP.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from components.registry import Options
from modules.assignment.differentiators.base import Ascent, Differentiator, Plan, TensorProblem, ascent
from modules.assignment.differentiators.laplacian import projected
from modules.assignment.differentiators.smooth_plan import Entropy, SmoothPlan, smooth_plan, unrolled_sinkhorn
from modules.assignment.differentiators.step_size import smoothing


class SinkhornOptions(Options):
    """Smoothness and passes."""

    epsilon: float | None = Field(None, gt=0, description="weight of the entropy in units of the scores; null = relative")
    relative_epsilon: float = Field(0.1, gt=0, description="the same relative to the spread of the scores of each state")
    forward: Literal["exact", "soft"] = Field("exact", description="the LP's answer, or the entropic plan")
    backward: Literal["implicit", "unrolled"] = Field(
        "implicit", description="derivative of the optimum, or of so many Sinkhorn iterations"
    )
    iterations: int = Field(50, ge=1, description="Sinkhorn iterations of an unrolled backward pass")


class Sinkhorn(Differentiator):
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

    def __init__(self, options: SinkhornOptions) -> None:
        self.options = options

    @override
    def forward(self, problem: TensorProblem, rng: torch.Generator | None) -> Plan:
        if self.options.forward == "exact":
            return Plan(problem.plan(problem.scores))
        soft = self._soft(problem)
        return Plan(soft.z, soft)

    @override
    def ascent(self, problem: TensorProblem, start: Plan, direction: Tensor, rng: torch.Generator | None) -> Ascent:
        if self.options.backward == "unrolled":
            with torch.enable_grad():
                scores = problem.scores.clone().requires_grad_()
                plan = unrolled_sinkhorn(problem, scores, self._epsilon(problem), self.options.iterations)
                return ascent(torch.autograd.grad((plan * direction).sum(), scores)[0])
        soft: SmoothPlan = start.memory or self._soft(problem)
        return ascent(projected(direction, soft.weights, soft.binding) / self._epsilon(problem))

    def _soft(self, problem: TensorProblem) -> SmoothPlan:
        return smooth_plan(problem, Entropy(), self._epsilon(problem))

    def _epsilon(self, problem: TensorProblem) -> Tensor:
        return smoothing(problem, self.options.epsilon, self.options.relative_epsilon)
