import itertools
from functools import partial

import numpy as np
import pytest
from mpe2 import simple_spread_v3
from support.worlds import DOWN, FIELDS, LEFT, RIGHT, STAY, UP, constrained, place, plain, step

from components.jit import HAVE_NUMBA
from envs.checks import check_env
from envs.navigation import ConstrainedNavigationOptions, Navigation

# --- physics -------------------------------------------------------------------------------------------------


def towards_the_middle(world, rng):
    """Actions that keep the agents in contact: each pushes towards the centre, along a random axis."""
    x = np.array([agent.state.p_pos for agent in world.agents])
    axis = rng.integers(2, size=len(x))
    positive = x[np.arange(len(x)), axis] > 0
    return 1 + 2 * axis + ~positive


def at_random(world, rng):
    return rng.integers(5, size=len(world.agents))


@pytest.mark.parametrize("numba", [False, pytest.param(True, marks=pytest.mark.skipif(not HAVE_NUMBA, reason="Numba"))])
@pytest.mark.parametrize("choose", [at_random, towards_the_middle])
@pytest.mark.parametrize("n", [3, 5])
def test_physics_and_observation_are_those_of_mpe2(n, choose, numba):
    """Start positions are copied into our world; from there both go on by themselves for a whole episode."""
    steps, contacts = 50, 0
    # Success must not end the comparison: no agent is within such a radius of a landmark.
    ours = plain(n_landmarks=n, numba=numba, occupancy_radius=1e-9, episode_limit=steps)
    theirs = simple_spread_v3.parallel_env(N=n, max_cycles=steps)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        theirs.reset(seed=seed)
        world = theirs.aec_env.unwrapped.world
        place(ours, [a.state.p_pos for a in world.agents], [m.state.p_pos for m in world.landmarks])
        for _ in range(steps):
            actions = choose(world, rng)
            observed, *_ = theirs.step({f"agent_{i}": int(action) for i, action in enumerate(actions)})
            result = step(ours, actions)
            np.testing.assert_allclose(ours.position[0], [a.state.p_pos for a in world.agents], rtol=0, atol=1e-6)
            np.testing.assert_allclose(ours.velocity[0], [a.state.p_vel for a in world.agents], rtol=0, atol=1e-6)
            # mpe2 appends two numbers of silence per other agent.
            flat = np.array([observed[f"agent_{i}"][: 4 + 2 * n + 2 * (n - 1)] for i in range(n)])
            np.testing.assert_allclose(ours.observation["obs"][0], flat, rtol=0, atol=2e-6)
        assert result["truncated"].all()
        contacts += ours.episode_metrics()["collisions"][0]
    assert contacts > (40 if choose is towards_the_middle else 0)


def test_a_push_moves_an_agent_one_step_later():
    """Positions move with the velocity before the push: 5 * 0.1 of speed first, 0.1 of it as way one step later."""
    env = place(plain(n_landmarks=1), [[0, 0]], [[0.7, 0.7]])
    step(env, RIGHT)
    np.testing.assert_allclose(env.position[0, 0], [0, 0])
    np.testing.assert_allclose(env.velocity[0, 0], [0.5, 0])
    step(env, STAY)
    np.testing.assert_allclose(env.position[0, 0], [0.05, 0])
    np.testing.assert_allclose(env.velocity[0, 0], [0.375, 0])


@pytest.mark.parametrize(("action", "direction"), [(LEFT, [-1, 0]), (RIGHT, [1, 0]), (DOWN, [0, -1]), (UP, [0, 1])])
def test_directions_of_the_actions(action, direction):
    env = place(plain(n_landmarks=1), [[0, 0]], [[0.7, 0.7]])
    step(env, action)
    np.testing.assert_allclose(env.velocity[0, 0], 0.5 * np.array(direction))


# --- compiled and NumPy step ---------------------------------------------------------------------------------

VARIANTS = list(itertools.product([plain, constrained], ["step", "delta", "first"], ["sparse", "dense"]))


@pytest.mark.skipif(not HAVE_NUMBA, reason="compares with Numba")
@pytest.mark.parametrize(("make", "rule", "rewards"), VARIANTS)
def test_compiled_and_numpy_steps_agree(make, rule, rewards):
    # Large discs, so that agents touch and landmarks are reached, lost and filled within random episodes.
    options = {"reach_reward": rule, "rewards": rewards, "agent_radius": 0.2, "occupancy_radius": 0.6}
    pair = [make(seeds=range(40), numba=numba, episode_limit=25, **options) for numba in (True, False)]
    rng = np.random.default_rng(0)
    seen = {"terminated": 0, "truncated": 0, "reached": 0}
    for _ in range(2):
        active = np.ones(40, np.bool_)
        for env in pair:
            env.reset()
        for _ in range(25):
            actions = rng.integers(5, size=pair[0].position.shape[:2])
            fast, slow = (env.step(actions, active.copy()) for env in pair)
            for name in ("terminated", "truncated"):
                np.testing.assert_array_equal(getattr(fast, name)[active], getattr(slow, name)[active])
                seen[name] += getattr(fast, name)[active].sum()
            np.testing.assert_allclose(fast.reward[active], slow.reward[active], rtol=0, atol=1e-6)
            for name in ("reward_high", "task_reward", "agent_reward"):
                np.testing.assert_allclose(fast.extras[name][active], slow.extras[name][active], rtol=0, atol=1e-6)
            for field in FIELDS:
                np.testing.assert_allclose(
                    pair[0].observation[field], pair[1].observation[field], rtol=0, atol=1e-6, err_msg=field
                )
            seen["reached"] += (fast.extras["task_reward"][active] > 0).sum()
            active &= ~(fast.terminated | fast.truncated)
        for name, value in pair[0].episode_metrics().items():
            np.testing.assert_allclose(value, pair[1].episode_metrics()[name], rtol=0, atol=1e-9, err_msg=name)
    assert min(seen.values()) > 0


# --- rewards and counting ------------------------------------------------------------------------------------

IN, OUT = [0.0, 0.0], [0.9, 0.0]
# Whether agent 0 is in its landmark's disc after each step.
IN_OUT_IN = [OUT, IN, IN, OUT, IN]
REACH = {"step": [0, 1, 1, 0, 1], "delta": [0, 1, 0, -1, 1], "first": [0, 1, 0, 0, 0]}


@pytest.mark.parametrize("numba", [False, True])
@pytest.mark.parametrize("rule", REACH)
def test_reach_rewards_of_a_path_in_out_in(rule, numba):
    env = constrained(n_agents=2, n_landmarks=1, reach_reward=rule, agent_radius=0.0, numba=numba)
    for _episode in range(2):
        place(env, [OUT, [5.0, 5.0]], [IN])
        for where, expected in zip(IN_OUT_IN, REACH[rule], strict=True):
            env.position[0, 0] = where
            result = step(env)
            assert result["task_reward"][0].tolist() == [[expected], [0]]
            assert result["agent_reward"][0].tolist() == [expected, 0]
            assert result["reward"][0] == 0.5 * expected / 2
            assert result["reward_high"][0] == 0


def test_moving_from_one_landmark_into_another_pays_by_landmark():
    env = constrained(n_agents=2, n_landmarks=2, reach_reward="delta", agent_radius=0.0)
    place(env, [IN, [5.0, 5.0]], [IN, OUT])
    first = step(env)
    assert first["task_reward"][0, 0].tolist() == [1, 0]
    assert first["agent_reward"][0].tolist() == [1, 0]
    env.position[0, 0] = OUT
    second = step(env)
    assert second["task_reward"][0, 0].tolist() == [-1, 1]
    assert second["agent_reward"][0].tolist() == [0, 0]


@pytest.mark.parametrize("numba", [False, True])
@pytest.mark.parametrize(
    ("agents_x", "capacity", "counts", "success"),
    [
        # Discs of radius 0.2 around 0 and 0.3 overlap between 0.1 and 0.2.
        ([0.12, 0.18, 0.3], [1, 2], [1, 2], True),
        ([0.12, 0.18, 0.3], [2, 1], [1, 2], False),
        ([0.12, 0.14, 0.3], [2, 1], [2, 1], True),
        ([0.12, 0.14, 0.3], [1, 2], [2, 1], False),
        ([0.12, 0.9, 0.3], [1, 2], [1, 1], False),
        ([0.12, 0.14, 0.1], [2, 1], [3, 0], False),
    ],
)
def test_an_agent_counts_for_its_nearest_landmark_only_and_each_needs_exactly_its_capacity(
    agents_x, capacity, counts, success, numba
):
    env = constrained(n_agents=3, n_landmarks=2, agent_radius=0.0, numba=numba)
    place(env, [[x, 0.0] for x in agents_x], [[0, 0], [0.3, 0]], capacity)
    result = step(env)
    assert result["task_reward"][0].sum(0).tolist() == counts
    assert (result["terminated"][0], result["truncated"][0]) == (success, False)
    assert result["reward_high"][0] == success
    assert result["reward"][0] == pytest.approx(0.5 * success + 0.5 * sum(counts) / 3)


@pytest.mark.parametrize("numba", [False, True])
@pytest.mark.parametrize(
    ("agents_x", "counts", "success"),
    [
        # The same discs: both agents are nearest to the first landmark, and one of them is within the second, too.
        ([0.12, 0.14], [2, 0], True),
        ([0.0, 0.14], [2, 0], True),
        # One agent covers both.
        ([0.14, 0.9], [1, 0], True),
        ([0.0, 0.09], [2, 0], False),
        ([0.3, 0.31], [0, 2], False),
    ],
)
def test_a_plain_landmark_needs_some_agent_within_its_disc(agents_x, counts, success, numba):
    env = plain(n_landmarks=2, agent_radius=0.0, numba=numba)
    place(env, [[x, 0.0] for x in agents_x], [[0, 0], [0.3, 0]])
    result = step(env)
    assert result["task_reward"][0].sum(0).tolist() == counts
    assert (result["terminated"][0], result["truncated"][0]) == (success, False)
    assert result["reward_high"][0] == success


@pytest.mark.parametrize("numba", [False, True])
def test_the_rim_of_a_disc_is_outside(numba):
    env = place(plain(n_landmarks=1, occupancy_radius=0.25, numba=numba), [[0.25, 0]], [[0, 0]])
    assert not step(env)["terminated"][0]
    env.position[0, 0, 0] = 0.2499
    assert step(env)["terminated"][0]


@pytest.mark.parametrize("numba", [False, True])
def test_dense_rewards_by_hand(numba):
    """Agents 0 and 1 overlap, agent 2 is alone; distances are 3-4-5 triangles."""
    env = constrained(n_agents=3, n_landmarks=2, rewards="dense", agent_radius=0.1, numba=numba)
    place(env, [[0, 0], [0.1, 0], [3, 4]], [[0, 0], [3, 0]], [1, 2])
    result = step(env)
    distance = np.array([[0, 3], [0.1, 2.9], [5, 4]])
    collisions = np.array([[1], [1], [0]])
    reach = np.array([[1, 0], [1, 0], [0, 0]])
    np.testing.assert_allclose(result["task_reward"][0], reach - 0.1 * (distance + collisions), atol=1e-6)
    np.testing.assert_allclose(result["agent_reward"][0], [1 - 0.1, 1 - 0.1 * 1.1, -0.1 * 4], atol=1e-6)
    flat = 2 / 3 - 0.1 / 3 * (0 + 2.9 + 2)
    assert result["reward"][0] == pytest.approx(0.5 * flat, abs=1e-6)


@pytest.mark.parametrize("numba", [False, True])
def test_the_time_limit_truncates_and_a_success_at_the_last_step_terminates(numba):
    env = plain(seeds=[1, 2], n_landmarks=1, episode_limit=3, numba=numba)
    place(env, [[0.9, 0]], [[0, 0]])
    for _ in range(2):
        result = step(env)
        assert not (result["terminated"] | result["truncated"]).any()
    env.position[1] = 0.0
    result = step(env)
    assert result["terminated"].tolist() == [False, True]
    assert result["truncated"].tolist() == [True, False]
    metrics = env.episode_metrics()
    assert metrics["success"].tolist() == [0, 1]
    assert np.isnan(metrics["steps_to_success"][0])
    assert metrics["steps_to_success"][1] == 3
    np.testing.assert_allclose(metrics["min_distance"], [0.9, 0])


def test_a_collision_is_an_overlapping_pair_at_the_start_of_a_step_and_a_new_episode_forgets_it():
    env = place(constrained(n_agents=3, n_landmarks=1, agent_radius=0.1), [[0, 0], [0.19, 0], [0.9, 0.9]], [[0.5, 0]])
    step(env)
    assert env.episode_metrics()["collisions"].tolist() == [1]
    place(env, [[0, 0], [0.21, 0], [0.9, 0.9]], [[0.5, 0]])
    step(env)
    assert env.episode_metrics()["collisions"].tolist() == [0]


@pytest.mark.parametrize("rule", REACH)
def test_a_restored_episode_remembers_who_has_reached_what(rule):
    options = ConstrainedNavigationOptions(reach_reward=rule, occupancy_radius=0.9)
    check_env(partial(Navigation, options, numba=False))
