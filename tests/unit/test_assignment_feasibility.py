"""Refused states: the reason is true, names what it must, and nothing feasible is refused."""

import itertools
from typing import Any

import numpy as np
import pytest

from modules.assignment import (
    AssignmentProblem,
    Certificate,
    InfeasibleAssignment,
    LinearConstraint,
    at_most,
    budget,
    check_feasible,
    explain,
    make_problem,
    solve,
)


def refusal(problem: AssignmentProblem) -> tuple[str, Certificate]:
    with pytest.raises(InfeasibleAssignment) as error:
        check_feasible(problem)
    return str(error.value), error.value.certificate


def has_assignment(problem: AssignmentProblem, b: int) -> bool:
    """Brute force."""
    agents, tasks = np.flatnonzero(problem.agent_mask[b]), np.flatnonzero(problem.task_mask[b])
    allowed = problem.allowed()[b]
    lower = np.zeros_like(problem.capacity[b]) if problem.lower is None else problem.lower[b]
    return len(tasks) == 0 or any(
        all(lower[j] <= choice.count(j) <= problem.capacity[b, j] for j in tasks)
        and all(allowed[i, j] for i, j in zip(agents, choice, strict=True))
        for choice in itertools.product(tasks.tolist(), repeat=len(agents))
    )


def test_too_few_places_for_some_agents() -> None:
    """Agents 1, 2 and 4 share tasks 0 and 2; agent 3 is dead."""
    pairs = [[1, 1, 1], [1, 0, 0], [1, 0, 1], [1, 0, 0], [0, 0, 1]]
    problem = make_problem(np.zeros((5, 3)), [1, 5, 1], [1, 1, 1, 0, 1], pair_mask=pairs)
    message, certificate = refusal(problem)
    assert certificate == Certificate("places", 0, agents=(1, 2, 4), tasks=(0, 2), missing=1.0)
    assert message == (
        "state 0 of 1: living agents 1, 2, 4 may go to living tasks 0, 2 only. These have sum k = 2 places for 3 agents"
        ": 1 missing. Raise these capacities, allow other pairs, or choose the capacity rule 'idle'"
    )


def test_an_agent_that_may_go_nowhere() -> None:
    message, certificate = refusal(
        make_problem(np.zeros((2, 2, 2)), [2, 2], pair_mask=[[[1, 1]] * 2, [[1, 1], [0, 0]]])
    )
    assert certificate == Certificate("places", 1, agents=(1,), missing=1.0)
    assert message == (
        "state 1 of 2: living agent 1 may go to no living task. Allow other pairs, or choose the capacity rule 'idle'"
    )


def test_too_few_agents_for_the_lower_bounds() -> None:
    message, certificate = refusal(make_problem(np.zeros((1, 3, 3)), [3, 3, 3], [[1, 0, 1]], lower=[2, 0, 1]))
    assert certificate == Certificate("agents", 0, agents=(0, 2), tasks=(0, 2), missing=1.0)
    assert message == (
        "state 0 of 1: living tasks 0, 2 must get at least sum l = 3 agents, but only living agents 0, 2 may go there: "
        "1 missing. Lower these bounds"
    )
    pairs = [[1, 0, 1], [1, 0, 1], [1, 1, 1]]
    message, certificate = refusal(make_problem(np.zeros((3, 3)), [3, 3, 3], pair_mask=pairs, lower=[0, 2, 0]))
    assert certificate == Certificate("agents", 0, agents=(2,), tasks=(1,), missing=1.0)
    assert message == (
        "state 0 of 1: living task 1 must get at least sum l = 2 agents, but only living agent 2 may go there: 1 "
        "missing. Lower these bounds, or allow other pairs"
    )


def test_lower_bounds_without_a_living_agent() -> None:
    message, certificate = refusal(make_problem(np.zeros((2, 2)), [2, 2], [0, 0], lower=[1, 0]))
    assert certificate == Certificate("agents", 0, tasks=(0,), missing=1.0)
    assert "living task 0 must get at least sum l = 1 agents, but no living agent may go there: 1 missing" in message


@pytest.mark.parametrize("solver", ["auto", "kernel", "lsa", "glop"])
def test_lower_bound_above_the_number_of_agents(solver: str) -> None:
    for bound in (3, 1e300):
        with pytest.raises(InfeasibleAssignment, match=r"must get at least sum l = .* only living agents 0, 1 may go"):
            solve(make_problem(np.zeros((1, 2, 2)), [np.inf, np.inf], lower=[bound, 0]), solver)


def test_lower_bound_above_the_capacity() -> None:
    message, certificate = refusal(make_problem(np.zeros((1, 4, 2)), [4, 2], lower=[0, 3]))
    assert certificate == Certificate("bounds", 0, tasks=(1,), missing=1.0)
    assert message == (
        "state 0 of 1: living task 1 must get at least l = 3 agents, but has k = 2 places"
        ". Lower the one or raise the other"
    )


def test_fractional_places_behind_forbidden_pairs() -> None:
    pairs = [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    check_feasible(make_problem(np.zeros((3, 3)), [1.5, 0.5, 1], pair_mask=pairs))
    _, certificate = refusal(make_problem(np.zeros((3, 3)), [1.5, 0.25, 1.5], pair_mask=pairs))
    assert certificate == Certificate("places", 0, agents=(0, 1), tasks=(0, 1), missing=0.25)
    check_feasible(make_problem(np.zeros((3, 30)), [0.1] * 30, pair_mask=np.ones((3, 30), bool)))


def test_long_lists_are_cut_in_the_message_only() -> None:
    pairs = np.ones((20, 2), bool)
    pairs[:, 1] = False
    message, certificate = refusal(make_problem(np.zeros((20, 2)), [5, 20], pair_mask=pairs))
    assert certificate.agents == tuple(range(20))
    assert "living agents 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ... (20 in all) may go to living task 0 only" in message


def test_the_first_infeasible_state_is_named_by_its_place_in_the_batch() -> None:
    capacity = np.full((2, 3, 1), 2)
    capacity[1, 1] = 1
    message, certificate = refusal(make_problem(np.zeros((2, 3, 2, 1)), capacity))
    assert certificate.state == 4
    assert message.startswith(
        "state 4 (batch entry (1, 1)) of 6: 2 living agents, but 1 living tasks with sum k = 1 places"
    )


@pytest.mark.parametrize("solver", ["auto", "kernel", "lsa", "glop"])
def test_every_solver_refuses_for_the_same_reason(solver: str) -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(60):
        pairs, lower = rng.random((3, 4, 3)) > 0.4, rng.integers(0, 3, (3, 3))
        problem = make_problem(rng.normal(size=(3, 4, 3)), rng.integers(0, 5, (3, 3)), pair_mask=pairs, lower=lower)
        expected = [explain(problem, b) for b in range(3)]
        first = next((error for error in expected if error is not None), None)
        if first is None:
            assert solve(problem, solver).solver in (solver, "kernel")
            continue
        with pytest.raises(InfeasibleAssignment) as error:
            solve(problem, solver)
        assert error.value.certificate == first.certificate
        assert str(error.value) == str(first)
        seen.add(first.certificate.kind)
    assert seen == {"places", "agents", "bounds"}


def test_exactly_the_infeasible_states_are_refused() -> None:
    rng = np.random.default_rng(1)
    verdicts = []
    for n, m in [(4, 3), (3, 4), (5, 2), (1, 1), (2, 3)]:
        pairs = rng.random((40, n, m)) > rng.choice([0.0, 0.3, 0.6], (40, 1, 1))
        lower = rng.integers(0, 3, (40, m)) * (rng.random((40, 1)) < 0.5)
        problem = make_problem(
            np.zeros((40, n, m)), rng.integers(0, 4, (40, m)), rng.random((40, n)) > 0.2, rng.random((40, m)) > 0.2,
            pairs, lower,
        )  # fmt: skip
        for b in range(40):
            expected = has_assignment(problem, b)
            verdicts.append(expected)
            assert (explain(problem, b) is None) == expected
            one = problem.take(np.array([b]))
            if expected:
                check_feasible(one)
            else:
                refusal(one)
    assert 40 < sum(verdicts) < len(verdicts) - 40


def test_constraints_say_by_how_much_they_must_give_way() -> None:
    fuel = budget([[1, 4], [2, 9]], 2.5, "fuel")
    message, certificate = refusal(make_problem(np.zeros((2, 2)), [2, 2], constraints=[fuel]))
    assert certificate.kind == "constraints"
    assert certificate.relief == pytest.approx({"fuel": 0.5})
    assert message == (
        "state 0 of 1: no assignment keeps all extra constraints. At least these must give way: "
        "'fuel' (bound 2.5) by 0.5"
    )


def test_contradictory_constraints_name_the_cheapest_way_out() -> None:
    least = LinearConstraint("at least 2 on task 0", [[1, 0]] * 3, 2, ">=")
    most = at_most([0], 1, 3, 2)
    _, certificate = refusal(make_problem(np.zeros((3, 2)), [3, 3], constraints=[least, most]))
    assert sum(certificate.relief.values()) == pytest.approx(1.0)
    same = LinearConstraint("half", [[0, 1]] * 3, 4, "=")
    _, certificate = refusal(make_problem(np.zeros((3, 2)), [3, 3], constraints=[same]))
    assert certificate.relief == pytest.approx({"half": 1.0})
    nobody = LinearConstraint("somebody", np.ones((3, 2)), 1, ">=")
    _, certificate = refusal(make_problem(np.zeros((3, 2)), [3, 3], [0, 0, 0], constraints=[nobody]))
    assert certificate.relief == pytest.approx({"somebody": 1.0})


def test_constraints_that_can_be_kept_are_no_reason_to_refuse() -> None:
    constraints: list[Any] = [at_most([0], 1.5, 3, 2), LinearConstraint("w", np.ones((4, 3, 2)), [3, 3, 3, 3], "=")]
    problem = make_problem(np.zeros((4, 3, 2)), [3, 3], lower=[1, 0], constraints=constraints)
    check_feasible(problem)
    assert explain(problem, 0) is None


def test_a_state_without_a_living_task_is_never_refused() -> None:
    never = LinearConstraint("never", np.zeros((2, 2)), 1, ">=")
    problem = make_problem(
        np.zeros((1, 2, 2)), [0, 0], task_mask=[[0, 0]], pair_mask=np.zeros((2, 2)), lower=[2, 2], constraints=[never]
    )
    check_feasible(problem)
    assert explain(problem, 0) is None


@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 2), (2, 3, 0), (0, 0, 0)])
@pytest.mark.parametrize("solver", ["auto", "kernel", "lsa"])
def test_empty_sizes_with_everything_given(solver: str, shape: tuple[int, int, int]) -> None:
    b, n, m = shape
    problem = make_problem(
        np.zeros(shape), np.full((b, m), 3), np.ones((b, n)), np.ones((b, m)), np.ones(shape), np.zeros((b, m))
    )
    check_feasible(problem)
    answer = solve(problem, solver)
    assert answer.index.shape == (b, n)
    assert (answer.index == -1).all() or m > 0
    assert answer.z.shape == shape
    assert answer.value.tolist() == [0.0] * b
