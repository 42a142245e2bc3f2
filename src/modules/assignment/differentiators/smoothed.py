"""What the differentiators with a strictly convex regularizer share: options, forward and implicit backward pass.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from components.registry import Options
from modules.assignment.differentiators.base import Ascent, Differentiator, Plan, TensorProblem, ascent
from modules.assignment.differentiators.laplacian import projected
from modules.assignment.differentiators.smooth_plan import Regularizer, SmoothPlan, smooth_plan
from modules.assignment.differentiators.step_size import in_units


class SmoothedOptions(Options):
    """Smoothness and forward pass."""

    epsilon: float | None = Field(None, gt=0, description="weight of the regularizer; null = relative_epsilon counts")
    relative_epsilon: float = Field(1.0, gt=0, description="the same relative to the spread of each state's scores")
    forward: Literal["exact", "soft"] = Field("exact", description="the LP's answer, or the smoothed plan")


class Smoothed(Differentiator):
    """The LP with a regularizer, differentiated through its optimality conditions.

    Attributes:
        regularizer: R of max <C, Z> - eps R(Z).
    """

    regularizer: ClassVar[Regularizer]
    options: SmoothedOptions

    @override
    def forward(self, problem: TensorProblem, rng: torch.Generator | None) -> Plan:
        if self.options.forward == "exact":
            return Plan(problem.plan(problem.scores))
        soft = smooth_plan(problem, self.regularizer, self.epsilon(problem))
        return Plan(soft.z, soft)

    @override
    def ascent(self, problem: TensorProblem, start: Plan, direction: Tensor, rng: torch.Generator | None) -> Ascent:
        epsilon = self.epsilon(problem)
        soft: SmoothPlan = start.memory or smooth_plan(problem, self.regularizer, epsilon)
        return ascent(projected(direction, soft.weights, soft.binding) / epsilon)

    def epsilon(self, problem: TensorProblem) -> Tensor:
        """[B, 1, 1] weight of the regularizer."""
        return in_units(problem, self.options.epsilon, self.options.relative_epsilon)
