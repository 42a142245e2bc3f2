import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from modules.assignment import (
    agreement,
    capacity_violations,
    distance_ratio,
    greedy,
    lp_distance,
    random_feasible,
    relax_capacity,
)

STATES = 80


@pytest.fixture(scope="module", params=[(3, 3), (4, 3), (4, 2), (2, 4), (1, 1)])
def world(request: pytest.FixtureRequest) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Distances, feasible capacities, agent mask, task mask."""
    n, m = request.param
    rng = np.random.default_rng(n * 10 + m)
    agents, tasks = rng.random((STATES, n)) > 0.2, rng.random((STATES, m)) > 0.2
    capacity = relax_capacity(rng.integers(0, 3, (STATES, m)), agents, tasks)
    return rng.random((STATES, n, m)), capacity, agents, tasks


def feasible_choices(capacity: NDArray, agents: NDArray, tasks: NDArray) -> list[tuple[int, ...]]:
    """All assignments of one state, as a tuple over agents with -1 for those that are out."""
    options = [np.flatnonzero(tasks).tolist() if alive and tasks.any() else [-1] for alive in agents]
    choices = itertools.product(*options)
    return [c for c in choices if all(c.count(j) <= capacity[j] for j in np.flatnonzero(tasks))]


def length(choice: tuple[int, ...], distance: NDArray) -> float:
    return sum(distance[i, j] for i, j in enumerate(choice) if j >= 0)


def test_lp_distance_is_the_shortest_feasible_assignment(world: tuple[NDArray, ...]) -> None:
    distance, capacity, agents, tasks = world
    index = lp_distance(distance, capacity, agents, tasks)
    for b in range(STATES):
        choices = feasible_choices(capacity[b], agents[b], tasks[b])
        assert tuple(index[b].tolist()) == min(choices, key=lambda choice: length(choice, distance[b]))


def test_greedy_is_the_nearest_task_of_each_agent(world: tuple[NDArray, ...]) -> None:
    distance, _, agents, tasks = world
    index = greedy(distance, agents, tasks)
    for b, i in itertools.product(range(STATES), range(agents.shape[1])):
        living = np.flatnonzero(tasks[b])
        expected = min(living, key=lambda j: distance[b, i, j]) if agents[b, i] and len(living) else -1
        assert index[b, i] == expected


def test_random_feasible_is_feasible_and_follows_its_generator(world: tuple[NDArray, ...]) -> None:
    _, capacity, agents, tasks = world
    index = random_feasible(np.random.default_rng(0), capacity, agents, tasks)
    for b in range(STATES):
        assert tuple(index[b].tolist()) in feasible_choices(capacity[b], agents[b], tasks[b])
    again = random_feasible(np.random.default_rng(0), capacity, agents, tasks)
    np.testing.assert_array_equal(index, again)


def test_random_feasible_reaches_every_assignment_equally_often() -> None:
    everyone = np.ones((6000, 3), bool)
    index = random_feasible(np.random.default_rng(1), [1, 1, 1], everyone, everyone)
    _, counts = np.unique(index, axis=0, return_counts=True)
    assert len(counts) == 6
    assert np.abs(counts - 1000).max() < 150


def test_all_policies_agree_on_what_is_out() -> None:
    agents, tasks = np.array([[0, 1], [1, 1], [0, 0]], bool), np.array([[0, 1], [0, 0], [1, 1]], bool)
    distance = np.where(tasks[:, None, :], 1.0, np.nan).repeat(2, 1)
    for index in (
        lp_distance(distance, [2, 2], agents, tasks),
        greedy(distance, agents, tasks),
        random_feasible(np.random.default_rng(0), [2, 2], agents, tasks),
    ):
        assert index.tolist() == [[-1, 1], [-1, -1], [-1, -1]]
        assert index.dtype == np.int64


def test_agreement_counts_living_agents() -> None:
    index, reference = np.array([[0, 1, 2], [0, 0, -1], [-1, -1, -1]]), np.array([[0, 2, 2], [0, 1, -1], [-1, -1, -1]])
    living = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 0]], bool)
    np.testing.assert_allclose(agreement(index, reference, living), [2 / 3, 1.0, 1.0])


def test_distance_ratio_by_hand() -> None:
    distance = np.array([[1.0, 3.0], [2.0, 1.0]])[None].repeat(4, 0)
    distance[3] = [[0.0, 1.0], [0.0, 0.0]]
    index, reference = np.array([[1, 0], [1, -1], [-1, -1], [1, 0]]), np.array([[0, 1], [0, 0], [-1, -1], [0, 0]])
    living = np.array([[1, 1], [1, 1], [0, 0], [1, 1]], bool)
    np.testing.assert_allclose(distance_ratio(index, reference, distance, living), [2.5, 3.0, 1.0, np.inf])
    dead = np.array([[0, 1]] + [[0, 0]] * 3, bool)
    np.testing.assert_allclose(distance_ratio(index, reference, distance, dead), [2.0, 1.0, 1.0, 1.0])


def test_greedy_is_never_longer_than_the_lp(world: tuple[NDArray, ...]) -> None:
    distance, capacity, agents, tasks = world
    near, reference = greedy(distance, agents, tasks), lp_distance(distance, capacity, agents, tasks)
    assert (distance_ratio(near, reference, distance, agents) <= 1 + 1e-12).all()


def test_capacity_violations_by_hand() -> None:
    index = np.array([[0, 0, 0, 1], [0, 1, 2, -1], [-1, -1, -1, -1]])
    assert capacity_violations(index, [1, 1, 1]).tolist() == [2, 0, 0]
    assert capacity_violations(index, np.array([[3, 0, 0], [1, 0, 0], [0, 0, 0]])).tolist() == [1, 2, 0]
    assert capacity_violations(index, [1.5, 1, 1]).tolist() == [2, 0, 0]


def test_feasible_policies_never_violate(world: tuple[NDArray, ...]) -> None:
    distance, capacity, agents, tasks = world
    places = capacity * tasks
    assert (capacity_violations(lp_distance(distance, capacity, agents, tasks), places) == 0).all()
