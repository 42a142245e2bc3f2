"""navigation_skills: types, the set-up time, what is seen, and how hard it is."""

from functools import partial

import numpy as np
import pytest
from support.hand_control import play
from support.worlds import FIELDS, place, step

from envs.checks import check_env
from envs.navigation_skills import NavigationSkills, NavigationSkillsOptions


def skills(seeds=(1,), fields=(*FIELDS, "travel_time", "mismatch"), numba=True, **options):
    return NavigationSkills(NavigationSkillsOptions(**options), seeds, fields, numba=numba)


def two_and_two(numba, setup_steps=2, **options):
    """Two agents at each of two landmarks; agent 0 is of landmark 0's type, agent 1 is not, and so on."""
    env = skills(numba=numba, n_agents=4, n_landmarks=2, setup_steps=setup_steps, agent_radius=0.0, **options)
    place(env, [[0, 0], [0, 0], [0.9, 0], [0.9, 0]], [[0, 0], [0.9, 0]], [2, 2])
    types = np.array([0, 1, 1, 0])
    env._world.needed[0] = setup_steps * (types[:, None] != np.arange(2))
    env._world.agent_extra[0, :, 0] = 2 * types - 1
    return env


def test_types_match_what_the_landmarks_need_and_are_shuffled():
    env = skills(range(300), n_agents=7, n_landmarks=5)
    env.reset()
    see = env.observation
    odd = (see["agent_feats"][..., 4] == 1).sum(1)
    np.testing.assert_array_equal(odd, env.capacity[:, 1::2].sum(1))
    assert set(np.unique(see["agent_feats"][..., 4])) == {-1, 1}
    assert (see["task_feats"][..., 3] == [-1, 1, -1, 1, -1]).all()
    assert len(np.unique(see["agent_feats"][..., 4], axis=0)) > 40
    differ = see["agent_feats"][..., 4, None] != see["task_feats"][:, None, :, 3]
    np.testing.assert_array_equal(see["mismatch"], differ)


@pytest.mark.parametrize("numba", [False, True])
def test_who_does_not_match_counts_after_the_set_up_steps(numba):
    env = two_and_two(numba)
    rewards = [step(env) for _ in range(3)]
    assert [bool(r["terminated"][0]) for r in rewards] == [False, False, True]
    # Being inside pays from the first step, whether it counts yet or not.
    for result in rewards:
        assert result["task_reward"][0].tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert [r["reward_high"][0] for r in rewards] == [0, 0, 1]
    assert [r["reward"][0] for r in rewards] == [0.5, 0.5, 1.0]


@pytest.mark.parametrize("numba", [False, True])
def test_leaving_starts_the_set_up_anew_and_so_does_another_landmark(numba):
    env = two_and_two(numba)
    step(env)
    step(env)
    env.position[0, 1] = [0, 5]
    assert not step(env)["terminated"][0]
    env.position[0, 1] = [0, 0]
    assert [bool(step(env)["terminated"][0]) for _ in range(3)] == [False, False, True]
    env = two_and_two(numba)
    step(env)
    step(env)
    env.position[0, [1, 3]] = env.position[0, [3, 1]]  # each now stands at the landmark of its type
    assert step(env)["terminated"][0]
    assert env._world.held[0].tolist() == [2, 0, 2, 0]


@pytest.mark.parametrize("numba", [False, True])
def test_held_steps_are_seen_and_shorten_the_travel_time(numba):
    env = two_and_two(numba, setup_steps=4)
    seen = []
    for _ in range(4):
        assert not step(env)["terminated"][0]
        see = env.observation
        np.testing.assert_array_equal(see["agent_feats"][0, :, 5], see["obs"][0, :, -3])
        seen.append((see["agent_feats"][0, 1, 5], see["travel_time"][0, 0, 0], see["travel_time"][0, 1, 0]))
    assert seen == [(0, 0, 4), (0.25, 0, 3), (0.5, 0, 2), (0.75, 0, 1)]
    # At the other landmark nothing is held: all 4 steps are to come for agent 0, none for agent 1.
    alone = env.observation["travel_time"][0, 1, 1]
    assert env.observation["travel_time"][0, 0, 1] == alone + 4
    assert alone > 3


@pytest.mark.parametrize("numba", [False, True])
def test_flat_fields_end_with_own_columns_and_all_types(numba):
    env = skills(numba=numba)
    env.reset()
    see = env.observation
    assert (env.info.obs_shape, env.info.state_shape) == (4 + 9 + 8 + 2 + 3, 6 * 5 + 9 + 3)
    assert (env.info.tasks.agent_feats, env.info.tasks.task_feats) == (6, 4)
    np.testing.assert_array_equal(see["obs"][0, :, -5:-3], see["agent_feats"][0, :, 4:])
    assert (see["obs"][0, :, -3:] == [-1, 1, -1]).all()
    np.testing.assert_array_equal(see["state"][0, -13:-3], see["agent_feats"][0, :, 4:].ravel())
    assert see["state"][0, -3:].tolist() == [-1, 1, -1]


@pytest.mark.parametrize("numba", [False, True])
def test_sets_up_and_sizes_keep_the_contract(numba):
    options = NavigationSkillsOptions(occupancy_radius=0.9, setup_steps=3, min_agents=2, min_landmarks=1)
    check_env(partial(NavigationSkills, options, numba=numba))


# Section 7b of the findings, (3,5): distance 52, time 93, types only 90, random 29.
@pytest.mark.parametrize(
    ("cost", "success"), [("distance", 0.525), ("travel_time", 0.933), ("mismatch", 0.897), ("random", 0.293)]
)
def test_the_hand_controller_succeeds_as_often_as_in_the_findings(cost, success):
    assert play("navigation_skills", cost, 1000) == pytest.approx(success, abs=0.04)
