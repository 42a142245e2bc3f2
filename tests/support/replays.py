"""Panels of the replay page from small controllers that learned nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from components.config import Config, load_config
from controllers.base import Clock
from parts import build
from replays import panel

SMALL = ("runner=episode", "batch_size_run=1", "buffer_size=64", "test_nepisode=1", "torch_threads=1")


def small_config(*overrides: str, algorithm: str = "lpmarl", env: str = "constrained_navigation") -> Config:
    return load_config(algorithm, env, (*SMALL, *overrides))


def played(config: Config, episodes: int, named: Sequence[str] = ("high_policy",)) -> dict[str, Any]:
    """What a freshly made controller of this configuration does."""
    parts = build(config)
    try:
        return panel(config, parts.controller, Clock(0, 0, 1000), episodes, named, parts.learner)
    finally:
        parts.close()


def two_policies(episodes: int, *overrides: str) -> list[dict[str, Any]]:
    """An untrained LPMARL beside LP-distance with the same low level."""
    policies = ("high_policy=lp", "high_policy=lp_distance")
    return [played(small_config(*overrides, policy), episodes) for policy in policies]
