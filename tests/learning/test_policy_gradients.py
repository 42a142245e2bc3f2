"""MAPPO, IPPO and SEAC on games with known optima."""

from __future__ import annotations

import pytest
from support.small_runs import play, small_parts, start_clock

from controllers.base import Clock
from parts import Parts
from runners.evaluation import evaluate

pytestmark = pytest.mark.learning

# Episodes to play; episodes (SEAC: transitions) of an update; entropy that keeps both branches of the two-step game.
# SEAC's advantages have the scale of the rewards, MAPPO's and IPPO's have none.
ALGORITHMS = {"mappo": (960, 32, 0.1), "ippo": (960, 32, 0.1), "seac": (1600, 16, 1.0)}
# The optimum is a Nash equilibrium that uniform play points to, and one that it points away from.
MONOTONIC = "env_args.payoff=[[12, -0.1, -0.1], [-0.1, 0, 0], [-0.1, 0, 0]]"
CLIMBING = "env_args.payoff=[[8, -12, -12], [-12, 0, 0], [-12, 0, 0]]"


def trained(algorithm: str, env: str, *overrides: str) -> Parts:
    episodes, batch_size, _ = ALGORITHMS[algorithm]
    sizes = ("batch_size_run=32", "buffer_size=32", f"batch_size={batch_size}")
    parts = small_parts(algorithm, env, *sizes, *overrides)
    clock: Clock = start_clock()
    while clock.episodes < episodes:
        clock, _ = play(parts, clock, 1)
    return parts


def greedy_return(parts: Parts) -> float:
    return evaluate(parts.test, start_clock(), 1)["return"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_finds_the_optimum_that_uniform_play_points_to(algorithm: str) -> None:
    assert greedy_return(trained(algorithm, "matrix_game", MONOTONIC)) == 12.0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_independent_exploration_leads_away_from_a_risky_optimum(algorithm: str) -> None:
    """Against a uniform partner the first action earns -5.3, the others -4: on average, policies leave it."""
    assert greedy_return(trained(algorithm, "matrix_game", CLIMBING)) == 0.0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_solves_the_two_step_game(algorithm: str) -> None:
    """The better branch pays 2.5 to uniform play and the safe one 7: the second step must be learned first."""
    assert greedy_return(trained(algorithm, "two_step_game", f"entropy_coef={ALGORITHMS[algorithm][2]}")) == 8.0
