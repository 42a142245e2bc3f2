from typing import Any

import numpy as np
import pytest

from modules.assignment import (
    InfeasibleAssignment,
    LinearConstraint,
    at_most,
    budget,
    check_feasible,
    incompatible,
    make_problem,
    relax_capacity,
    solve,
    with_idle,
)


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
        ({"scores": np.zeros(3)}, r"scores must have the shape \[..., agents, tasks\], not \(3,\)"),
        ({"capacity": [1, 2, 3]}, r"capacity must have the shape \(2,\) or \(1, 2\), not \(3,\)"),
        ({"capacity": [3, -1]}, "state 0: the capacity of task 1 is -1; it must be 0 or more"),
        ({"capacity": [3, np.nan]}, "state 0: the capacity of task 1 is nan"),
        ({"agent_mask": [[1, 1]]}, r"agent_mask must have the shape \(1, 3\), not \(1, 2\)"),
        ({"task_mask": [1, 1]}, r"task_mask must have the shape \(1, 2\), not \(2,\)"),
        ({"pair_mask": [[1, 1]]}, r"pair_mask must have the shape \(3, 2\) or \(1, 3, 2\), not \(1, 2\)"),
        ({"lower": [1, 1, 1]}, r"lower must have the shape \(2,\) or \(1, 2\), not \(3,\)"),
        ({"lower": [0, -1]}, "state 0: the lower bound of task 1 is -1; it must be a finite number, 0 or more"),
        ({"lower": [0, np.nan]}, "state 0: the lower bound of task 1 is nan"),
        ({"lower": [np.inf, 0]}, "state 0: the lower bound of task 0 is inf"),
        ({"constraints": [budget(np.ones((2, 3)), 1)]}, r"'budget': weights must have the shape \(3, 2\) or"),
        (
            {"constraints": [budget(np.ones((3, 2)), [1, 2])]},
            r"'budget': bound must be a number or have the shape \(1,\)",
        ),
        ({"constraints": [budget(np.full((3, 2), np.nan), 1)]}, "'budget': weights and bound must be finite"),
        ({"constraints": [budget(np.ones((3, 2)), np.inf)]}, "'budget': weights and bound must be finite"),
        ({"constraints": [budget(np.ones((3, 2)), 1)] * 2}, "two constraints have the same name: 'budget'"),
        (
            {"constraints": [LinearConstraint("odd", np.ones((3, 2)), 1, "<")]},  # type: ignore[arg-type]
            "'odd': the sense must be one of <=, >=, =, not '<'",
        ),
    ],
)
def test_malformed_problems_are_refused(fields: dict[str, Any], message: str) -> None:
    defaults: dict[str, Any] = {"scores": np.zeros((1, 3, 2)), "capacity": [2, 2]}
    with pytest.raises(ValueError, match=message):
        make_problem(**defaults | fields)


def test_feasibility_allows_rounded_fractional_sums() -> None:
    check_feasible(make_problem(np.zeros((1, 3, 10)), [0.3] * 10))
    check_feasible(make_problem(np.zeros((1, 1, 3)), [0.1, 0.2, 0.7]))


def test_any_leading_shape_is_solved_state_by_state() -> None:
    rng = np.random.default_rng(0)
    scores, pairs = rng.normal(size=(2, 3, 4, 3)), rng.random((2, 3, 4, 3)) > 0.2
    pairs[..., 2] = True
    fields = {"capacity": rng.integers(4, 6, (2, 3, 3)), "lower": rng.integers(0, 2, (2, 3, 3))}
    fields["lower"][..., :2] = 0
    masks = {"agent_mask": rng.random((2, 3, 4)) > 0.1, "task_mask": np.ones((2, 3, 3), bool)}
    masks["agent_mask"][..., 0] = True
    problem = make_problem(scores, **fields, **masks, pair_mask=pairs)
    assert problem.batch_shape == (2, 3)
    assert problem.scores.shape == (6, 4, 3)
    answer = solve(problem)
    for t in range(2):
        for b in range(3):
            one = make_problem(
                scores[t, b], **{name: x[t, b] for name, x in (fields | masks).items()}, pair_mask=pairs[t, b]
            )
            assert one.batch_shape == ()
            np.testing.assert_array_equal(solve(one).index[0], answer.index[3 * t + b])


def test_what_is_given_once_counts_for_every_state() -> None:
    problem = make_problem(
        np.zeros((2, 2, 3, 2)), [2, 3], pair_mask=[[1, 0], [1, 1], [1, 1]], lower=[1, 0],
        constraints=[budget([[1, 2], [3, 4], [5, 6]], 10)],
    )  # fmt: skip
    for array in (problem.capacity, problem.lower):
        assert array is not None
        assert array.shape == (4, 2)
        assert (array == array[0]).all()
    assert problem.pair_mask is not None
    assert problem.pair_mask.shape == (4, 3, 2)
    assert not problem.pair_mask[:, 0, 1].any()
    assert problem.constraints[0].bound.tolist() == [10] * 4


def test_messages_name_the_place_in_a_batch_of_several_axes() -> None:
    scores = np.zeros((2, 3, 2, 2))
    scores[1, 0, 1, 1] = np.nan
    with pytest.raises(ValueError, match=r"state 3 \(batch entry \(1, 0\)\): the score of agent 1 for task 1 is nan"):
        make_problem(scores, [2, 2])


def test_forbidden_pairs_may_hold_anything() -> None:
    scores = np.array([[[np.nan, 1.0], [2.0, np.inf]]])
    problem = make_problem(scores, [2, 2], pair_mask=[[0, 1], [1, 0]])
    for solver in ("kernel", "lsa"):
        answer = solve(problem, solver)
        assert answer.index.tolist() == [[1, 0]]
        assert answer.value.tolist() == [3.0]


def test_bounds_of_dead_tasks_do_not_count() -> None:
    problem = make_problem(np.zeros((1, 2, 2)), [2, 0], task_mask=[[1, 0]], lower=[1, 5])
    assert problem.lower is not None
    assert problem.lower.tolist() == [[1, 0]]
    assert solve(problem).index.tolist() == [[0, 0]]


def test_taking_states_takes_everything_with_them() -> None:
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(5, 3, 2))
    problem = make_problem(
        rng.normal(size=(5, 3, 2)), [3, 3], pair_mask=rng.random((5, 3, 2)) > 0.5, lower=rng.integers(0, 2, (5, 2)),
        constraints=[LinearConstraint("w", weights, np.arange(5.0))],
    )  # fmt: skip
    part = problem.take(np.array([4, 1]))
    assert part.batch_shape == (2,)
    assert problem.lower is not None
    assert part.lower is not None
    np.testing.assert_array_equal(part.lower, problem.lower[[4, 1]])
    np.testing.assert_array_equal(part.allowed(), problem.allowed()[[4, 1]])
    taken, bound = part.constraints[0].of(0)
    np.testing.assert_array_equal(taken, weights[4])
    assert bound == 4.0


def test_other_scores_leave_the_rest_as_it_is() -> None:
    problem = make_problem(np.zeros((2, 2, 2, 2)), [2, 2], lower=[1, 1])
    other = problem.with_scores(problem.scores + 1.0)
    assert (other.scores == 1.0).all()
    assert other.lower is problem.lower
    assert other.batch_shape == (2, 2)


def test_makers_of_constraints_say_what_they_mean() -> None:
    z = np.zeros((1, 3, 2))
    z[0, [0, 1, 2], [0, 0, 1]] = 1.0

    def broken(*constraints: LinearConstraint) -> dict[str, float]:
        flat = [constraint.flat((1,), 3, 2) for constraint in constraints]
        return {one.name: float(one.violation(z)[0]) for one in flat if one.violation(z)[0]}

    assert broken(budget([[1, 9], [2, 9], [9, 4]], 5.5, "fuel")) == {"fuel": 1.5}
    assert broken(*incompatible(0, 1, 3, 2)) == {"agents 0 and 1 not both at task 0": 1.0}
    assert broken(*incompatible(0, 2, 3, 2)) == {}
    assert broken(at_most([0], 1, 3, 2)) == {"at most 1 agents on tasks 0": 1.0}
    assert broken(at_most([0, 1], 3, 3, 2)) == {}
    assert broken(LinearConstraint("both", np.ones((3, 2)), 5, ">=")) == {"both": 2.0}
    assert broken(LinearConstraint("both", np.ones((3, 2)), 2, "=")) == {"both": 1.0}
    for call in (lambda: incompatible(1, 1, 3, 2), lambda: incompatible(0, 3, 3, 2), lambda: at_most([2], 1, 3, 2)):
        with pytest.raises(ValueError, match=r"itself|there is no agent 3|there is no task 2"):
            call()


@pytest.mark.parametrize("solver", ["auto", "kernel", "lsa", "glop"])
def test_idle_agents_pay_their_price_and_have_no_task(solver: str) -> None:
    scores = np.array([[[5.0, 1.0], [4.0, 1.0], [3.0, -9.0]]])
    problem = with_idle(make_problem(scores, [1, 1], [[1, 1, 1]]), 2.0)
    answer = solve(problem, solver)
    assert answer.index.tolist() == [[0, 1, -1]]
    assert answer.value.tolist() == [5.0 + 1.0 - 2.0]
    assert answer.z[0].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    cheap = solve(with_idle(make_problem(scores, [1, 1]), -1.5), solver)
    assert cheap.index.tolist() == [[0, -1, -1]]


def test_idle_makes_every_state_feasible_and_keeps_dead_agents_out() -> None:
    agents, tasks = [[1, 1, 1], [1, 0, 1]], [[1, 0], [0, 0]]
    answer = solve(with_idle(make_problem(np.zeros((2, 3, 2)), [1, 1], agents, tasks), [1.0, 2.0]))
    assert answer.index.tolist() == [[0, -1, -1], [-1, -1, -1]]
    assert answer.value.tolist() == [-2.0, -4.0]
    assert answer.z[1].tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 1]]


def test_idle_keeps_pairs_bounds_and_constraints() -> None:
    problem = with_idle(make_problem(np.ones((1, 3, 2)), [3, 3], pair_mask=[[0, 0], [1, 1], [1, 1]], lower=[0, 1]), 0.0)
    answer = solve(problem)
    assert answer.index[0, 0] == -1
    assert sorted(answer.index[0, 1:].tolist()) == [0, 1]
    limited = with_idle(make_problem(np.ones((1, 3, 2)), [3, 3], constraints=[at_most([0, 1], 1, 3, 2)]), 0.0)
    assert limited.constraints[0].weights.shape == (3, 3)
    assert solve(limited).value == pytest.approx([1.0])


def test_idle_price_must_be_a_number_per_state() -> None:
    problem = make_problem(np.zeros((2, 1, 1)), [1])
    for price in (np.nan, np.inf, [1.0, 2.0, 3.0]):
        with pytest.raises(ValueError, match="the price of staying idle must be a finite number"):
            with_idle(problem, price)
    with pytest.raises(ValueError, match="already has an idle task"):
        with_idle(with_idle(problem, 1.0), 1.0)
