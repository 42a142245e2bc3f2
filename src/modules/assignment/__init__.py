"""The assignment LP: problem, solvers, non-learned policies, and gradients through it."""

from modules.assignment.layer import (
    BlackboxAssignment,
    BlackboxStep,
    assign,
    relative_lambda,
    surrogate_loss,
)
from modules.assignment.policies import (
    agreement,
    capacity_violations,
    distance_ratio,
    greedy,
    lp_distance,
    random_feasible,
)
from modules.assignment.problem import (
    AssignmentProblem,
    InfeasibleAssignment,
    check_feasible,
    make_problem,
    relax_capacity,
)
from modules.assignment.solution import Assignment, one_hot
from modules.assignment.solvers import SOLVERS, solve

__all__ = [
    "SOLVERS",
    "Assignment",
    "AssignmentProblem",
    "BlackboxAssignment",
    "BlackboxStep",
    "InfeasibleAssignment",
    "agreement",
    "assign",
    "capacity_violations",
    "check_feasible",
    "distance_ratio",
    "greedy",
    "lp_distance",
    "make_problem",
    "one_hot",
    "random_feasible",
    "relative_lambda",
    "relax_capacity",
    "solve",
    "surrogate_loss",
]
