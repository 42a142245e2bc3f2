"""Costs of giving an enemy to an agent that players know by rule, alone and as the LP uses them."""

import numpy as np
import pytest
from support.skirmishes import start

from envs.combat_costs import COSTS, Battle

AGENTS = np.array([[[0.0, 0.0], [4.0, 0.0], [100.0, 100.0]]])
ENEMIES = np.array([[[0.0, 3.0], [10.0, 0.0]]])
BATTLE = Battle(AGENTS, np.array([[True, True, False]]), ENEMIES, np.array([[45.0, 9.0]]), np.array([[1.0, 0.2]]))


def test_center_distance_is_from_the_middle_of_the_living():
    assert COSTS["center_distance"](BATTLE)[0] == pytest.approx(np.array([[np.hypot(2, 3), 8.0]] * 3))


def test_health_goes_to_the_weakest_and_then_to_the_nearest():
    assert COSTS["health"](BATTLE)[0, 0].argmin() == 1
    equal = BATTLE._replace(left=np.array([[9.0, 9.0]]))
    assert COSTS["health"](equal)[0].argmin(-1).tolist() == [0, 0, 0]


def test_mix_and_range_health():
    assert COSTS["mix"](BATTLE)[0, :2] == pytest.approx(np.array([[3 + 5, 10 + 1], [5 + 5, 6 + 1]]))
    assert COSTS["range_health"](BATTLE)[0, :2] == pytest.approx(np.array([[10, 4 + 2], [10, 2]]))


def test_the_simulator_shows_them():
    env = start("3m", n_envs=2, fields=("avail_actions", "agent_feats", "task_feats", *COSTS))
    seen = env.observation
    offset = 9.0 * (seen["agent_feats"][:, :, None, :2] - seen["task_feats"][:, None, :, :2])
    assert seen["mix"] == pytest.approx(np.sqrt(np.square(offset).sum(-1)) + 5.0, abs=1e-4)
    assert set(COSTS) <= set(env.info.field_shapes())
