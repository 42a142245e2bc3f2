"""A small share of `benchmarks/fuzz_assignment.py`, and that it notices what is wrong."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modules.assignment import Assignment, AssignmentProblem, Certificate, InfeasibleAssignment, solve

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("fuzz_assignment", ROOT / "benchmarks" / "fuzz_assignment.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fuzz_assignment", module)  # dataclasses look there
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec.loader.exec_module(module)
    return module


def test_two_thousand_problems_are_solved_rightly(program: Any) -> None:
    report = program.fuzz(2000, 1, ["kernel", "lsa"])
    assert report.wrong == []
    assert report.solved + sum(report.refused.values()) >= 2000
    assert set(report.refused) == {"places", "agents", "bounds"}
    assert min(report.features.values()) > 5
    assert set(report.worst) == {"kernel: objective", "kernel: dual objective", "lsa: objective"}


def worse(problem: AssignmentProblem, answer: Assignment) -> Assignment:
    """The assignment for the opposite scores: feasible, not best."""
    return replace(solve(problem.with_scores(-problem.scores), "kernel"), problem=problem, price=answer.price)


def crowded(problem: AssignmentProblem, answer: Assignment) -> Assignment:
    return replace(answer, index=np.where(answer.index >= 0, answer.index[:, :1], answer.index))


def dearer(problem: AssignmentProblem, answer: Assignment) -> Assignment:
    assert answer.price is not None
    return replace(answer, price=np.where(problem.task_mask, answer.price + 1e-3, 0.0))


@pytest.mark.parametrize(
    ("spoil", "noticed"),
    [(worse, "kernel: objective"), (crowded, "kernel: bounds"), (dearer, "kernel: dual objective")],
)
def test_wrong_answers_are_noticed(program: Any, spoil: Any, noticed: str) -> None:
    def spoilt(problem: AssignmentProblem, solver: str) -> Assignment:
        return spoil(problem, solve(problem, solver))

    program.solve = spoilt
    wrong = program.fuzz(64, 2, ["kernel"]).wrong
    assert any(line.endswith(noticed) for line in wrong)


def test_false_certificates_are_noticed(program: Any) -> None:
    def refused(problem: AssignmentProblem, solver: str) -> Assignment:
        tasks = tuple(np.flatnonzero(problem.task_mask[0]).tolist())
        raise InfeasibleAssignment("no", Certificate("places", 0, tasks=tasks, missing=1.0))

    program.solve = refused
    report = program.fuzz(32, 3, ["kernel"])
    assert report.solved == 0
    assert len(report.wrong) == 32
    assert "false certificate" in report.wrong[0]
