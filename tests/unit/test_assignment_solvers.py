import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linprog

from components.errors import UserError
from modules.assignment import (
    SOLVERS,
    Assignment,
    AssignmentProblem,
    budget,
    explain,
    make_problem,
    solve,
)
from modules.assignment import solvers as solvers_module

INTEGRAL_SOLVERS = ["auto", "kernel", "lsa", "glop"]
EXACT_SOLVERS = ["kernel", "lsa"]
STATES_PER_SHAPE = 100


def random_problem(
    rng: np.random.Generator, states: int, n: int, m: int, ties: bool = False, bounded: bool = False
) -> AssignmentProblem:
    """Feasible states: tight and slack capacities, zero capacities, dead agents and tasks.

    ``bounded`` adds forbidden pairs and lower bounds, both around the loads of a random assignment.
    """
    scores = rng.integers(-2, 3, (states, n, m)).astype(float) if ties else rng.normal(size=(states, n, m))
    agents, tasks = rng.random((states, n)) > 0.2, rng.random((states, m)) > 0.2
    tasks[np.arange(states), rng.integers(0, m, states)] = True
    capacity = np.zeros((states, m), np.int64)
    for b in range(states):
        places = agents[b].sum() + (rng.integers(0, n + 1) if b % 2 else 0)
        np.add.at(capacity[b], rng.choice(np.flatnonzero(tasks[b]), places), 1)
    capacity[~tasks] = n
    if not bounded:
        scores[~(agents[:, :, None] & tasks[:, None, :])] = np.nan
        return make_problem(scores, capacity, agents, tasks)
    start = solve(make_problem(rng.random((states, n, m)), capacity, agents, tasks), "lsa").z
    pairs = (start > 0) | (rng.random((states, n, m)) > rng.choice([0.0, 0.4, 0.7], (states, 1, 1)))
    lower = np.maximum(start.sum(1) - rng.integers(0, 2, (states, m)), 0.0) * (rng.random((states, m)) > 0.3)
    scores[~(agents[:, :, None] & tasks[:, None, :] & pairs)] = np.nan
    return make_problem(scores, capacity, agents, tasks, pairs, lower)


def shapes_of_1000() -> list[tuple[int, int]]:
    return [(1, 1), (2, 3), (3, 3), (5, 3), (4, 6), (7, 5), (8, 2), (9, 9), (6, 1), (12, 4)]


def lower_of(problem: AssignmentProblem) -> NDArray:
    return np.zeros_like(problem.capacity) if problem.lower is None else problem.lower


def highs(problem: AssignmentProblem, b: int) -> float:
    """Objective of state b's LP by SciPy's HiGHS."""
    rows, columns = np.flatnonzero(problem.agent_mask[b]), np.flatnonzero(problem.task_mask[b])
    n, m = len(rows), len(columns)
    if n * m == 0:
        return 0.0
    grid = np.ix_(rows, columns)
    places = np.kron(np.ones((1, n)), np.eye(m))
    result = linprog(
        -np.nan_to_num(problem.scores[b][grid].ravel()),
        A_ub=np.vstack([places, -places]),
        b_ub=np.concatenate([np.minimum(problem.capacity[b, columns], n), -lower_of(problem)[b, columns]]),
        A_eq=np.kron(np.eye(n), np.ones((1, m))),
        b_eq=np.ones(n),
        bounds=[(0.0, float(allowed)) for allowed in problem.allowed()[b][grid].ravel()],
        method="highs",
    )
    assert result.status == 0
    return -result.fun


def dual_objective(problem: AssignmentProblem, price: NDArray) -> NDArray:
    allowed = problem.allowed()
    net = np.where(allowed, problem.scores - price[:, None, :], -np.inf).max(2)
    bounds = problem.capacity * np.maximum(price, 0.0) - lower_of(problem) * np.maximum(-price, 0.0)
    return np.where(allowed.any(2), net, 0.0).sum(1) + (bounds * problem.task_mask).sum(1)


def assert_feasible(problem: AssignmentProblem, answer: Assignment, atol: float = 0.0) -> None:
    z = answer.z
    live = problem.task_mask.any(1, keepdims=True) & problem.agent_mask
    np.testing.assert_allclose(z.sum(2), live, atol=atol)
    assert (z.sum(1) <= problem.capacity + atol).all()
    assert (z.sum(1) >= lower_of(problem) - atol).all()
    assert (z[~problem.allowed()] == 0).all()


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "pairs and bounds"])
def problems(request: pytest.FixtureRequest) -> list[AssignmentProblem]:
    rng = np.random.default_rng(1)
    return [
        random_problem(rng, STATES_PER_SHAPE, n, m, ties=k % 3 == 2, bounded=request.param)
        for k, (n, m) in enumerate(shapes_of_1000())
    ]


@pytest.mark.parametrize("solver", INTEGRAL_SOLVERS)
def test_solvers_agree_on_1000_problems(problems: list[AssignmentProblem], solver: str) -> None:
    for problem in problems:
        answer, reference = solve(problem, solver), solve(problem, "lsa")
        assert set(np.unique(answer.z)) <= {0.0, 1.0}
        assert_feasible(problem, answer)
        np.testing.assert_allclose(answer.value, reference.value, atol=1e-9)
        assert answer.index.dtype == np.int64
        assert ((answer.index == -1) == ~problem.agent_mask).all()


def test_objective_is_that_of_the_general_lp(problems: list[AssignmentProblem]) -> None:
    for problem in problems:
        value = solve(problem, "kernel").value
        for b in range(STATES_PER_SHAPE):
            assert value[b] == pytest.approx(highs(problem, b), abs=1e-9)


@pytest.mark.parametrize(("solver", "atol"), [("kernel", 1e-12), ("glop", 1e-8)])
def test_prices_certify_the_optimum(problems: list[AssignmentProblem], solver: str, atol: float) -> None:
    for problem in problems:
        answer = solve(problem, solver)
        assert answer.price is not None
        assert (answer.price[lower_of(problem) == 0] >= 0).all()
        assert (answer.price[~problem.task_mask] == 0).all()
        np.testing.assert_allclose(dual_objective(problem, answer.price), answer.value, atol=atol)


@pytest.mark.parametrize("bounded", [False, True])
def test_price_is_the_worth_of_one_more_place(bounded: bool) -> None:
    problem = random_problem(np.random.default_rng(2), 200, 6, 4, bounded=bounded)
    answer = solve(problem, "kernel")
    assert answer.price is not None
    assert (answer.price > 0.1).any()
    for j in range(4):
        capacity = problem.capacity.copy()
        capacity[:, j] += problem.task_mask[:, j]
        more = solve(replace(problem, capacity=capacity), "lsa")
        worth = np.maximum(answer.price[:, j], 0.0)
        np.testing.assert_allclose(more.value - answer.value, worth, atol=1e-12)


def test_prices_of_lower_bounds_are_the_least_that_go_with_those_of_the_places() -> None:
    """The dual LP with the positive prices given and the negative ones as near to 0 as they can be, by HiGHS."""
    problem = random_problem(np.random.default_rng(12), 120, 5, 4, bounded=True)
    answer = solve(problem, "kernel")
    assert answer.price is not None
    negative = 0
    for b in range(120):
        agents, tasks = np.flatnonzero(problem.agent_mask[b]), np.flatnonzero(problem.task_mask[b])
        price, n, m = answer.price[b, tasks], len(agents), len(tasks)
        high, lower = np.maximum(price, 0.0), lower_of(problem)[b, tasks]
        pairs = [(i, j) for i in range(n) for j in range(m) if problem.allowed()[b, agents[i], tasks[j]]]
        # Variables: y of the agents, w of the lower bounds; p = high - w, w at most high's room only if l > 0.
        rows = np.zeros((len(pairs), n + m))
        for row, (i, j) in zip(rows, pairs, strict=True):
            row[i], row[n + j] = -1.0, 1.0
        right = [high[j] - problem.scores[b, agents[i], tasks[j]] for i, j in pairs]
        capacity = np.minimum(problem.capacity[b, tasks], n)
        result = linprog(
            np.r_[np.zeros(n), np.ones(m)],
            A_ub=np.vstack([rows, np.r_[np.ones(n), -lower]]),
            b_ub=[*right, answer.value[b] - capacity @ high + 1e-10],
            bounds=[(None, None)] * n
            + [(0.0, None if j > 0 and h == 0 else 0.0) for j, h in zip(lower, high, strict=True)],
            method="highs",
        )
        assert result.status == 0
        np.testing.assert_allclose(high - result.x[n:], price, atol=1e-6)
        negative += int((price < -0.1).sum())
    assert negative > 20


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("solver", ["kernel", "glop"])
def test_scale_of_the_scores_does_not_matter(solver: str, scale: float) -> None:
    problem = random_problem(np.random.default_rng(3), 60, 5, 4)
    scaled = make_problem(problem.scores * scale, problem.capacity, problem.agent_mask, problem.task_mask)
    np.testing.assert_allclose(solve(scaled, solver).value, solve(scaled, "lsa").value, rtol=1e-12, atol=1e-9 * scale)


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("solver", INTEGRAL_SOLVERS)
def test_order_and_size_of_the_batch_do_not_matter(solver: str, bounded: bool) -> None:
    problem = random_problem(np.random.default_rng(4), 60, 6, 4, ties=True, bounded=bounded)
    whole = solve(problem, solver)
    order = np.random.default_rng(5).permutation(60)
    np.testing.assert_array_equal(solve(problem.take(order), solver).index, whole.index[order])
    for b in range(0, 60, 7):
        np.testing.assert_array_equal(solve(problem.take(np.array([b])), solver).index[0], whole.index[b])


def test_ties_go_to_the_lowest_index_when_there_is_room() -> None:
    assert solve(make_problem(np.zeros((1, 3, 4)), [3, 3, 3, 3])).index.tolist() == [[0, 0, 0]]


def test_kernel_recognizes_infeasible_states_by_itself() -> None:
    from modules.assignment.kernel import solve_batch

    rng = np.random.default_rng(6)
    capacity, agents = rng.integers(0, 3, (300, 3)), rng.random((300, 4)) > 0.2
    tasks = rng.random((300, 3)) > 0.2
    feasible = solve_batch(rng.normal(size=(300, 4, 3)), capacity, agents, tasks)[2]
    expected = ((capacity * tasks).sum(1) >= agents.sum(1)) | ~tasks.any(1)
    assert 0 < expected.sum() < 300
    np.testing.assert_array_equal(feasible, expected)


def test_kernel_recognizes_states_without_enough_allowed_places_or_agents_by_itself() -> None:
    from modules.assignment.kernel import solve_batch

    rng = np.random.default_rng(13)
    problem = make_problem(
        rng.normal(size=(400, 4, 3)), rng.integers(0, 4, (400, 3)), rng.random((400, 4)) > 0.2,
        rng.random((400, 3)) > 0.2, rng.random((400, 4, 3)) > 0.3, rng.integers(0, 3, (400, 3)),
    )  # fmt: skip
    assert problem.lower is not None
    capacity, lower = (bound.astype(np.int64) for bound in (problem.capacity, problem.lower))
    masks = problem.agent_mask, problem.task_mask, problem.pair_mask
    feasible = solve_batch(problem.scores, capacity, *masks, lower)[2]
    expected = [explain(problem, b) is None for b in range(400)]
    assert 20 < sum(expected) < 380
    np.testing.assert_array_equal(feasible, expected)


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from modules.assignment import kernel

    problem = random_problem(np.random.default_rng(14), 203, 6, 4, ties=True, bounded=True)
    asked: list[int] = []

    class CountingPool(ThreadPoolExecutor):
        def __init__(self, workers: int) -> None:
            asked.append(workers)
            super().__init__(workers)

    monkeypatch.setattr(kernel, "ThreadPoolExecutor", CountingPool)
    monkeypatch.setattr(kernel.config, "NUMBA_NUM_THREADS", 3)
    alone = solve(problem, "kernel")
    assert asked == []
    monkeypatch.setattr(kernel, "SCORES_PER_THREAD", 100)
    shared = solve(problem, "kernel")
    assert asked == [3]
    np.testing.assert_array_equal(shared.index, alone.index)
    np.testing.assert_array_equal(shared.price, alone.price)
    monkeypatch.setattr(kernel.config, "NUMBA_NUM_THREADS", 1)
    solve(problem, "kernel")
    assert asked == [3]


@pytest.mark.parametrize("solver", INTEGRAL_SOLVERS)
def test_nobody_alive_nothing_alive_one_task(solver: str) -> None:
    scores = np.full((3, 2, 2), np.nan)
    scores[2, :, 0] = 1.5
    agents, tasks = np.array([[0, 0], [1, 1], [1, 1]]), np.array([[1, 1], [0, 0], [1, 0]])
    answer = solve(make_problem(scores, [2, 2], agents, tasks), solver)
    assert answer.index.tolist() == [[-1, -1], [-1, -1], [0, 0]]
    assert answer.value.tolist() == [0, 0, 3]
    assert np.isfinite(answer.z).all()
    assert answer.price is None or np.isfinite(answer.price).all()


@pytest.mark.parametrize("solver", INTEGRAL_SOLVERS)
@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 2), (2, 3, 0)])
def test_empty_sizes(solver: str, shape: tuple[int, int, int]) -> None:
    answer = solve(make_problem(np.zeros(shape), np.full(shape[2], 3)), solver)
    assert answer.index.shape == shape[:2]
    assert answer.z.shape == shape
    assert (answer.value == 0).all()


def test_unlimited_capacity() -> None:
    scores = np.random.default_rng(7).normal(size=(20, 4, 3))
    for solver in INTEGRAL_SOLVERS:
        index = solve(make_problem(scores, [np.inf] * 3), solver).index
        np.testing.assert_array_equal(index, scores.argmax(2))


def fractional_problem(states: int = 40) -> AssignmentProblem:
    rng = np.random.default_rng(8)
    return make_problem(rng.normal(size=(states, 5, 4)), [1.2, 1.1, 1.5, 1.4], rng.random((states, 5)) > 0.1)


@pytest.mark.parametrize("solver", ["auto", "glop"])
def test_fractional_capacities_go_to_the_general_lp(solver: str) -> None:
    problem = fractional_problem()
    answer = solve(problem, solver)
    assert_feasible(problem, answer, atol=1e-8)
    assert ((answer.z > 0.01) & (answer.z < 0.99)).any()
    np.testing.assert_allclose(answer.value, [highs(problem, b) for b in range(40)], atol=1e-9)
    np.testing.assert_array_equal(answer.index[problem.agent_mask], answer.z.argmax(2)[problem.agent_mask])


@pytest.mark.parametrize("solver", EXACT_SOLVERS)
def test_matching_solvers_refuse_fractional_capacities(solver: str) -> None:
    with pytest.raises(UserError, match=r"state 0 has \[1.2, 1.1, 1.5, 1.4\]: use the solver 'auto' or 'glop'"):
        solve(fractional_problem(), solver)


@pytest.mark.parametrize("solver", EXACT_SOLVERS)
def test_matching_solvers_refuse_fractional_lower_bounds_and_constraints(solver: str) -> None:
    with pytest.raises(
        UserError, match=r"state 0 has \[2.0, 2.0\] and lower bounds \[0.5, 0.0\]: use the solver 'auto'"
    ):
        solve(make_problem(np.zeros((1, 2, 2)), [2, 2], lower=[0.5, 0]), solver)
    with pytest.raises(
        UserError, match=r"knows no extra constraints, but the problem has 'fuel': use the solver 'auto'"
    ):
        solve(make_problem(np.zeros((1, 2, 2)), [2, 2], constraints=[budget(np.ones((2, 2)), 5, "fuel")]), solver)


def test_answers_say_which_solver_was_at_work() -> None:
    problem = make_problem(np.zeros((2, 2, 2)), [[2, 2], [2, 1.5]])
    assert solve(problem.take(np.array([0]))).solver == "kernel"
    assert solve(problem.take(np.array([1]))).solver == "glop"
    assert solve(problem).solver == "kernel+glop"
    for solver in ("kernel", "lsa", "glop"):
        assert solve(problem.take(np.array([0])), solver).solver == solver


def test_auto_treats_each_state_of_a_mixed_batch_alone() -> None:
    problem = random_problem(np.random.default_rng(9), 30, 4, 3, ties=True)
    capacity = problem.capacity.copy()
    capacity[::3] += 0.5
    mixed = AssignmentProblem(problem.scores, capacity, problem.agent_mask, problem.task_mask)
    answer, exact = solve(mixed), solve(problem, "kernel")
    whole = np.arange(30) % 3 > 0
    assert answer.price is not None
    assert exact.price is not None
    np.testing.assert_array_equal(answer.index[whole], exact.index[whole])
    np.testing.assert_array_equal(answer.price[whole], exact.price[whole])
    np.testing.assert_allclose(answer.value[~whole], [highs(mixed, b) for b in range(0, 30, 3)], atol=1e-9)


def hide(monkeypatch: pytest.MonkeyPatch, package: str, module: str) -> None:
    for name in [name for name in sys.modules if name == package or name.startswith(package + ".")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, module, raising=False)


@pytest.mark.parametrize(("solver", "package"), [("glop", "ortools"), ("kernel", "numba")])
def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, solver: str, package: str) -> None:
    hide(monkeypatch, package, f"modules.assignment.{solver}")
    with pytest.raises(UserError, match=f"'{solver}' needs the package '{package}'.*pip install {package}"):
        solve(make_problem(np.zeros((1, 2, 2)), [1, 1]), solver)


def test_auto_falls_back_without_numba(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    problem = random_problem(np.random.default_rng(10), 10, 4, 3)
    expected = solve(problem, "lsa")
    hide(monkeypatch, "numba", "modules.assignment.kernel")
    solvers_module.exact_solver.cache_clear()
    try:
        answer = solve(problem)
    finally:
        solvers_module.exact_solver.cache_clear()
    np.testing.assert_array_equal(answer.index, expected.index)
    assert answer.price is None
    assert "numba" in caplog.text


def test_unknown_solver_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="did you mean 'glop'"):
        solve(make_problem(np.zeros((1, 1, 1)), [1]), "glopp")
    assert set(SOLVERS) == {"auto", "kernel", "lsa", "glop", "torch"}


def test_best_feasible_value_counts_a_clash_once() -> None:
    """Two agents that both want task 0 of capacity 1: the per-agent maximum would be 2."""
    assert solve(make_problem([[[1.0, 0.0], [1.0, 0.0]]], [1, 1])).value.tolist() == [1.0]


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("solver", INTEGRAL_SOLVERS)
def test_against_all_assignments(solver: str, bounded: bool) -> None:
    """Brute force: independent of every LP or matching code."""
    problem = random_problem(np.random.default_rng(11), 60, 4, 3, bounded=bounded)
    value, allowed = solve(problem, solver).value, problem.allowed()
    for b in range(60):
        rows, columns = np.flatnonzero(problem.agent_mask[b]), np.flatnonzero(problem.task_mask[b])
        best = max(
            sum(problem.scores[b, i, j] for i, j in zip(rows, choice, strict=True))
            for choice in itertools.product(columns, repeat=len(rows))
            if all(lower_of(problem)[b, j] <= choice.count(j) <= problem.capacity[b, j] for j in columns)
            and allowed[b, rows, choice].all()
        )
        assert value[b] == pytest.approx(best, abs=1e-12)


def test_importing_the_package_needs_neither_numba_nor_ortools() -> None:
    code = "import sys; sys.modules['numba'] = sys.modules['ortools'] = None; import modules.assignment as a; a.solve"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
