from typing import Any

import numpy as np
import pytest

from modules.assignment import InfeasibleAssignment, check_feasible, make_problem, relax_capacity, solve


@pytest.mark.parametrize("solver", ["auto", "kernel", "lsa", "glop"])
def test_infeasible_names_the_state_and_its_numbers(solver: str) -> None:
    scores, tasks = np.zeros((3, 3, 2)), np.array([[True, True], [True, True], [False, True]])
    with pytest.raises(InfeasibleAssignment) as error:
        solve(make_problem(scores, [2, 2], task_mask=tasks), solver)
    for part in ("state 2 of 3", "3 living agents", "1 living tasks", "sum k = 2", "sum k >= 3", "'relax'"):
        assert part in str(error.value)
    assert isinstance(error.value, ValueError)


def test_relax_gives_the_least_uniform_capacity() -> None:
    one = relax_capacity(np.array([1]), np.ones((1, 2), bool), np.ones((1, 1), bool))
    assert one.tolist() == [[2]]
    tasks = np.array([[False, True], [True, True], [False, False]])
    relaxed = relax_capacity(np.array([2, 2]), np.ones((3, 3), bool), tasks)
    assert relaxed.tolist() == [[2, 3], [2, 2], [2, 2]]
    answer = solve(make_problem(np.zeros((3, 3, 2)), relaxed, task_mask=tasks))
    assert answer.z[0].tolist() == [[0, 1]] * 3
    assert relax_capacity(np.array([0, 4]), np.ones((1, 5), bool), np.ones((1, 2), bool)).tolist() == [[3, 4]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_scores_of_living_pairs_are_refused(bad: float) -> None:
    scores = np.zeros((2, 3, 2))
    scores[1, 2, 0] = bad
    with pytest.raises(ValueError, match=r"state 1: the score of agent 2 for task 0 is -?(nan|inf)"):
        make_problem(scores, [3, 3])
    make_problem(scores, [3, 3], agent_mask=[[1, 1, 1], [1, 1, 0]])
    make_problem(scores, [3, 3], task_mask=[[1, 1], [0, 1]])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scores": np.zeros((3, 2))}, "scores must have the shape"),
        ({"capacity": [1, 2, 3]}, r"capacity must have the shape \(2,\) or \(1, 2\), not \(3,\)"),
        ({"capacity": [3, -1]}, "state 0: the capacity of task 1 is -1; it must be 0 or more"),
        ({"capacity": [3, np.nan]}, "state 0: the capacity of task 1 is nan"),
        ({"agent_mask": [[1, 1]]}, r"agent_mask must have the shape \(1, 3\), not \(1, 2\)"),
        ({"task_mask": [1, 1]}, r"task_mask must have the shape \(1, 2\), not \(2,\)"),
    ],
)
def test_malformed_problems_are_refused(fields: dict[str, Any], message: str) -> None:
    defaults: dict[str, Any] = {"scores": np.zeros((1, 3, 2)), "capacity": [2, 2]}
    with pytest.raises(ValueError, match=message):
        make_problem(**defaults | fields)


def test_feasibility_allows_rounded_fractional_sums() -> None:
    check_feasible(make_problem(np.zeros((1, 3, 10)), [0.3] * 10))
    check_feasible(make_problem(np.zeros((1, 1, 3)), [0.1, 0.2, 0.7]))
