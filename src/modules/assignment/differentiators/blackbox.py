"""Blackbox differentiation, one-sided: the default.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from modules.assignment.differentiators.base import Ascent, Differentiator, Plan, TensorProblem, ascent
from modules.assignment.differentiators.step_size import StepOptions, step_size


class Blackbox(Differentiator):
    """Solves once more at scores moved toward a higher objective, and takes the difference.

    Idea: Z(C) is piecewise constant, its gradient 0 almost everywhere. With F(C) = max_Z <C, Z>, the objective
    <Z(C), A> is replaced by [F(C + lam A) - F(C)] / lam, which is continuous and has a gradient everywhere.

    Formula: D = (Z_lam - Z) / lam with Z_lam = Z(C + lam A); lambda absolute (``lam``) or relative (``tau``).

    Sign: Z_lam is the *better* assignment (LPMARL, eqs. 12 and 16, with dJ/dZ). In terms of g = dL/dZ it is
    Z(C - lam g) and dL/dC = (Z - Z_lam) / lam. The opposite branch C + lam g never vanishes at the optimum.

    Solves: 1 forward, 1 backward. Forward: the exact LP.

    Exact for: the piecewise linear replacement above. <D, A> is never negative, and D = 0 exactly where Z is
    already best for C + lam A. Large lambda: D points from Z to the assignment that is best under A; it asks for no
    margin, so that a network's scores can shrink until all are tied (noise on the scores prevents it, see ``imle``).
    Small lambda: closer to the objective, but 0 in most states; a wrong C with a margin above lam |A| stays.

    Source: Vlastelica et al., Differentiation of Blackbox Combinatorial Solvers, 2020, algorithm 1 and theorem 1.
    """

    def __init__(self, options: StepOptions) -> None:
        self.options = options

    @override
    def ascent(self, problem: TensorProblem, start: Plan, direction: Tensor, rng: torch.Generator | None) -> Ascent:
        size = step_size(problem, direction, self.options)
        return ascent((problem.plan(problem.scores + size * direction) - start.z) / size)
