"""Blackbox differentiation, two-sided.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from modules.assignment.differentiators.base import Ascent, Differentiator, Plan, TensorProblem, ascent
from modules.assignment.differentiators.step_size import StepOptions, step_size


class TwoSidedBlackbox(Differentiator):
    """The central difference in the place of the one-sided one.

    Idea: with F(C) = max_Z <C, Z>, the objective <Z(C), A> is replaced by
    [F(C + lam A) - F(C - lam A)] / (2 lam), which is accurate to second order in lambda where F is smooth (as it
    is on average over noisy scores).

    Formula: D = [Z(C + lam A) - Z(C - lam A)] / (2 lam); lambda absolute (``lam``) or relative (``tau``).

    Sign: along +D the objective rises; <D, A> is never negative.

    Solves: 1 forward, 2 backward. Forward: the exact LP.

    Exact for: the replacement above. It answers in more states than the one-sided form at the same lambda, but it
    does not vanish at the optimum: with a large lambda it goes on pushing away from the worst assignment.

    Source: the central form of Vlastelica et al. 2020; as the average of both sides in Paulus et al., LPGD, 2024.
    """

    def __init__(self, options: StepOptions) -> None:
        self.options = options

    @override
    def ascent(self, problem: TensorProblem, start: Plan, direction: Tensor, rng: torch.Generator | None) -> Ascent:
        size = step_size(problem, direction, self.options)
        step = size * direction
        better, worse = problem.plan(torch.stack((problem.scores + step, problem.scores - step)))
        return ascent((better - worse) / (2.0 * size))
