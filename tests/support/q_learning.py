"""Q-learners of small sizes and random episodes for them, without an environment."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from components.episode_buffer import EpisodeBatch, episode_fields
from controllers.basic_controller import BasicController, BasicOptions
from envs.base import EnvInfo
from learners.q_learner import QLearner, QLearnerOptions
from modules.agents.gru_agent import GRUAgent
from modules.agents.mlp_agent import MLPAgent
from modules.mixers.qmix import QMixer
from modules.mixers.qplex import QPlexMixer
from modules.mixers.vdn import VDNMixer

INFO = EnvInfo(n_agents=3, n_actions=4, obs_shape=5, state_shape=6, episode_limit=7)
CPU = torch.device("cpu")
AGENTS = {"mlp": partial(MLPAgent, hidden_dim=8), "gru": partial(GRUAgent, rnn_hidden_dim=8)}
QMIX = partial(QMixer, mixing_embed_dim=4, hypernet_layers=2, hypernet_embed=8, state_clip=1.0)
QPLEX = partial(QPlexMixer, hypernet_embed=8, attention_heads=2, attention_embed=8, state_clip=1.0)
MIXERS: dict[str, Any] = {"iql": None, "vdn": VDNMixer, "qmix": QMIX, "qplex": QPLEX}


def learner(agent: Any, mixer: Any = None, info: EnvInfo = INFO, **options: Any) -> QLearner:
    """A learner whose targets differ from its networks. An agent class is given its observation alone."""
    torch.manual_seed(0)
    plain = isinstance(agent, type)
    seen = BasicOptions.model_validate({"obs_last_action": not plain, "obs_agent_id": not plain})
    controller = BasicController(info, seen, agent, np.random.default_rng(0), CPU)
    built = QLearner(controller, info, QLearnerOptions(**options), np.random.default_rng(0), CPU, mixer)
    generator = torch.Generator().manual_seed(1)
    for p in built.targets.parameters():
        p.add_(torch.randn(p.shape, generator=generator), alpha=0.3)
    return built


def networks(built: QLearner) -> tuple[Any, Any]:
    """The agents' network and its target."""
    return built.nets["agent"], built.targets["agent"]


def episodes(lengths: list[int], terminated: list[bool], info: EnvInfo = INFO, seed: int = 0) -> EpisodeBatch:
    """Random episodes; every field is random behind the end too, except the marks of the end itself."""
    generator = torch.Generator().manual_seed(seed)
    fields = episode_fields(info, ("obs", "state", "avail_actions"), (), {})
    batch = EpisodeBatch.zeros(fields, len(lengths), info.episode_limit + 1, info.n_actions)
    data = batch.data
    for name in ("obs", "state", "reward"):
        data[name].normal_(generator=generator)
    data["avail_actions"] = (torch.rand(data["avail_actions"].shape, generator=generator) < 0.6).int()
    data["avail_actions"][..., 0] = 1
    data["actions"].random_(info.n_actions, generator=generator)
    for b, (length, end) in enumerate(zip(lengths, terminated, strict=True)):
        data["filled"][b, : length + 1] = 1
        data["terminated"][b, length - 1] = int(end)
        data["truncated"][b, length - 1] = int(not end)
    return batch
