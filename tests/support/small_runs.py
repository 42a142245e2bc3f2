"""Small runs from the shipped configuration, and one number for everything that a run depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from components.config import load_config
from controllers.base import Clock
from learners.base import Metrics
from parts import Parts, build

SMALL = ("batch_size_run=4", "buffer_size=128", "test_nepisode=4", "final_nepisode=4", "t_max=100000")
# Makes every shipped algorithm update in its first rounds.
_LPMARL = (
    "warmup_episodes=4",
    "env_steps_per_update=40",
    "high_interval=1",
    "batch_size_high=16",
    "batch_size_low=16",
)
_ACTOR_CRITIC = ("warmup_episodes=4", "env_steps_per_update=40", "batch_size=32")
_VALUES = ("batch_size=4", "episodes_per_update=4", "target_update_interval=10")
EARLY = {
    "maddpg_learner": _ACTOR_CRITIC,
    "maac_learner": _ACTOR_CRITIC,
    "q_learner": _VALUES,
    # Roles are made between the rounds before a checkpoint and those after it.
    "rode_learner": (*_VALUES, "role_action_spaces_update_start=180"),
    "ldsa_learner": _VALUES,
    "ppo_learner": ("batch_size=4", "epochs=2", "minibatches=2"),
    "seac_learner": ("batch_size=40",),
    "hsd_learner": (
        "batch_size=4",
        "episodes_per_update=4",
        "decoder_episodes=4",
        "segment_length=4",
        "decoder_skip=2",
    ),
    "lpmarl_learner": _LPMARL,
    "dec_lpmarl_learner": (*_LPMARL, "batch_size_imitation=16"),
}


def small_parts(algorithm: str, env: str, *overrides: str) -> Parts:
    """The parts of a small run; the caller closes them."""
    return build(load_config(algorithm, env, (*SMALL, *overrides)))


def start_clock(t_max: int = 100_000) -> Clock:
    return Clock(0, 0, t_max)


def play(parts: Parts, clock: Clock, rounds: int) -> tuple[Clock, list[Metrics | None]]:
    """``rounds`` of collect, store, update; the loop of ``experiment.train`` without its reports."""
    logged = []
    for _ in range(rounds):
        episodes = parts.train.collect(clock)
        clock = Clock(clock.env_steps + episodes.env_steps, clock.episodes + len(episodes.returns), clock.t_max)
        parts.buffer.insert(episodes.batch)
        logged.append(parts.learner.update(parts.buffer, clock))
    return clock, logged


def fingerprint(value: Any) -> str:
    """SHA-256 over a nested state: equal for bit-identical states only."""
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, Mapping):
        for key in sorted(value, key=str):
            digest.update(str(key).encode())
            _feed(digest, value[key])
    elif isinstance(value, torch.Tensor):
        _feed(digest, value.detach().cpu().numpy())
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            _feed(digest, item)
    else:
        digest.update(repr(value).encode())
