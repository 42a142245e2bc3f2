"""The gradient of the LP with a quadratic regularizer, through its optimality conditions.

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
from modules.assignment.differentiators.smooth_plan import SmoothPlan, Square, smooth_plan
from modules.assignment.differentiators.step_size import smoothing


class QpOptions(Options):
    """Smoothness and forward pass."""

    epsilon: float | None = Field(None, gt=0, description="weight of the square in units of the scores; null = relative")
    relative_epsilon: float = Field(0.5, gt=0, description="the same relative to the spread of the scores of each state")
    forward: Literal["exact", "soft"] = Field("exact", description="the LP's answer, or the QP's")


class Qp(Differentiator):
    """A quadratic term makes the plan a piecewise linear function of the scores.

    Idea: Z(C) = argmax <C, Z> - (eps / 2) |Z|^2 over the same polytope, the projection of C / eps on it. Where no
    constraint is about to change, differentiating the optimality (KKT) conditions gives its Jacobian.

    Formula: D = (w / eps) (A - a_i - b_j) with w = 1 on pairs with a positive share and 0 elsewhere, a and b such
    that the rows of D sum to 0, and so do the columns of tasks whose bound binds (b_j = 0 elsewhere). The KKT system
    shrinks to one Laplacian system of size M per state.

    Sign: along +D the QP's objective <Z(C), A> rises.

    Solves: 1 forward (``exact``: an LP; ``soft``: a QP), a QP backward with ``exact``; a QP takes some rounds of a
    semismooth Newton method on the dual, which identifies the active set.

    Exact for: the QP's objective, except on the measure-zero set where the active set changes. It is 0 in agents
    whose share is already 1: with scores far apart compared with eps nothing is learned.
    No extra linear constraints.

    Source: Amos and Kolter, OptNet, 2017; Wilder et al., Melding the Data-Decisions Pipeline, 2019, eq. 4.
    """

    def __init__(self, options: QpOptions) -> None:
        self.options = options

    @override
    def forward(self, problem: TensorProblem, rng: torch.Generator | None) -> Plan:
        if self.options.forward == "exact":
            return Plan(problem.plan(problem.scores))
        soft = self._soft(problem)
        return Plan(soft.z, soft)

    @override
    def ascent(self, problem: TensorProblem, start: Plan, direction: Tensor, rng: torch.Generator | None) -> Ascent:
        soft: SmoothPlan = start.memory or self._soft(problem)
        return ascent(projected(direction, soft.weights, soft.binding) / self._epsilon(problem))

    def _soft(self, problem: TensorProblem) -> SmoothPlan:
        return smooth_plan(problem, Square(), self._epsilon(problem))

    def _epsilon(self, problem: TensorProblem) -> Tensor:
        return smoothing(problem, self.options.epsilon, self.options.relative_epsilon)
