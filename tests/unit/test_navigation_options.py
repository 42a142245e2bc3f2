"""What navigation draws, shows and accepts as options; its steps are in test_navigation."""

import itertools

import numpy as np
import pytest
from support.worlds import RIGHT, STAY, constrained, place, plain, step

from components.config import load_config
from components.errors import UserError
from envs.navigation_draws import compositions

# --- what is drawn and what is seen --------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(5, 3), (6, 4), (4, 1), (4, 4), (1, 1)])
def test_compositions_are_uniform(n, m):
    """Gap g of those left has g equally likely cells, so one point per cell counts the compositions exactly."""
    cells = [(np.arange(left) + 0.5) / left for left in range(n - 1, 0, -1)]
    draws = np.array(list(itertools.product(*cells))).reshape(-1 if cells else 1, n - 1)
    parts = compositions(draws, n, m)
    kinds, counts = np.unique(parts, axis=0, return_counts=True)
    possible = [c for c in itertools.product(range(1, n + 1), repeat=m) if sum(c) == n]
    assert [tuple(kind) for kind in kinds.tolist()] == possible
    assert set(counts) == {len(draws) // len(possible)}


def test_episodes_start_in_the_spawn_ranges_at_rest():
    env = constrained(seeds=range(2000), fields=("agent_feats",))
    env.reset()
    for value, half in ((env.position, 1.0), (env.landmark, 0.8)):
        assert np.abs(value).max() <= half
        assert np.abs(value).max() > 0.99 * half
        np.testing.assert_allclose(value.mean((0, 1)), 0, atol=0.03)
        np.testing.assert_allclose(value.std((0, 1)), half / np.sqrt(3), atol=0.02)
    assert (env.velocity == 0).all()
    assert len(np.unique(env.capacity, axis=0)) == 6
    assert (env.capacity.sum(1) == 5).all()


def test_capacities_change_from_episode_to_episode():
    env = constrained(seeds=[3])
    seen = set()
    for _ in range(30):
        env.reset()
        seen.add(tuple(env.capacity[0]))
    assert len(seen) > 3


@pytest.mark.parametrize("numba", [False, True])
def test_fields_of_constrained_navigation(numba):
    env = place(
        constrained(n_agents=3, n_landmarks=2, numba=numba), [[0, 0], [0.5, 0], [0, 1]], [[0.4, 0.2], [-0.6, 0]]
    )
    env.capacity[:] = [1, 2]
    step(env, [RIGHT, STAY, STAY])
    see = {name: value[0] for name, value in env.observation.items()}
    third = 1 / 3
    agent_0 = [0.5, 0, 0, 0, 0.4, 0.2, -0.6, 0, third, 2 * third, 0.5, 0, 0, 1]
    np.testing.assert_allclose(see["obs"][0], agent_0, atol=1e-6)
    agents = [[0, 0, 0.5, 0], [0.5, 0, 0, 0], [0, 1, 0, 0]]
    tasks = [[0.4, 0.2, third], [-0.6, 0, 2 * third]]
    np.testing.assert_allclose(see["agent_feats"], agents, atol=1e-6)
    np.testing.assert_allclose(see["task_feats"], tasks, atol=1e-6)
    state = [*np.ravel(agents), 0.4, 0.2, -0.6, 0, third, 2 * third]
    np.testing.assert_allclose(see["state"], state, atol=1e-6)
    assert see["capacity"].tolist() == [1, 2]


def test_plain_navigation_does_not_show_capacities_in_its_flat_fields():
    env = plain(n_landmarks=3)
    env.reset()
    assert (env.info.obs_shape, env.info.state_shape) == (4 + 6 + 4, 12 + 6)
    np.testing.assert_allclose(env.observation["task_feats"][0, :, 2], 1 / 3)
    assert (env.observation["capacity"] == 1).all()


def test_only_the_requested_fields_are_observed():
    assert set(plain(fields=("obs",)).observation) == {"obs"}
    with pytest.raises(KeyError, match="does not observe smell"):
        plain(fields=("smell",))


# --- options -------------------------------------------------------------------------------------------------


def test_fixed_capacities_stay_and_leave_the_positions_as_they_are():
    fixed, drawn = constrained(seeds=[7, 8], capacities=[1, 1, 3]), constrained(seeds=[7, 8])
    for _ in range(3):
        fixed.reset()
        drawn.reset()
        assert fixed.capacity.tolist() == [[1, 1, 3]] * 2
        np.testing.assert_array_equal(fixed.position, drawn.position)
        np.testing.assert_array_equal(fixed.landmark, drawn.landmark)
    np.testing.assert_allclose(fixed.observation["task_feats"][..., 2], [[0.2, 0.2, 0.6]] * 2)


def test_fixed_capacities_decide_the_success():
    env = constrained(n_agents=3, n_landmarks=2, capacities=[2, 1], agent_radius=0.0)
    assert step(place(env, [[0, 0], [0, 0.1], [0.9, 0]], [[0, 0], [0.9, 0]]))["terminated"][0]
    assert not step(place(env, [[0, 0], [0.9, 0.1], [0.9, 0]], [[0, 0], [0.9, 0]]))["terminated"][0]


WRONG = [
    ("constrained_navigation", ["n_landmarks=6"], r"env_args\.n_landmarks = 6 .*n_landmarks <= 5"),
    ("navigation", ["n_agents=4"], r"env_args\.n_agents = 4 differs from env_args\.n_landmarks = 3"),
    ("constrained_navigation", ["occupancy_radius=0"], r"env_args\.occupancy_radius = 0 .*> 0"),
    ("constrained_navigation", ["reach_reward=enter"], r"env_args\.reach_reward = 'enter'.*delta.*first"),
    (
        "constrained_navigation",
        ["capacities=[1, 1, 1]"],
        r"env_args\.capacities = \[1, 1, 1\] sums to 3 and cannot hold the 5 agents: .*env_args\.n_agents = 5",
    ),
    ("constrained_navigation", ["capacities=[2, 2, 2]"], r"sums to 6, more than the 5 agents can fill: .*n_agents = 5"),
    ("constrained_navigation", ["capacities=[2, 3]"], r"has 2 entries, but env_args\.n_landmarks = 3: give 3"),
    ("constrained_navigation", ["capacities=[0, 2, 3]"], r"has an entry below 1, but every landmark needs"),
    ("constrained_navigation", ["capacities=[]"], r"has 0 entries"),
    ("constrained_navigation", ["capacities=3"], r"env_args\.capacities = 3 .*list"),
]


@pytest.mark.parametrize(("name", "given", "message"), WRONG)
def test_wrong_options_are_named_with_their_key(name, given, message):
    with pytest.raises(UserError, match=message):
        load_config("qmix", name, [f"env_args.{pair}" for pair in given])


def test_fixed_capacities_come_through_the_configuration():
    config = load_config("qmix", "constrained_navigation", ["env_args.capacities=[1, 2, 2]"])
    assert config.parts["env"].capacities == [1, 2, 2]
    assert load_config("qmix", "constrained_navigation").parts["env"].capacities is None
