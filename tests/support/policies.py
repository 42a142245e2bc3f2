"""MAPPO, IPPO and SEAC learners of small sizes, and random episodes that their policies could have played."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from support.q_learning import AGENTS, CPU, INFO
from support.q_learning import episodes as any_episodes

from components.episode_buffer import EpisodeBatch
from controllers.basic_controller import InputOptions
from controllers.policy_controller import PolicyController, SeparatePolicyController
from envs.base import EnvInfo
from learners.ppo_learner import PpoLearner, PpoOptions
from learners.seac_learner import SeacLearner, SeacOptions
from modules.agents.separate_mlp_agent import SeparateMLPAgent

SEPARATE = partial(SeparateMLPAgent, hidden_dim=8)


def policy_controller(agent: Any = AGENTS["mlp"], info: EnvInfo = INFO, sees_more: bool = True) -> PolicyController:
    """A policy of which no action is nearly certain or nearly uniform."""
    torch.manual_seed(0)
    seen = InputOptions(obs_last_action=sees_more, obs_agent_id=sees_more)
    kind: Any = SeparatePolicyController if agent is SEPARATE else PolicyController
    controller: PolicyController = kind(info, seen, agent, np.random.default_rng(0), CPU)
    return disturbed(controller)


def disturbed(network: Any, scale: float = 0.3) -> Any:
    """The same with other parameters."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(torch.randn(p.shape, generator=generator), alpha=scale)
    return network


def ppo(agent: Any = AGENTS["mlp"], info: EnvInfo = INFO, critic: Any = AGENTS["mlp"], **options: Any) -> PpoLearner:
    """A learner with a critic that is not nearly constant."""
    controller = policy_controller(agent, info)
    built = PpoLearner(controller, info, PpoOptions(**options), np.random.default_rng(0), CPU, critic)
    disturbed(built.critic)
    return built


def seac(info: EnvInfo = INFO, **options: Any) -> SeacLearner:
    """A learner that sees the observation alone."""
    controller = policy_controller(SEPARATE, info, sees_more=False)
    assert isinstance(controller, SeparatePolicyController)
    built = SeacLearner(controller, info, SeacOptions(**options), np.random.default_rng(0), CPU, SEPARATE)
    disturbed(built.critic)
    return built


def played(
    controller: PolicyController, lengths: list[int], terminated: list[bool], info: EnvInfo = INFO
) -> EpisodeBatch:
    """Random episodes with available actions and their log-probabilities under the controller's policy."""
    batch = any_episodes(lengths, terminated, info)
    generator = torch.Generator().manual_seed(2)
    chance = torch.rand(batch["avail_actions"].shape, generator=generator) * batch["avail_actions"]
    batch.data["actions"] = chance.argmax(-1, keepdim=True)
    with torch.no_grad():
        batch.data["log_probs"] = controller.log_pi(batch).gather(-1, batch["actions"])
    return batch
