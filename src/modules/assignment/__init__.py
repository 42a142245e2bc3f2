"""The assignment LP: problem, solvers, non-learned policies, and gradients through it."""

from modules.assignment.capacity_rules import relax_capacity, with_idle
from modules.assignment.constraints import LinearConstraint, at_most, budget, incompatible
from modules.assignment.differentiators import DIFFERENTIATORS, Differentiator, make_differentiator
from modules.assignment.feasibility import Certificate, InfeasibleAssignment, check_feasible, explain
from modules.assignment.layer import (
    AssignmentLayer,
    BlackboxStep,
    assign,
    relative_lambda,
    surrogate_loss,
)
from modules.assignment.losses import fenchel_young_loss, spo_plus_loss
from modules.assignment.policies import (
    agreement,
    capacity_violations,
    distance_ratio,
    greedy,
    lp_distance,
    random_feasible,
)
from modules.assignment.problem import AssignmentProblem, make_problem
from modules.assignment.sensitivity import PlaceValues, ScoreRange, margin, place_values, regrets, score_range
from modules.assignment.solution import Assignment, one_hot
from modules.assignment.solvers import SOLVERS, solve

__all__ = [
    "DIFFERENTIATORS",
    "SOLVERS",
    "Assignment",
    "AssignmentLayer",
    "AssignmentProblem",
    "BlackboxStep",
    "Certificate",
    "Differentiator",
    "InfeasibleAssignment",
    "LinearConstraint",
    "PlaceValues",
    "ScoreRange",
    "agreement",
    "assign",
    "at_most",
    "budget",
    "capacity_violations",
    "check_feasible",
    "distance_ratio",
    "explain",
    "fenchel_young_loss",
    "greedy",
    "incompatible",
    "lp_distance",
    "make_differentiator",
    "make_problem",
    "margin",
    "one_hot",
    "place_values",
    "random_feasible",
    "regrets",
    "relative_lambda",
    "relax_capacity",
    "score_range",
    "solve",
    "spo_plus_loss",
    "surrogate_loss",
    "with_idle",
]
