"""MADDPG and MAAC learners of small sizes and random transitions for them, without an environment."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from components.registry import NoOptions
from controllers.actor_controller import ActorController
from envs.base import EnvInfo
from learners.actor_critic_learner import ActorCriticOptions, Transitions
from learners.maac_learner import MaacLearner, MaacOptions
from learners.maddpg_learner import MaddpgLearner
from modules.agents.mlp_per_agent import MLPPerAgent
from modules.critics.attention_critic import AttentionCritic
from modules.critics.joint_action_critic import JointActionCritic

INFO = EnvInfo(n_agents=3, n_actions=4, obs_shape=5, state_shape=6, episode_limit=7)
CPU = torch.device("cpu")
AGENT = partial(MLPPerAgent, hidden_dim=8, activation="relu")
JOINT = partial(JointActionCritic, critic_hidden_dim=8)
ATTENTION = partial(AttentionCritic, critic_hidden_dim=8, attention_heads=2)


def controller(info: EnvInfo = INFO) -> ActorController:
    torch.manual_seed(0)
    return ActorController(info, NoOptions(), AGENT, np.random.default_rng(0), CPU)


def maddpg(info: EnvInfo = INFO, **options: Any) -> MaddpgLearner:
    """A learner whose targets differ from its networks."""
    given = ActorCriticOptions(**options)
    return _moved(MaddpgLearner(controller(info), info, given, np.random.default_rng(0), CPU, JOINT))


def maac(info: EnvInfo = INFO, **options: Any) -> MaacLearner:
    """A learner whose targets differ from its networks."""
    given = MaacOptions(**options)
    return _moved(MaacLearner(controller(info), info, given, np.random.default_rng(0), CPU, ATTENTION))


def _moved(built: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    for p in built.targets.parameters():
        p.add_(torch.randn(p.shape, generator=generator), alpha=0.3)
    return built


def transitions(count: int, info: EnvInfo = INFO, seed: int = 0) -> Transitions:
    """Random transitions among living agents; action 0 is always available."""
    generator = torch.Generator().manual_seed(seed)
    n, a = info.n_agents, info.n_actions

    def avail() -> torch.Tensor:
        mask = (torch.rand(count, n, a, generator=generator) < 0.6).int()
        mask[..., 0] = 1
        return mask

    now = avail()
    drawn = (torch.rand(count, n, a, generator=generator) * now).argmax(-1, keepdim=True)
    return Transitions(
        obs=torch.randn(count, n, info.obs_shape, generator=generator),
        next_obs=torch.randn(count, n, info.obs_shape, generator=generator),
        avail=now,
        next_avail=avail(),
        alive=torch.ones(count, n, dtype=torch.bool),
        next_alive=torch.ones(count, n, dtype=torch.bool),
        actions=torch.zeros(count, n, a).scatter_(-1, drawn, 1.0),
        reward=torch.randn(count, 1, generator=generator),
        terminated=(torch.rand(count, 1, generator=generator) < 0.3).float(),
    )
