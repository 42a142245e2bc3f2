"""MADDPG and MAAC on games of one and two steps with known optima."""

from __future__ import annotations

import pytest
from support.small_runs import play, small_parts, start_clock

from runners.evaluation import evaluate

pytestmark = pytest.mark.learning

QUICK = (
    *("batch_size_run=32", "buffer_size=2048", "hidden_dim=16", "critic_hidden_dim=16", "lr=5e-3", "critic_lr=1e-2"),
    *("batch_size=128", "warmup_episodes=64", "env_steps_per_update=8", "target_update_tau=0.05"),
)


def greedy_return(algorithm: str, env: str, rounds: int, *overrides: str) -> float:
    parts = small_parts(algorithm, env, *QUICK, *overrides)
    play(parts, start_clock(), rounds)
    return evaluate(parts.test, start_clock(), 1)["return"]


@pytest.mark.parametrize("algorithm", ["maddpg", "maac"])
@pytest.mark.parametrize(
    ("payoff", "best"),
    [
        ("[[1, 0], [0, 0]]", 1.0),
        ("[[12, -0.1, -0.1], [-0.1, 0, 0], [-0.1, 0, 0]]", 12.0),
        # A wrong partner costs 12: rated against what the others do, the safe actions are the better ones.
        ("[[8, -12, -12], [-12, 0, 0], [-12, 0, 0]]", 0.0),
    ],
    ids=["bandit", "monotonic", "climbing"],
)
def test_payoff_matrices_as_far_as_a_policy_gradient_solves_them(algorithm: str, payoff: str, best: float) -> None:
    assert greedy_return(algorithm, "matrix_game", 60, f"env_args.payoff={payoff}") == best


@pytest.mark.parametrize("algorithm", ["maddpg", "maac"])
def test_the_two_step_game_is_solved(algorithm: str) -> None:
    assert greedy_return(algorithm, "two_step_game", 80) == 8.0
