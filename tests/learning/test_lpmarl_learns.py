"""LPMARL's low level learns constrained navigation within 1,500 sparse episodes, for any feasible assignment."""

from __future__ import annotations

import pytest
from support.small_runs import play

from components.config import load_config
from controllers.base import Clock
from parts import Parts, build
from runners.evaluation import evaluate

pytestmark = [pytest.mark.learning, pytest.mark.slow]

T_MAX = 72_000
EPISODES = 1_500
TEST_EPISODES = 200


def parts_with(high_policy: str) -> Parts:
    """(3, 5) with sparse rewards; more updates per step than the shipped file, since episodes are few."""
    options = (f"high_policy={high_policy}", "seed=1", f"t_max={T_MAX}", f"test_nepisode={TEST_EPISODES}")
    return build(load_config("lpmarl", "constrained_navigation", (*options, "env_steps_per_update=24")))


def test_lp_distance_succeeds_and_a_random_feasible_assignment_almost_as_often() -> None:
    trained = parts_with("lp_distance")
    clock = Clock(0, 0, T_MAX)
    while clock.env_steps < T_MAX and clock.episodes + trained.train.envs.n_envs <= EPISODES:
        clock, _ = play(trained, clock, 1)
    found = {}
    for policy in ("lp_distance", "random_feasible", "greedy"):
        parts = parts_with(policy)
        parts.controller.load_state_dict(trained.controller.state_dict())
        found[policy] = evaluate(parts.test, clock, TEST_EPISODES)
    assert found["lp_distance"]["success"] >= 0.9
    assert found["lp_distance"]["agreement"] == 1.0
    # With a low level that works, success does not show that the assignment is good: only feasible.
    assert found["random_feasible"]["success"] >= found["lp_distance"]["success"] - 0.1
    assert found["random_feasible"]["agreement"] < 0.6
    assert found["random_feasible"]["steps_to_success"] > found["lp_distance"]["steps_to_success"]
    # Nearest tasks ignore the capacities.
    assert found["greedy"]["capacity_violations"] > 0.5
    assert found["greedy"]["success"] < 0.5
