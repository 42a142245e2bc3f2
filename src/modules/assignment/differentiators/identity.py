"""The straight-through gradient, with the directions that change no assignment taken out.

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
from modules.assignment.differentiators.step_size import without_row_means


class IdentityOptions(Options):
    """What is taken out of the gradient."""

    project: Literal["invariant", "rows", "rows_and_columns", "nothing"] = Field(
        "invariant", description="means taken out: what changes no assignment, or a fixed choice"
    )


class Identity(Differentiator):
    """Passes the gradient through as if Z were C.

    Idea: A says which pairs are worth more; C moves straight along it. A constant per agent changes no assignment,
    nor does a constant per task in a state in which every place is always filled (sum k = living agents): these
    parts of A are projected out, so that C does not drift along them.

    Formula: D = A - a_i - b_j over allowed pairs, with a and b such that the rows (and columns) of D sum to 0.
    Column means are taken out only where they are an invariance, unless ``project`` says otherwise:
    with spare places they carry the signal that a task is worth more to everybody.

    Sign: along +D the objective rises.

    Solves: 1 forward, 0 backward. Forward: the exact LP.

    Exact for: <D, A> = |D|^2 >= 0 and, with plain gradient steps, C tends to the direction of A, whose LP is the
    optimum for a fixed A. It knows nothing of Z or of capacities, does not vanish at the optimum, and an optimizer
    that rescales entries (Adam) bends C away from A: expect drift.

    Source: Sahoo et al., Backpropagation through Combinatorial Algorithms: Identity with Projection Works, 2023.
    """

    def __init__(self, options: IdentityOptions) -> None:
        self.options = options

    @override
    def ascent(self, problem: TensorProblem, start: Plan, direction: Tensor, rng: torch.Generator | None) -> Ascent:
        if self.options.project == "nothing":
            return ascent(direction)
        if self.options.project == "rows":
            return ascent(without_row_means(direction, problem.allowed))
        columns = problem.task_mask
        if self.options.project == "invariant":
            columns = columns & always_full(problem).unsqueeze(1)
        return ascent(projected(direction, problem.allowed.to(torch.float64), columns))


def always_full(problem: TensorProblem) -> Tensor:
    """[B] states in which every place is filled by every assignment: sum k = living agents."""
    places = torch.where(problem.task_mask, problem.capacity, 0.0).sum(1)
    return places == problem.agent_mask.sum(1)
