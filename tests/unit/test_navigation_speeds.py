"""navigation_speeds: who is slow, which draws are kept, what is seen, and how hard it is."""

from functools import partial

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from support.hand_control import play
from support.worlds import FIELDS

from components.config import load_config
from components.errors import UserError
from envs.base import derive_seeds
from envs.checks import check_env
from envs.navigation import Navigation
from envs.navigation_speeds import NavigationSpeeds, NavigationSpeedsOptions, assignable


def speeds(seeds=(1,), fields=FIELDS, numba=True, **options):
    return NavigationSpeeds(NavigationSpeedsOptions(**options), seeds, fields, numba=numba)


def test_assignable_is_what_scipy_matches():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        n, m = rng.integers(1, 8), rng.integers(1, 5)
        allowed = rng.random((1, n, m)) < rng.uniform(0.2, 0.8)
        capacity = rng.integers(0, 4, (1, m))
        # Absent agents and landmarks allow nothing and must not matter.
        padded = np.zeros((1, n + 2, m + 1), np.bool_)
        padded[:, :n, :m] = allowed
        given = assignable(padded, np.append(capacity, [[9]], 1), np.array([[n, m]]))
        seats = np.repeat(allowed[0], capacity[0], axis=1)
        matched = maximum_bipartite_matching(csr_matrix(seats), perm_type="column") if seats.size else np.array([-1])
        assert given[0] == (matched >= 0).all()
        found.append(given[0])
    assert 50 < sum(found) < 250


@pytest.mark.parametrize(("share", "n", "slow"), [(0.5, 5, 2), (0.3, 10, 3), (0.29, 100, 29), (0, 5, 0), (1, 4, 4)])
def test_the_share_of_slow_agents_is_rounded_down_and_they_are_drawn(share, n, slow):
    env = speeds(range(30), n_agents=n, slow_share=share, slack=0, episode_limit=200)
    env.reset()
    is_slow = env._world.push == 1.0
    assert (is_slow.sum(1) == slow).all()
    assert (env._world.push[~is_slow] == 5.0).all()
    if 0 < slow < n:
        assert len(np.unique(is_slow, axis=0)) > 5


@pytest.mark.parametrize("numba", [False, True])
def test_every_episode_can_be_assigned_in_time_and_few_draws_are_kept(numba):
    env = speeds(derive_seeds(5, 0, 100), ("travel_time", "capacity"), numba)
    env.reset()
    for times, capacity in zip(env.observation["travel_time"], env.capacity, strict=True):
        seats = np.repeat(times <= 19, capacity, axis=1)
        assert (maximum_bipartite_matching(csr_matrix(seats), perm_type="column") >= 0).all()


@pytest.mark.parametrize(("m", "n", "kept"), [(3, 5, 0.40), (5, 7, 0.46), (10, 10, 0.63)])
def test_the_share_of_kept_draws_is_that_of_the_findings(m, n, kept):
    rows = np.arange(2000)
    env = speeds(derive_seeds(5, 0, 2000), (), n_landmarks=m, n_agents=n)
    Navigation._start(env, rows)
    assert env._solvable(rows).mean() == pytest.approx(kept, abs=0.03)


def test_the_draws_of_an_environment_depend_on_its_own_seed_only():
    together, alone = speeds(range(20)), speeds([7])
    for _ in range(3):
        together.reset()
        alone.reset()
        for field in FIELDS:
            np.testing.assert_array_equal(together.observation[field][7], alone.observation[field][0])


def test_settings_that_nobody_can_solve_are_given_up():
    env = speeds(slow_acceleration=0.05, slow_share=1.0)
    with pytest.raises(UserError, match=r"none of 2000 draws .*env_args\.episode_limit - env_args\.slack = 21 - 2"):
        env.reset()


@pytest.mark.parametrize("numba", [False, True])
def test_accelerations_move_the_agents_and_are_seen(numba):
    env = speeds(numba=numba, fields=(*FIELDS, "distance_over_acceleration"))
    env.reset()
    see, push = env.observation, env._world.push[0]
    assert (env.info.obs_shape, env.info.state_shape) == (4 + 9 + 8 + 1, 5 * 5 + 9)
    np.testing.assert_allclose(see["agent_feats"][0, :, 4], push / 5)
    np.testing.assert_allclose(see["obs"][0, :, -1], push / 5)
    np.testing.assert_allclose(see["state"][0, -5:], push / 5)
    distance = np.sqrt(np.square(env.position[0, :, None] - env.landmark[0]).sum(-1))
    np.testing.assert_allclose(see["distance_over_acceleration"][0], distance / push[:, None], rtol=1e-6)
    env.position[0] = [[x, 5.0] for x in range(5)]
    env.step(np.full((1, 5), 2), np.ones(1, np.bool_))
    np.testing.assert_allclose(env.velocity[0, :, 0], 0.1 * push)


def test_the_contract_holds_without_numba():
    check_env(partial(NavigationSpeeds, NavigationSpeedsOptions(min_agents=3), numba=False), n_steps=30)


# Section 7b of the findings, (3,5): distance 73, time 97. The contacts of mpe2's step act one step later than there,
# which costs the travel time 3 points (docs/environments/navigation.md).
@pytest.mark.parametrize(("cost", "success"), [("distance", 0.72), ("travel_time", 0.935), ("random", 0.275)])
def test_the_hand_controller_succeeds_as_often_as_in_the_findings(cost, success):
    assert play("navigation_speeds", cost, 1000) == pytest.approx(success, abs=0.04)


WRONG = [
    (["slow_acceleration=3", "fast_acceleration=2"], r"slow_acceleration = 3.0 is more than .*fast_acceleration = 2.0"),
    (["slack=21"], r"slack = 21 leaves no step of env_args\.episode_limit = 21: use slack < 21"),
    (["fast_acceleration=6"], r"env_args\.fast_acceleration = 6"),
    (["slow_share=1.5"], r"env_args\.slow_share = 1.5"),
]


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_wrong_options_are_named_with_their_key(given, message):
    with pytest.raises(UserError, match=message):
        load_config("qmix", "navigation_speeds", [f"env_args.{pair}" for pair in given])
