"""The gradient of the LP with a quadratic regularizer, through its optimality conditions.

Shape legend: B states, N agents, M tasks.
"""

from __future__ import annotations

from modules.assignment.differentiators.smooth_plan import Square
from modules.assignment.differentiators.smoothed import Smoothed, SmoothedOptions


class Qp(Smoothed):
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

    regularizer = Square()

    def __init__(self, options: SmoothedOptions) -> None:
        self.options = options
