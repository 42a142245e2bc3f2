"""The ways to differentiate through the assignment LP, by name."""

from modules.assignment.differentiators.base import (
    DIFFERENTIATORS,
    Ascent,
    Differentiator,
    Plan,
    TensorProblem,
    make_differentiator,
    tensor_problem,
)

_HERE = "modules.assignment.differentiators"

for _name, _class, _options in (
    ("blackbox", "blackbox:Blackbox", "step_size:StepOptions"),
    ("blackbox_two_sided", "blackbox_two_sided:TwoSidedBlackbox", "step_size:StepOptions"),
    ("imle", "imle:Imle", "imle:ImleOptions"),
    ("perturbed", "perturbed:Perturbed", "perturbed:PerturbedOptions"),
    ("score_function", "score_function:ScoreFunction", "score_function:ScoreFunctionOptions"),
    ("sinkhorn", "sinkhorn:Sinkhorn", "sinkhorn:SinkhornOptions"),
    ("identity", "identity:Identity", "identity:IdentityOptions"),
    ("fenchel_young", "fenchel_young:FenchelYoung", "fenchel_young:FenchelYoungOptions"),
    ("spo_plus", "spo_plus:SpoPlus", "spo_plus:SpoPlusOptions"),
    ("qp", "qp:Qp", "smoothed:SmoothedOptions"),
):
    DIFFERENTIATORS.add(_name, f"{_HERE}.{_class}", f"{_HERE}.{_options}")

__all__ = [
    "DIFFERENTIATORS",
    "Ascent",
    "Differentiator",
    "Plan",
    "TensorProblem",
    "make_differentiator",
    "tensor_problem",
]
