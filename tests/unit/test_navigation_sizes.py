"""Episodes of drawn sizes: what is absent takes no part, and what is there plays as in a world of that size."""

from functools import partial

import numpy as np
import pytest
from support.worlds import FIELDS, constrained, place

from components.config import load_config
from components.errors import UserError
from envs.checks import check_env
from envs.navigation import ConstrainedNavigationOptions, Navigation
from envs.navigation_draws import draw_sizes

DRAWN = {"n_agents": 5, "n_landmarks": 3, "min_agents": 2, "min_landmarks": 1}


def test_agents_are_uniform_and_then_landmarks_uniform_up_to_the_agents():
    grid = (np.arange(60) + 0.5) / 60
    draws = np.array([[a, b] for a in grid for b in grid])
    kinds, counts = np.unique(draw_sizes(draws, (2, 1), (5, 3)), axis=0, return_counts=True)
    found = dict(zip(map(tuple, kinds.tolist()), counts.tolist(), strict=True))
    assert found == {(n, m): 3600 // 4 // min(n, 3) for n in (2, 3, 4, 5) for m in range(1, min(n, 3) + 1)}


@pytest.mark.parametrize("numba", [False, True])
def test_what_is_absent_is_seen_nowhere_and_does_nothing(numba):
    env = constrained(range(60), (*FIELDS, "travel_time"), numba, rewards="dense", agent_radius=0.3, **DRAWN)
    rng, everyone = np.random.default_rng(0), np.ones(60, np.bool_)
    sizes = []
    for _ in range(2):
        env.reset()
        see = env.observation
        n, m = see["agent_alive"].sum(1), see["task_alive"].sum(1)
        sizes += list(zip(n.tolist(), m.tolist(), strict=True))
        agents, landmarks = np.arange(5) < n[:, None], np.arange(3) < m[:, None]
        np.testing.assert_array_equal(see["agent_alive"], agents)
        np.testing.assert_array_equal(see["task_alive"], landmarks)
        np.testing.assert_array_equal(see["avail_actions"][..., 1:], np.repeat(agents[..., None], 4, -1))
        assert (see["avail_actions"][..., 0] == 1).all()
        np.testing.assert_array_equal(see["capacity"].sum(1), n)
        np.testing.assert_array_equal(see["capacity"] > 0, landmarks)
        for _ in range(8):
            result = env.step(rng.integers(5, size=(60, 5)), everyone)
            for name in ("agent_feats", "obs", "travel_time"):
                assert (see[name][~agents] == 0).all(), name
            assert (see["task_feats"][~landmarks] == 0).all()
            assert (see["travel_time"].transpose(0, 2, 1)[~landmarks] == 0).all()
            assert (see["state"][:, :20].reshape(60, 5, 4)[~agents] == 0).all()
            assert (env.velocity[~agents] == 0).all()
            task_reward = result.extras["task_reward"]
            assert (task_reward[~agents] == 0).all()
            assert (result.extras["agent_reward"][~agents] == 0).all()
            assert (task_reward.transpose(0, 2, 1)[~landmarks] == 0).all()
    assert set(sizes) == {(n, m) for n in (2, 3, 4, 5) for m in range(1, min(n, 3) + 1)}


@pytest.mark.parametrize("numba", [False, True])
@pytest.mark.parametrize("rule", ["step", "delta", "first"])
def test_a_smaller_episode_is_one_of_a_world_of_that_size(rule, numba):
    """Large discs, so that agents touch, reach and fill landmarks."""
    options = {"rewards": "dense", "reach_reward": rule, "agent_radius": 0.2, "occupancy_radius": 0.9}
    padded = constrained(range(200), numba=numba, **DRAWN, **options)
    padded.reset()
    see = padded.observation
    rows = np.flatnonzero((see["agent_alive"].sum(1) == 3) & (see["task_alive"].sum(1) == 2))[:8]
    exact = constrained(range(8), numba=numba, n_agents=3, n_landmarks=2, **options)
    place(exact, padded.position[rows, :3], padded.landmark[rows, :2], padded.capacity[rows, :2])
    rng, active = np.random.default_rng(0), np.ones(8, np.bool_)
    ended = 0
    for _ in range(50):
        actions = rng.integers(5, size=(200, 5))
        chosen = np.zeros(200, np.bool_)
        chosen[rows] = active
        large, small = padded.step(actions, chosen), exact.step(actions[rows, :3], active.copy())
        for name in ("reward", "terminated", "truncated"):
            np.testing.assert_array_equal(getattr(large, name)[rows][active], getattr(small, name)[active])
        np.testing.assert_array_equal(
            large.extras["task_reward"][rows][active][:, :3, :2], small.extras["task_reward"][active]
        )
        np.testing.assert_array_equal(
            large.extras["agent_reward"][rows][active][:, :3], small.extras["agent_reward"][active]
        )
        np.testing.assert_array_equal(see["agent_feats"][rows][active][:, :3], exact.observation["agent_feats"][active])
        np.testing.assert_array_equal(see["task_feats"][rows][active][:, :2], exact.observation["task_feats"][active])
        # The flat row of an exact world, its blocks padded to 3 landmarks and 4 other agents.
        flat = see["obs"][rows][active][:, :3, [*range(8), 10, 11, *range(13, 17)]]
        np.testing.assert_array_equal(flat, exact.observation["obs"][active])
        active &= ~(small.terminated | small.truncated)
        ended += small.terminated.sum()
    assert ended > 0
    for name, value in exact.episode_metrics().items():
        np.testing.assert_allclose(padded.episode_metrics()[name][rows], value, rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("numba", [False, True])
@pytest.mark.parametrize("given", [DRAWN, {"min_landmarks": 1}])
def test_drawn_sizes_keep_the_contract(numba, given):
    check_env(partial(Navigation, ConstrainedNavigationOptions(**given), numba=numba))


def test_sizes_leave_the_positions_of_a_seed_as_they_are():
    drawn, always = constrained([3], **DRAWN), constrained([3])
    drawn.reset()
    always.reset()
    n, m = drawn.observation["agent_alive"].sum(), drawn.observation["task_alive"].sum()
    np.testing.assert_array_equal(drawn.position[:, :n], always.position[:, :n])
    np.testing.assert_array_equal(drawn.landmark[:, :m], always.landmark[:, :m])


def test_a_state_from_before_there_were_sizes_is_restored():
    env, other = constrained([1, 2]), constrained([3, 4])
    env.reset()
    state = env.state_dict()
    for name in ("sizes", "push", "needed", "held", "agent_extra", "task_extra"):
        del state["worlds"][name]
    other.load_state_dict(state)
    for name in FIELDS:
        np.testing.assert_array_equal(other.observation[name], env.observation[name])


WRONG = [
    ("constrained_navigation", ["min_agents=6"], r"min_agents = 6 is more than env_args\.n_agents = 5"),
    ("constrained_navigation", ["min_landmarks=4"], r"min_landmarks = 4 is more than env_args\.n_landmarks = 3"),
    ("constrained_navigation", ["min_agents=2"], r"n_landmarks \(min_landmarks is null\) = 3 .*min_landmarks <= 2"),
    ("constrained_navigation", ["min_agents=2", "min_landmarks=3"], r"env_args\.min_landmarks = 3 .*min_agents = 2"),
    ("constrained_navigation", ["min_agents=0"], r"env_args\.min_agents = 0"),
    ("constrained_navigation", ["min_agents=4", "capacities=[1, 1, 3]"], r"capacities = \[1, 1, 3\] fixes the sizes"),
    ("navigation", ["min_agents=3"], r"plain navigation draws no sizes; use env-config constrained_navigation"),
    ("navigation", ["min_agents=1"], r"plain navigation draws no sizes"),
]


@pytest.mark.parametrize(("name", "given", "message"), WRONG)
def test_sizes_that_do_not_fit_are_refused(name, given, message):
    with pytest.raises(UserError, match=message):
        load_config("qmix", name, [f"env_args.{pair}" for pair in given])
