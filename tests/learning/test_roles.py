"""RODE and LDSA on games with known optima, and RODE's roles where it is known which actions do the same."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from support.q_learning import CPU, QMIX
from support.small_runs import play, small_parts, start_clock

from components.episode_buffer import EpisodeBatch, ReplayBuffer, episode_fields
from controllers.base import Clock
from controllers.rode_controller import RodeController, RodeOptions
from envs.base import EnvInfo
from envs.matrix_games import TWO_STEP
from learners.rode_learner import RodeLearner, RodeLearnerOptions
from modules.agents.rode_agent import RodeAgent
from parts import Parts
from runners.evaluation import evaluate

pytestmark = pytest.mark.learning

# Optimizer and rhythm that converge in a few seconds; the target network is copied every 100 episodes.
QUICK = (
    *("obs_last_action=false", "optimizer=adam", "lr=3e-3", "rnn_hidden_dim=32", "gamma=1.0"),
    *("target_update_interval=100", "target_update_tau=1.0", "batch_size=16", "episodes_per_update=8"),
    *("batch_size_run=32", "buffer_size=1024"),
)
UNIFORM = ("epsilon_start=1.0", "epsilon_finish=1.0")
ROLES_AFTER = 300


def greedy_return(parts: Parts) -> float:
    return evaluate(parts.test, start_clock(), 1)["return"]


@pytest.mark.parametrize("seed", [1, 2])
def test_ldsa_solves_the_two_step_game(seed: int) -> None:
    # With half as many updates one of six seeds still takes the safe branch.
    parts = small_parts("ldsa", "two_step_game", *QUICK, *UNIFORM, "episodes_per_update=4", f"seed={seed}")
    play(parts, start_clock(), 90)
    assert greedy_return(parts) == 8.0
    parts.close()


def test_rode_learns_the_values_of_the_two_step_game_in_the_role_that_has_all_actions() -> None:
    options = (f"role_action_spaces_update_start={ROLES_AFTER}", "role_interval=1", "epsilon_anneal_time_exp=1000")
    parts = small_parts("rode", "two_step_game", *QUICK, *UNIFORM, *options, "episodes_per_update=4")
    play(parts, start_clock(), 120)
    learner = parts.learner
    assert isinstance(learner, RodeLearner)
    agent, inputs = learner.agent, learner.controller._inputs
    whole = int(agent.role_actions[agent.role_exists].all(-1).nonzero()[0])
    # Agent 0 picks the second matrix; then all joint actions of both agents.
    states = torch.eye(3)[[0, 2]].expand(1, 2, 3)
    with torch.no_grad():
        values, _ = agent(inputs(states.unsqueeze(2).expand(1, 2, 2, 3), None), None)
        own = agent.action_values(values.keys, torch.full((1, 2, 2), whole))[0, 1]
        joint = torch.stack([own[0].repeat_interleave(2), own[1].repeat(2)], -1)[None]
        found = learner.nets["mixer"](joint, states[:, 1:].expand(1, 4, 3)).view(2, 2)
    assert found.numpy() == pytest.approx(np.array(TWO_STEP[2]), abs=0.6)
    parts.close()


def test_rode_selects_the_role_that_has_the_best_action() -> None:
    options = (f"role_action_spaces_update_start={ROLES_AFTER}", "epsilon_finish=0.0", "epsilon_anneal_time_exp=2000")
    payoff = "env_args.payoff=[[0, 1], [1, 8]]"
    parts = small_parts("rode", "matrix_game", *QUICK, *options, payoff)
    play(parts, start_clock(), 120)
    learner = parts.learner
    assert isinstance(learner, RodeLearner)
    # One action each; action 0 is in both.
    assert sorted(learner.agent.role_actions[learner.agent.role_exists].sum(1).tolist()) == [1, 2]
    assert greedy_return(parts) == 8.0
    parts.close()


@pytest.mark.parametrize("seed", range(5))
def test_rode_makes_roles_of_actions_with_equal_effects(seed: int) -> None:
    """Action a adds e_(a // 2) to the agent's observation; pair 2 pays: roles are the pairs, each with action 0."""
    n_actions, count, length = 8, 32, 10
    info = EnvInfo(n_agents=2, n_actions=n_actions, obs_shape=4, state_shape=1, episode_limit=length)
    torch.manual_seed(seed)
    agent = partial(RodeAgent, rnn_hidden_dim=8, action_latent_dim=20, n_role_clusters=4)
    controller = RodeController(info, RodeOptions(), agent, np.random.default_rng(seed), CPU)
    options = {"batch_size": count, "episodes_per_update": 1, "optimizer": "adam", "lr": 3e-3}
    learner = RodeLearner(
        controller,
        info,
        RodeLearnerOptions.model_validate({**options, "role_action_spaces_update_start": 1000}),
        np.random.default_rng(seed),
        CPU,
        QMIX,
    )
    fields = episode_fields(info, ("obs", "state", "avail_actions"), (), controller.extra_fields())
    buffer = ReplayBuffer(fields, 256, length + 1, n_actions, np.random.default_rng(seed))
    batch = EpisodeBatch.zeros(fields, 256, length + 1, n_actions)
    generator = torch.Generator().manual_seed(seed)
    batch.data["actions"].random_(n_actions, generator=generator)
    effects = torch.eye(4)[batch["actions"][:, :-1].squeeze(-1) // 2]
    batch.data["obs"][:, 0].normal_(generator=generator)
    batch.data["obs"][:, 1:] = batch["obs"][:, :1] + effects.cumsum(1)
    batch.data["reward"][:, :-1] = (batch["actions"][:, :-1, 0] // 2 == 2).float()
    batch.data["avail_actions"][:] = 1
    batch.data["filled"][:] = 1
    batch.data["terminated"][:, -2] = 1
    buffer.insert(batch)
    learner.update(buffer, Clock(999, 300, 10_000))
    assert learner.updates == 300
    assert not learner.has_roles
    learner.update(buffer, Clock(1000, 301, 10_000))
    found = {tuple(np.flatnonzero(row).tolist()) for row in controller.agent.role_actions[controller.agent.role_exists]}
    assert found == {(0, 1), (0, 2, 3), (0, 4, 5), (0, 6, 7)}
