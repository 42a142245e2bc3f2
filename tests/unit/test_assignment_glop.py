"""GLOP on what only a general LP solver can do. What it shares with the other solvers: test_assignment_solvers.py."""

from dataclasses import replace

import numpy as np
import pytest
from ortools.linear_solver import pywraplp
from support.assignment_lps import SHAPES, dual_objective, general_problem, optimum, random_problem, violation

from modules.assignment import (
    InfeasibleAssignment,
    LinearConstraint,
    at_most,
    budget,
    glop,
    incompatible,
    make_problem,
    solve,
    with_idle,
)


@pytest.mark.parametrize(("n", "m"), SHAPES)
def test_general_problems_are_solved_as_by_highs(n: int, m: int) -> None:
    problem = general_problem(np.random.default_rng([n, m]), 40, n, m)
    answer = solve(problem, "glop")
    assert violation(problem, answer.z) < 1e-8
    np.testing.assert_allclose(answer.value, optimum(problem), atol=1e-9)
    assert answer.solver == "glop"
    if m > 1:
        assert ((answer.z > 0.01) & (answer.z < 0.99)).any()


@pytest.mark.parametrize(("n", "m"), SHAPES)
def test_prices_certify_the_optimum_of_fractional_problems(n: int, m: int) -> None:
    problem = replace(general_problem(np.random.default_rng([n, m, 1]), 40, n, m), constraints=())
    answer = solve(problem, "glop")
    assert answer.price is not None
    assert problem.lower is not None
    np.testing.assert_allclose(answer.value, optimum(problem), atol=1e-9)
    np.testing.assert_allclose(dual_objective(problem, answer.price), answer.value, atol=1e-8)
    assert (answer.price[problem.lower == 0] >= 0).all()
    assert (answer.price[~problem.task_mask] == 0).all()


def test_scarce_places_have_a_positive_price_and_binding_lower_bounds_a_negative_one() -> None:
    scarce = solve(make_problem([[[1.0, 0.0], [3.0, 0.0]]], [1.5, 2]), "glop")
    assert scarce.price is not None
    np.testing.assert_allclose(scarce.price, [[1.0, 0.0]], atol=1e-9)
    forced = solve(make_problem([[[0.0, -1.0], [0.0, -3.0]]], [2, 2], lower=[0, 0.5]), "glop")
    assert forced.price is not None
    np.testing.assert_allclose(forced.price, [[0.0, -1.0]], atol=1e-9)
    np.testing.assert_allclose(forced.z, [[[0.5, 0.5], [1.0, 0.0]]], atol=1e-9)


def test_pywraplp_finds_the_same_optimum() -> None:
    """The fast way into GLOP is no public interface of OR-Tools; this one is."""
    problem = random_problem(np.random.default_rng(1), 20, 6, 4, pairs=True, bounds=True)
    answer = solve(problem, "glop")
    assert problem.lower is not None
    for b in range(20):
        solver = pywraplp.Solver.CreateSolver("GLOP")
        z = {(i, j): solver.NumVar(0.0, 1.0, "") for i, j in np.argwhere(problem.allowed()[b]).tolist()}
        for i in np.flatnonzero(problem.agent_mask[b]):
            solver.Add(sum(z[i, j] for j in range(4) if (i, j) in z) == 1)
        for j in np.flatnonzero(problem.task_mask[b]):
            load = sum(z[i, j] for i in range(6) if (i, j) in z) + solver.NumVar(0.0, 0.0, "")
            solver.Add(load <= problem.capacity[b, j])
            solver.Add(load >= problem.lower[b, j])
        solver.Maximize(sum(problem.scores[b, i, j] * z[i, j] for i, j in z))
        assert solver.Solve() == pywraplp.Solver.OPTIMAL
        assert solver.Objective().Value() == pytest.approx(answer.value[b], abs=1e-6)


def test_a_budget_cuts_an_agent_in_two() -> None:
    """Task 0 pays 2 and 1 and costs 1 each; 1.25 can be spent."""
    scores, costs = [[[2.0, 0.0], [1.0, 0.0]]], [[1.0, 0.0], [1.0, 0.0]]
    answer = solve(make_problem(scores, [2, 2], constraints=[budget(costs, 1.25)]))
    assert answer.solver == "glop"
    np.testing.assert_allclose(answer.z, [[[1.0, 0.0], [0.25, 0.75]]], atol=1e-9)
    np.testing.assert_allclose(answer.value, [2.25], atol=1e-9)
    assert answer.index.tolist() == [[0, 1]]


def test_constraints_may_differ_between_states() -> None:
    scores, costs = np.ones((2, 1, 2)) * [2.0, 0.0], np.array([[[1.0, 0.0]], [[2.0, 0.0]]])
    z = solve(make_problem(scores, [1, 1], constraints=[budget(costs, [0.75, 0.5])])).z
    np.testing.assert_allclose(z[:, 0, 0], [0.75, 0.25], atol=1e-9)


def test_incompatible_agents_share_no_task_and_groups_of_tasks_are_limited() -> None:
    scores = np.array([[[5.0, 1.0, 0.0], [4.0, 1.0, 0.0], [3.0, 2.0, 0.0]]])
    rules = [*incompatible(0, 1, 3, 3), at_most([0, 1], 2, 3, 3)]
    answer = solve(make_problem(scores, [3, 3, 3], constraints=rules))
    assert answer.value == pytest.approx(8.0)
    assert answer.index.tolist() == [[0, 2, 0]]


def test_idle_agents_keep_a_budget() -> None:
    scores, costs = np.array([[[2.0, 1.0], [2.0, 1.0]]]), np.array([[1.0, 1.0], [1.0, 1.0]])
    problem = with_idle(make_problem(scores, [2, 2], constraints=[budget(costs, 1.0)]), 0.0)
    answer = solve(problem)
    assert sorted(answer.index[0].tolist()) == [-1, 0]
    assert answer.value == pytest.approx(2.0)


def test_whole_capacities_without_constraints_give_no_shares() -> None:
    answer = solve(random_problem(np.random.default_rng(2), 20, 5, 3), "glop")
    assert answer.shares is None
    assert solve(make_problem(np.zeros((1, 2, 2)), [2, 1.5]), "glop").shares is not None


def test_contradictory_constraints_are_named_with_the_amount_that_they_must_give_way() -> None:
    both_at_0 = LinearConstraint("both at task 0", [[1.0, 0.0], [1.0, 0.0]], 2.0, ">=")
    few_at_0 = at_most([0], 1.25, 2, 2)
    spare = budget(np.ones((2, 2)), 10.0)
    problem = make_problem(np.zeros((3, 2, 2)), [2, 2], constraints=[both_at_0, few_at_0, spare])
    with pytest.raises(InfeasibleAssignment, match=r"^state 0.*'.*' \(bound .*\) by 0\.75") as caught:
        solve(problem)
    relief = caught.value.certificate.relief
    assert relief.keys() <= {"both at task 0", few_at_0.name}
    assert sum(relief.values()) == pytest.approx(0.75)


def test_only_the_state_whose_constraints_contradict_is_named() -> None:
    limits = np.array([5.0, 5.0, -1.0, 5.0])
    with pytest.raises(InfeasibleAssignment, match=r"state 2 of 4: .*'budget' \(bound -1\) by 1") as caught:
        solve(make_problem(np.zeros((4, 1, 2)), [1, 1], constraints=[budget([[0.0, 3.0]], limits)]), "glop")
    assert caught.value.certificate.state == 2


def test_constraints_hold_also_where_nobody_lives() -> None:
    needs_one = LinearConstraint("one at task 0", [[1.0, 0.0]], 1.0, ">=")
    problem = make_problem(np.zeros((1, 1, 2)), [1, 1], [[False]], constraints=[needs_one])
    with pytest.raises(InfeasibleAssignment, match="'one at task 0'"):
        solve(problem)
    assert solve(replace(problem, task_mask=np.zeros((1, 2), np.bool_))).index.tolist() == [[-1]]


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_scale_of_scores_and_weights_does_not_matter(scale: float) -> None:
    problem = general_problem(np.random.default_rng(3), 30, 5, 4)
    scaled = replace(
        problem.with_scores(problem.scores * scale),
        constraints=tuple(
            replace(constraint, weights=constraint.weights * scale, bound=constraint.bound * scale)
            for constraint in problem.constraints
        ),
    )
    np.testing.assert_allclose(solve(scaled).value / scale, solve(problem).value, atol=1e-9)


def test_order_and_size_of_the_batch_do_not_matter() -> None:
    problem = general_problem(np.random.default_rng(4), 30, 6, 4)
    problem = problem.with_scores(np.rint(problem.scores))
    whole = solve(problem, "glop")
    order = np.random.default_rng(5).permutation(30)
    np.testing.assert_array_equal(solve(problem.take(order), "glop").z, whole.z[order])
    for b in range(0, 30, 7):
        np.testing.assert_array_equal(solve(problem.take(np.array([b])), "glop").z[0], whole.z[b])


def test_dead_agents_and_tasks_change_nothing() -> None:
    """Also on ties: padding must not decide which of two equal solutions comes out."""
    rng = np.random.default_rng(6)
    scores, costs = rng.integers(0, 3, (20, 4, 3)).astype(float), rng.random((4, 3))
    alone = solve(make_problem(scores, [1.5, 1.5, 1.5], constraints=[budget(costs, 2.5)]))
    agents, tasks = np.array([1, 1, 0, 1, 1], np.bool_), np.array([0, 1, 1, 1], np.bool_)
    padded_scores, padded_costs = np.full((20, 5, 4), np.nan), np.full((5, 4), 7.0)
    padded_scores[:, np.ix_(agents, tasks)[0], np.ix_(agents, tasks)[1]] = scores
    padded_costs[np.ix_(agents, tasks)] = costs
    padded = solve(
        make_problem(
            padded_scores,
            [9, 1.5, 1.5, 1.5],
            np.tile(agents, (20, 1)),
            np.tile(tasks, (20, 1)),
            constraints=[budget(padded_costs, 2.5)],
        )
    )
    np.testing.assert_array_equal(padded.z[:, agents][:, :, tasks], alone.z)
    assert padded.z.sum() == pytest.approx(80.0)


def test_what_glop_says_instead_of_an_optimum_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glop, "PARAMETERS", "no_such_parameter: true")
    with pytest.raises(RuntimeError, match="state 0: GLOP ended with INVALID_SOLVER_PARAMETERS"):
        solve(make_problem(np.zeros((1, 1, 1)), [1]), "glop")
