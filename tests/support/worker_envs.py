"""Environments for worker processes. Apart from the tests, so that a worker imports nothing that it does not need."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from envs.base import Array
from envs.matrix_games import TwoStepGame, TwoStepGameOptions
from envs.vector import SerialEnvs


class Dying(TwoStepGame):
    """Dies when agent 0 acts 0 and raises when it acts 1."""

    def step(self, actions: Array) -> Any:
        if actions[0] == 0:
            os._exit(3)
        raise ValueError("the bridge is out")


def two_step_games(seeds: Sequence[int]) -> SerialEnvs:
    return SerialEnvs([TwoStepGame(TwoStepGameOptions(), seed) for seed in seeds], seeds, ("obs", "avail_actions"))


def dying(seeds: Sequence[int]) -> SerialEnvs:
    return SerialEnvs([Dying(TwoStepGameOptions(), seed) for seed in seeds], seeds, ("obs",))


def unbuildable(seeds: Sequence[int]) -> SerialEnvs:
    raise ValueError("no map of that name")
