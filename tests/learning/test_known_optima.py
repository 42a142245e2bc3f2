"""VDN, QMIX and QPLEX on games with known optima: exact fits from balanced batches, play from uniform exploration."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from support.small_runs import play, small_parts, start_clock
from torch import Tensor

from components.episode_buffer import EpisodeBatch
from controllers.base import Clock
from envs.base import FLAT_FIELDS, VectorEnv
from envs.matrix_games import TWO_STEP, MatrixGameOptions, TwoStepGameOptions
from envs.vector import in_process
from learners.q_learner import QLearner
from parts import Parts
from runners.evaluation import evaluate

pytestmark = pytest.mark.learning

CLIMBING = np.array([[8.0, -12.0, -12.0], [-12.0, 0.0, 0.0], [-12.0, 0.0, 0.0]])
FLAT_START = np.array([[12.0, -0.1, -0.1], [-0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]])
# Which of the agents' lesser actions is better depends on the other agent: no monotonic mixer can say so.
CROSSED = np.array([[10.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 4.0]])
# Uniform joint actions; optimizer and rhythm that converge in a few seconds.
UNIFORM = ("agent=mlp", "obs_last_action=false", "epsilon_start=1.0", "epsilon_finish=1.0", "optimizer=adam", "lr=3e-3")


def game(algorithm: str, env: str, *overrides: str) -> Parts:
    return small_parts(algorithm, env, *UNIFORM, *overrides)


def payoff_option(payoff: np.ndarray) -> str:
    return f"env_args.payoff={payoff.tolist()}"


def play_out(envs: VectorEnv, parts: Parts, moves: Tensor) -> EpisodeBatch:
    """The episodes in which these joint actions [B, T, N] are played."""
    batch = EpisodeBatch.zeros(parts.train.fields, len(moves), envs.info.episode_limit + 1, envs.info.n_actions)
    envs.reset()
    for t in range(envs.info.episode_limit + 1):
        for name in set(envs.observation) & set(batch.data):
            batch.data[name][:, t] = torch.from_numpy(envs.observation[name])
        batch.data["filled"][:, t] = 1
        if t < envs.info.episode_limit:
            result = envs.step(moves[:, t].numpy(), np.ones(len(moves), dtype=np.bool_))
            batch.data["actions"][:, t, :, 0] = moves[:, t]
            batch.data["reward"][:, t, 0] = torch.from_numpy(result.reward)
            batch.data["terminated"][:, t, 0] = torch.from_numpy(result.terminated)
    return batch


def learn_balanced(parts: Parts, envs: VectorEnv, updates: int) -> EpisodeBatch:
    """Regression on every joint action sequence, each equally often; returns that batch."""
    n_actions, steps = envs.info.n_actions, envs.info.episode_limit
    sequences = torch.tensor(list(product(range(n_actions), repeat=2 * steps)))
    batch = play_out(envs, parts, sequences.view(-1, steps, 2))
    parts.buffer.insert(batch)
    parts.learner.update(parts.buffer, Clock(updates, updates, 10**6))
    assert parts.learner.updates == updates
    return batch


def joint_values(parts: Parts, state: dict[str, np.ndarray]) -> Tensor:
    """[A, A] Q_tot of every joint action in one observed state."""
    learner = parts.learner
    assert isinstance(learner, QLearner)
    obs = torch.from_numpy(state["obs"])[None, None]
    with torch.no_grad():
        own = learner.nets["agent"](learner.controller._inputs(obs, None), None)[0][0, 0]
        a = own.shape[-1]
        values = own.expand(1, a * a, -1, -1)
        actions = torch.tensor(list(product(range(a), repeat=2))).view(1, a * a, 2, 1)
        states = torch.from_numpy(state["state"]).expand(1, a * a, -1)
        seen = EpisodeBatch({"state": states, "avail_actions": torch.ones_like(values)}, a)
        total = learner._mix(learner.nets, values, actions, seen, slice(None))
    return total.view(a, a)


def greedy_return(parts: Parts) -> float:
    return evaluate(parts.test, start_clock(), 1)["return"]


def one_step_envs(payoff: np.ndarray) -> VectorEnv:
    return in_process("matrix_game", MatrixGameOptions(payoff=payoff.tolist()), list(range(9)), FLAT_FIELDS)


def observed_after(envs: VectorEnv, first: int | None) -> dict[str, np.ndarray]:
    """What is seen at the start, or after agent 0's first action."""
    envs.reset()
    if first is not None:
        envs.step(np.full((envs.n_envs, 2), first), np.ones(envs.n_envs, dtype=np.bool_))
    return {name: value[0] for name, value in envs.observation.items()}


def test_vdn_fits_the_least_squares_sum_and_picks_payoff_0() -> None:
    parts = game("vdn", "matrix_game", payoff_option(CLIMBING), "batch_size=9", "episodes_per_update=1")
    envs = one_step_envs(CLIMBING)
    learn_balanced(parts, envs, 1500)
    # Row means plus column means minus the grand mean.
    exact = CLIMBING.mean(1, keepdims=True) + CLIMBING.mean(0) - CLIMBING.mean()
    assert exact[0, 0] == pytest.approx(-6.22, abs=0.005)
    assert exact[0, 1] == pytest.approx(-4.89, abs=0.005)
    assert exact[1, 1] == pytest.approx(-3.56, abs=0.005)
    assert joint_values(parts, observed_after(envs, None)).numpy() == pytest.approx(exact, abs=0.03)
    assert greedy_return(parts) == 0.0


def test_qmix_cannot_represent_the_climbing_game_either() -> None:
    balanced = ("batch_size=9", "episodes_per_update=1", "lr=1e-2")
    parts = game("qmix", "matrix_game", payoff_option(CLIMBING), *balanced)
    envs = one_step_envs(CLIMBING)
    batch = learn_balanced(parts, envs, 2000)
    # -8 is the mean of {8, -12, -12, -12, -12}: the best monotonic fit gives up the optimum.
    expected = np.full((3, 3), -8.0)
    expected[1:, 1:] = 0.0
    assert joint_values(parts, observed_after(envs, None)).numpy() == pytest.approx(expected, abs=0.15)
    assert isinstance(parts.learner, QLearner)
    assert float(parts.learner.loss(batch)[0].detach()) == pytest.approx(35.56, abs=0.1)
    assert greedy_return(parts) == 0.0


def test_qplex_fits_what_is_not_monotonic() -> None:
    parts = game("qplex", "matrix_game", payoff_option(CROSSED), "batch_size=9", "episodes_per_update=1", "lr=1e-3")
    envs = one_step_envs(CROSSED)
    learn_balanced(parts, envs, 600)
    assert joint_values(parts, observed_after(envs, None)).numpy() == pytest.approx(CROSSED, abs=0.05)
    assert greedy_return(parts) == 10.0


def test_qmix_finds_the_optimum_that_is_monotonic() -> None:
    parts = game("qmix", "matrix_game", payoff_option(FLAT_START), "batch_size_run=32", "buffer_size=1024")
    play(parts, start_clock(), 150)
    assert parts.learner.updates > 500
    assert greedy_return(parts) == 12.0


TARGETS = ("gamma=1.0", "target_update_interval=100", "batch_size=16")


def two_step_envs() -> VectorEnv:
    return in_process("two_step_game", TwoStepGameOptions(), list(range(16)), FLAT_FIELDS)


def test_vdn_prefers_the_safe_branch_of_the_two_step_game() -> None:
    parts = game("vdn", "two_step_game", *TARGETS, "episodes_per_update=1")
    envs = two_step_envs()
    learn_in_rounds(parts, envs, rounds=10, updates=150)
    second = joint_values(parts, observed_after(envs, 1)).numpy()
    assert second == pytest.approx(np.array([[-1.5, 2.5], [2.5, 6.5]]), abs=0.1)
    assert joint_values(parts, observed_after(envs, 0)).numpy() == pytest.approx(np.full((2, 2), 7.0), abs=0.1)
    first = joint_values(parts, observed_after(envs, None)).numpy()
    assert first.mean(1) == pytest.approx([7.0, 6.5], abs=0.15)
    assert greedy_return(parts) == 7.0


def learn_in_rounds(parts: Parts, envs: VectorEnv, rounds: int, updates: int) -> None:
    """As ``learn_balanced``, with a target update between the rounds."""
    learn_balanced(parts, envs, updates)
    for done in range(2, rounds + 1):
        parts.learner.update(parts.buffer, Clock(done * updates, done * updates, 10**6))


@pytest.mark.parametrize("algorithm", ["qmix", "qplex"])
def test_qmix_and_qplex_solve_the_two_step_game(algorithm: str) -> None:
    parts = game(algorithm, "two_step_game", *TARGETS, "batch_size_run=32", "buffer_size=1024", "episodes_per_update=4")
    play(parts, start_clock(), 150)
    envs = two_step_envs()
    second = joint_values(parts, observed_after(envs, 1)).numpy()
    assert second == pytest.approx(np.array(TWO_STEP[2]), abs=0.5)
    assert greedy_return(parts) == 8.0
