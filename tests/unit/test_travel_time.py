"""The cost ``travel_time``: the hand controller's time alone in the world."""

import numpy as np
import pytest
from support.hand_control import push_towards
from support.worlds import constrained, place, plain

from components.episode_buffer import episode_fields
from envs import REGISTRY
from envs.base import check_fields
from envs.travel_time import MAX_STEPS


def times_of(acceleration, n_worlds=4000, **options):
    env = plain(range(n_worlds), ("travel_time",), True, n_landmarks=1, **options)
    env._world.push[:] = acceleration
    env.reset()
    return env, env.observation["travel_time"][:, 0, 0]


# Mean alone times of the calibration behind the speeds (20,000 draws). The agents there move in the step of the
# push, ours one step later: every time that is not 0 is one longer.
@pytest.mark.parametrize(
    ("acceleration", "mean", "error"), [(1, 26.5, 0.4), (1.5, 18.7, 0.4), (2, 14.8, 0.4), (5, 8.3, 1.0)]
)
def test_the_mean_and_the_closed_form_are_those_of_the_findings(acceleration, mean, error):
    env, times = times_of(acceleration)
    assert times.mean() == pytest.approx(mean + 1, abs=0.5)
    offset = np.abs(env.position - env.landmark)[:, 0]
    closed = np.maximum(0, offset.sum(-1) - 0.26) / (0.04 * acceleration) + 4
    closed[np.sqrt(np.square(offset).sum(-1)) <= 0.2] = 0
    assert np.abs(times - closed).mean() < error + 0.1


@pytest.mark.parametrize("numba", [False, True])
def test_an_agent_alone_that_follows_the_controller_arrives_at_that_time(numba):
    env = constrained(range(50), ("travel_time",), numba, n_agents=1, n_landmarks=1, episode_limit=99)
    env.reset()
    promised = env.observation["travel_time"][:, 0, 0].copy()
    active = promised > 0
    for step in range(1, 30):
        result = env.step(push_towards(env.position, env.velocity, env.landmark), active.copy())
        np.testing.assert_array_equal(env.observation["travel_time"][active, 0, 0], (promised - step)[active])
        arrived = active & result.terminated
        assert (promised[arrived] == step).all()
        active &= ~arrived
    assert not active.any()


@pytest.mark.parametrize("numba", [False, True])
def test_the_time_of_a_landmark_out_of_reach_is_cut(numba):
    env = place(plain(fields=("travel_time",), numba=numba, n_landmarks=1), [[0, 0]], [[500, 0]])
    env._show()
    assert env.observation["travel_time"].tolist() == [[[MAX_STEPS]]]


def test_costs_are_fields_of_navigation_only_computed_when_requested():
    env = constrained()
    assert env.info.tasks.costs == ("travel_time",)
    assert env.info.field_shapes()["travel_time"] == (5, 3)
    assert "travel_time" not in env.observation
    assert env._cost_writers == []
    check_fields(env.info, ["travel_time"])
    with pytest.raises(KeyError, match="does not observe mismatch"):
        check_fields(env.info, ["mismatch"])
    spec = episode_fields(env.info, ["travel_time"], [], {})["travel_time"]
    assert spec.shape == (5, 3)


VARIANTS = {
    "constrained_navigation": {"n_agents": 6, "min_agents": 2, "min_landmarks": 1},
    "navigation_speeds": {"min_agents": 3, "episode_limit": 25, "slow_share": 0.7},
    "navigation_skills": {"min_agents": 2, "min_landmarks": 1, "setup_steps": 2},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_compiled_and_numpy_worlds_agree_in_every_field(name):
    options = REGISTRY.options(name)(**VARIANTS[name], agent_radius=0.1, occupancy_radius=0.9, rewards="dense")
    fields = list(REGISTRY[name](options, [0], ()).info.field_shapes())
    pair = [REGISTRY[name](options, range(40), fields, numba=numba) for numba in (True, False)]
    rng, ended = np.random.default_rng(0), 0
    for _ in range(2):
        active = np.ones(40, np.bool_)
        for env in pair:
            env.reset()
        for _ in range(15):
            actions = rng.integers(5, size=(40, options.n_agents))
            fast, slow = (env.step(actions, active.copy()) for env in pair)
            np.testing.assert_array_equal(fast.terminated[active], slow.terminated[active])
            np.testing.assert_allclose(fast.reward[active], slow.reward[active], rtol=0, atol=1e-6)
            for field in fields:
                one, other = (env.observation[field] for env in pair)
                np.testing.assert_allclose(one, other, rtol=0, atol=1e-5, err_msg=field)
            ended += fast.terminated[active].sum()
            active &= ~(fast.terminated | fast.truncated)
    assert ended > 0
