"""The SPO+ gradient: a convex bound on the regret, with A as the true scores.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from modules.assignment.differentiators.base import Ascent, Differentiator, Plan, TensorProblem, ascent
from modules.assignment.differentiators.step_size import StepOptions, best_plan, spread, step_size


class SpoPlusOptions(StepOptions):
    """Scale of the true scores Q = lam A."""

    lam: float | None = Field(None, gt=0, description="true scores Q = lam A; null = relative, see tau")
    tau: float = Field(2.0, gt=0, description="spread of Q relative to that of the scores; used when lam is null")


class SpoPlus(Differentiator):
    """Learns scores whose assignment has no regret under the true scores.

    Idea: the regret <Q, Z(Q)> - <Q, Z(C)> of acting on C when Q is true has no useful gradient. SPO+ is a convex
    upper bound: max_Z <2 C - Q, Z> - 2 <C, Z(Q)> + <Q, Z(Q)>, which is 0 at C = Q.

    Formula: D = 2 [Z(Q) - Z(2 C - Q)] / lam with Q = lam A (ties in Q: the best under C). With ``lam = 1`` D is
    minus the subgradient of the bound with A as true scores. By default lambda is relative: the true scores are
    known up to their scale, and their spread is ``tau`` times that of C.

    Sign: along +D the bound falls.

    Solves: 1 forward, 2 backward. Forward: the exact LP.

    Exact for: at ``lam = 1``, a subgradient of the convex bound; A must then be true scores, from a loss that is summed
    over states: with a much smaller A it becomes the perceptron's 2 [Z(Q) - Z(C)]. With a relative lambda it is
    no longer the gradient of one function, but independent of the scale of the loss.

    Source: Elmachtoub and Grigas, Smart Predict, then Optimize, 2022, definition 3 and proposition 3.
    """

    def __init__(self, options: SpoPlusOptions) -> None:
        self.options = options

    @override
    def ascent(self, problem: TensorProblem, start: Plan, direction: Tensor, rng: torch.Generator | None) -> Ascent:
        size = step_size(problem, direction, self.options)
        worst = problem.plan(2.0 * problem.scores - size * direction)
        step = 2.0 * (best_plan(problem, direction) - worst) / size
        return ascent(step.masked_fill(spread(direction, problem.allowed) == 0.0, 0.0))
