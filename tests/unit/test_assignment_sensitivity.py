"""Values of places, regrets and margins against all assignments written out, and against solving again."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from components.errors import UserError
from modules.assignment import (
    Assignment,
    AssignmentProblem,
    InfeasibleAssignment,
    budget,
    make_problem,
    margin,
    place_values,
    regrets,
    score_range,
    solve,
    with_idle,
)

STATES = 30
SIZES = [(1, 1), (2, 3), (3, 3), (5, 3), (4, 4), (6, 2)]
# Scores; with ties they are small integers. Which further parts the problems have.
KINDS = ["plain", "ties", "masks", "pairs", "bounds", "everything"]
Cases = list[tuple[AssignmentProblem, Assignment]]


def random_problem(rng: np.random.Generator, n: int, m: int, kind: str, states: int = STATES) -> AssignmentProblem:
    """Feasible states: places and bounds are made around a random allowed assignment."""
    tied = kind in ("ties", "everything")
    scores = rng.integers(-2, 3, (states, n, m)).astype(float) if tied else rng.normal(size=(states, n, m))
    agents, tasks = np.ones((states, n), np.bool_), np.ones((states, m), np.bool_)
    if kind in ("masks", "everything"):
        agents, tasks = rng.random((states, n)) > 0.2, rng.random((states, m)) > 0.2
        tasks[np.arange(states), rng.integers(0, m, states)] = True
    pairs = rng.random((states, n, m)) > (0.35 if kind in ("pairs", "everything") else 0.0)
    capacity, lower = np.zeros((states, m)), np.zeros((states, m))
    for b in range(states):
        for i in np.flatnonzero(agents[b]):
            j = rng.choice(np.flatnonzero(tasks[b]))
            pairs[b, i, j] = True
            capacity[b, j] += 1
            lower[b, j] += rng.random() < 0.5
        capacity[b] += rng.integers(0, 2, m) * rng.integers(0, 2)
    scores[~(agents[:, :, None] & tasks[:, None, :])] = np.nan
    bounds = {"lower": lower} if kind in ("bounds", "everything") else {}
    return make_problem(scores, capacity, agents, tasks, pairs, **bounds)


def assignments(problem: AssignmentProblem, b: int) -> NDArray[np.int64]:
    """[X, N] every feasible assignment of state b."""
    n, m = problem.scores.shape[1:]
    allowed = problem.allowed()[b]
    choices = [np.flatnonzero(allowed[i]) if problem.agent_mask[b, i] else [-1] for i in range(n)]
    found = np.array(list(itertools.product(*choices)), np.int64).reshape(-1, n)
    load = (found[:, :, None] == np.arange(m)).sum(1)
    lower = 0 if problem.lower is None else problem.lower[b]
    return found[((load <= problem.capacity[b]) & (load >= lower)).all(1)]


def values(problem: AssignmentProblem, b: int, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    each = problem.scores[b][np.arange(chosen.shape[1]), np.maximum(chosen, 0)]
    return np.where(chosen >= 0, each, 0.0).sum(1)


def best(problem: AssignmentProblem, b: int) -> float:
    chosen = assignments(problem, b)
    return values(problem, b, chosen).max() if len(chosen) else -np.inf


def optimum(problem: AssignmentProblem) -> NDArray[np.int64]:
    every = [assignments(problem, b) for b in range(STATES)]
    return np.stack([chosen[np.argmax(values(problem, b, chosen))] for b, chosen in enumerate(every)])


def changed(problem: AssignmentProblem, **parts: Any) -> AssignmentProblem:
    known = {
        name: getattr(problem, name) for name in ("capacity", "agent_mask", "task_mask", "pair_mask", "lower")
    } | parts
    return make_problem(parts.get("scores", problem.scores), **{k: v for k, v in known.items() if k != "scores"})


@pytest.fixture(scope="module", params=KINDS)
def cases(request: pytest.FixtureRequest) -> Cases:
    rng = np.random.default_rng(KINDS.index(request.param))
    problems = [random_problem(rng, n, m, request.param) for n, m in SIZES]
    # From the list of all assignments, not from a solver: whatever optimum is found, the answers are the same.
    return [(problem, Assignment(problem, optimum(problem))) for problem in problems]


def test_the_regret_is_what_the_best_assignment_with_that_pair_loses(cases: Cases) -> None:
    for problem, answer in cases:
        found = regrets(answer)
        n, m = found.shape[1:]
        for b in range(STATES):
            every = assignments(problem, b)
            worth = values(problem, b, every)
            for i, j in itertools.product(range(n), range(m)):
                with_pair = worth[every[:, i] == j]
                expected = worth.max() - with_pair.max() if len(with_pair) else np.inf
                assert found[b, i, j] == pytest.approx(expected, abs=1e-12)


def test_the_regret_of_what_was_chosen_is_exactly_zero(cases: Cases) -> None:
    for _, answer in cases:
        found = regrets(answer)
        b, i = np.nonzero(answer.index >= 0)
        assert (found[b, i, answer.index[b, i]] == 0.0).all()
        assert (found >= 0.0).all()


def test_a_place_is_worth_what_solving_again_with_it_gains(cases: Cases) -> None:
    for problem, answer in cases:
        found = place_values(answer)
        for b, j in itertools.product(range(STATES), range(problem.scores.shape[2])):
            one = np.zeros_like(problem.capacity)
            one[b, j] = 1.0
            if not problem.task_mask[b, j]:
                assert [part[b, j] for part in found] == [0.0, 0.0, 0.0]
                continue
            start = answer.value[b]
            more = best(changed(problem, capacity=problem.capacity + one), b) - start
            assert found.more[b, j] == pytest.approx(more, abs=1e-12)
            if problem.capacity[b, j] > 0:
                fewer = start - best_with(problem, b, j)
                assert found.fewer[b, j] == pytest.approx(fewer, abs=1e-12)
            else:
                assert found.fewer[b, j] == np.inf
            if problem.lower is not None and problem.lower[b, j] > 0:
                less = best(changed(problem, lower=problem.lower - one), b) - start
                assert found.required[b, j] == pytest.approx(less, abs=1e-12)
            else:
                assert found.required[b, j] == 0.0


def best_with(problem: AssignmentProblem, b: int, j: int) -> float:
    """The best value with one place less at task j, minus infinity where nothing is feasible."""
    every = assignments(problem, b)
    kept = every[(every == j).sum(1) <= problem.capacity[b, j] - 1]
    if problem.lower is not None and problem.lower[b, j] >= problem.capacity[b, j]:
        kept = kept[:0]
    return values(problem, b, kept).max() if len(kept) else -np.inf


def test_one_more_place_is_worth_the_price_of_the_solver() -> None:
    rng = np.random.default_rng(7)
    for n, m in [(5, 3), (9, 9), (12, 4)]:
        answer = solve(random_problem(rng, n, m, "masks", 100))
        assert answer.price is not None
        found = place_values(answer)
        np.testing.assert_allclose(found.more, answer.price, atol=1e-12)
        assert (found.fewer >= found.more - 1e-12).all()


def test_a_task_below_its_bound_has_a_negative_price_that_a_lower_bound_explains() -> None:
    problem = make_problem([[[5.0, 1.0], [3.0, 2.0]]], [2, 2], lower=[0, 1])
    answer = solve(problem)
    assert answer.index.tolist() == [[0, 1]]
    found = place_values(answer)
    assert [part.tolist() for part in found] == [[[0.0, 0.0]], [[0.0, 0.0]], [[0.0, 1.0]]]
    assert answer.price is not None
    assert answer.price.tolist() == [[0.0, -1.0]]
    assert regrets(answer).tolist() == [[[0.0, 3.0], [3.0, 0.0]]]
    assert margin(answer).tolist() == [0.75]


def test_the_margin_is_the_least_loss_per_changed_entry(cases: Cases) -> None:
    for problem, answer in cases:
        found = margin(answer)
        for b in range(STATES):
            every = assignments(problem, b)
            moved = (every != answer.index[b]).sum(1)
            others = moved > 0
            ratios = (answer.value[b] - values(problem, b, every)[others]) / (2 * moved[others])
            assert found[b] == pytest.approx(ratios.min(initial=np.inf), abs=1e-12)


def nearest_rival(problem: AssignmentProblem, answer: Assignment, b: int) -> NDArray[np.int64]:
    """The assignment that overtakes the optimum first."""
    every = assignments(problem, b)
    moved = (every != answer.index[b]).sum(1)
    every, moved = every[moved > 0], moved[moved > 0]
    return every[np.argmin((answer.value[b] - values(problem, b, every)) / moved)]


def test_changes_below_the_margin_keep_the_assignment_and_the_worst_one_above_does_not() -> None:
    rng = np.random.default_rng(8)
    kept = 0
    for n, m in [(3, 3), (5, 3), (4, 4)]:
        problem = random_problem(rng, n, m, "bounds", 20)
        answer = solve(problem)
        r = margin(answer)
        for b in np.flatnonzero(np.isfinite(r)):
            for _ in range(20):
                # Corners of the cube are the worst changes.
                shift = np.zeros_like(problem.scores)
                shift[b] = (1 - 1e-9) * r[b] * rng.choice([-1.0, 1.0], (n, m))
                assert (
                    solve(changed(problem, scores=problem.scores + shift)).index[b].tolist() == answer.index[b].tolist()
                )
                kept += 1
            rival = nearest_rival(problem, answer, b)
            own, other = ((index[:, None] == np.arange(m)).astype(float) for index in (answer.index[b], rival))
            for size, stays in ((1 - 1e-9, True), (1 + 1e-9, False)):
                shift = np.zeros_like(problem.scores)
                shift[b] = size * r[b] * (other - own)
                again = solve(changed(problem, scores=problem.scores + shift)).index[b]
                assert (again.tolist() == answer.index[b].tolist()) == stays
    assert kept > 500


def test_a_score_inside_its_range_keeps_the_assignment_and_one_outside_does_not() -> None:
    rng = np.random.default_rng(9)
    seen = 0
    for kind in ("plain", "pairs", "bounds"):
        problem = random_problem(rng, 4, 3, kind, 15)
        answer = solve(problem)
        low, high = score_range(answer)
        chosen = answer.z.astype(np.bool_)
        assert (low[~chosen] == -np.inf).all()
        assert (high[chosen] == np.inf).all()
        for b, i, j in itertools.product(range(15), range(4), range(3)):
            edge = low[b, i, j] if chosen[b, i, j] else high[b, i, j]
            if not np.isfinite(edge):
                continue
            outward = -1e-9 if chosen[b, i, j] else 1e-9
            for step, stays in ((-outward, True), (outward, False)):
                scores = problem.scores.copy()
                scores[b, i, j] = edge + step
                again = solve(changed(problem, scores=scores)).index[b]
                assert (again.tolist() == answer.index[b].tolist()) == stays
                seen += 1
    assert seen > 300


def test_ties_have_no_margin() -> None:
    answer = solve(make_problem(np.ones((1, 3, 3)), [1, 1, 1]))
    assert margin(answer).tolist() == [0.0]
    assert (regrets(answer) == 0.0).all()


def test_staying_idle_is_one_more_alternative() -> None:
    answer = solve(with_idle(make_problem([[[3.0, 1.0], [2.0, 0.0]]], [1, 0]), 1.0))
    assert answer.index.tolist() == [[0, -1]]
    assert regrets(answer).tolist() == [[[0.0, np.inf, 1.0], [1.0, np.inf, 0.0]]]
    assert margin(answer).tolist() == [0.25]
    assert place_values(answer).more.tolist() == [[3.0, 1.0, 0.0]]


def test_regrets_equal_solving_again_where_all_assignments_are_too_many() -> None:
    rng = np.random.default_rng(10)
    problem = random_problem(rng, 20, 8, "masks", 3)
    answer = solve(problem)
    found = regrets(answer)
    for b, i, j in zip(rng.integers(0, 3, 60), rng.integers(0, 20, 60), rng.integers(0, 8, 60), strict=True):
        if not (problem.agent_mask[b, i] and problem.task_mask[b, j]):
            assert found[b, i, j] == np.inf
            continue
        pairs = np.ones((20, 8), np.bool_)
        pairs[i] = np.arange(8) == j
        try:
            forced = solve(changed(problem.take(np.array([b])), pair_mask=pairs[None])).value[0]
        except InfeasibleAssignment:
            forced = -np.inf
        assert found[b, i, j] == pytest.approx(answer.value[b] - forced, abs=1e-9)


@pytest.mark.parametrize("solver", ["lsa", "glop"])
def test_it_does_not_matter_which_back_end_solved_the_problem(solver: str) -> None:
    problem = random_problem(np.random.default_rng(11), 6, 4, "masks")
    first, other = solve(problem, "kernel"), solve(problem, solver)
    assert (first.index == other.index).all()
    np.testing.assert_allclose(regrets(other), regrets(first), atol=1e-12)
    np.testing.assert_allclose(margin(other), margin(first), atol=1e-12)
    for mine, its in zip(place_values(first), place_values(other), strict=True):
        np.testing.assert_allclose(mine, its, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_everything_has_the_unit_of_the_scores(scale: float) -> None:
    problem = random_problem(np.random.default_rng(12), 5, 4, "bounds")
    small, large = solve(problem), solve(changed(problem, scores=problem.scores * scale))
    for function in (regrets, margin):
        np.testing.assert_allclose(function(large), function(small) * scale, rtol=1e-9, atol=1e-12 * scale)
    for mine, its in zip(place_values(small), place_values(large), strict=True):
        np.testing.assert_allclose(its, mine * scale, rtol=1e-9, atol=1e-12 * scale)


@pytest.mark.parametrize("solver", ["kernel", "lsa", "torch"])
def test_what_rounding_made_of_an_optimum_is_not_refused(solver: str) -> None:
    # Beside scores of 1e15 the digits of the others are lost: an exchange may seem to gain.
    problem = random_problem(np.random.default_rng(14), 20, 10, "plain", 200)
    offset = np.where(np.arange(20) % 3 == 0, 1e15, 0.0)
    answer = solve(changed(problem, scores=problem.scores + offset[:, None]), solver)
    assert np.isfinite(margin(answer)).all()
    assert (regrets(answer) >= 0.0).all()


def test_a_state_does_not_depend_on_its_neighbors() -> None:
    problem = random_problem(np.random.default_rng(13), 5, 4, "everything")
    whole, alone = solve(problem), solve(problem.take(np.array([17])))
    np.testing.assert_array_equal(regrets(whole)[17], regrets(alone)[0])
    assert margin(whole)[17] == margin(alone)[0]
    np.testing.assert_array_equal(place_values(whole).more[17], place_values(alone).more[0])


@pytest.mark.parametrize(("b", "n", "m"), [(0, 3, 2), (2, 0, 2), (2, 3, 0)])
def test_empty_batches_have_empty_answers(b: int, n: int, m: int) -> None:
    answer = solve(make_problem(np.zeros((b, n, m)), np.full((b, m), n)))
    assert regrets(answer).shape == (b, n, m)
    assert margin(answer).tolist() == [np.inf] * b
    assert place_values(answer).more.shape == (b, m)
    assert score_range(answer).lowest.shape == (b, n, m)


def test_agents_and_tasks_that_are_out_have_no_alternatives() -> None:
    scores = np.array([[[3.0, np.nan], [np.nan, np.nan]]])
    answer = solve(make_problem(scores, [2, 2], [[True, False]], [[True, False]]))
    assert regrets(answer).tolist() == [[[0.0, np.inf], [np.inf, np.inf]]]
    assert margin(answer).tolist() == [np.inf]
    low, high = score_range(answer)
    assert (low == -np.inf).all()
    assert (high == np.inf).all()


def test_an_assignment_that_is_not_optimal_is_refused() -> None:
    problem = make_problem([[[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]], [1, 1])
    wrong = Assignment(problem, np.array([[0, 1], [1, 0]]))
    for function in (regrets, margin, place_values):
        with pytest.raises(ValueError, match="state 1: the assignment is not optimal"):
            function(wrong)


def test_fractional_capacities_are_refused() -> None:
    answer = solve(make_problem(np.zeros((1, 2, 2)), [1.5, 0.5]), "glop")
    with pytest.raises(UserError, match="state 0 has fractional capacities"):
        regrets(answer)


def test_extra_constraints_are_refused_by_name() -> None:
    limit = budget(np.ones((2, 2)), 2.0)
    answer = solve(make_problem(np.zeros((1, 2, 2)), [2, 2], constraints=(limit,)))
    for function in (regrets, margin, place_values):
        with pytest.raises(UserError, match=limit.name):
            function(answer)
