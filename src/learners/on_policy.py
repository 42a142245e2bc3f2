"""What on-policy learners share: each episode is learned from once, right after it was played.

Shape legend: B episodes, T transitions, N agents, A actions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.episode_buffer import EpisodeBatch, ReplayBuffer
from controllers.base import Clock


class NewEpisodes:
    """Gives every episode of the buffer out once, unless it was overwritten before.

    Args:
        at_least: episodes to wait for.
    """

    def __init__(self, at_least: int) -> None:
        self.at_least = at_least
        self._given = 0

    def take(self, buffer: ReplayBuffer, clock: Clock) -> EpisodeBatch | None:
        """All episodes stored since the last call that gave some, or ``None`` while they are too few."""
        new = min(clock.episodes - self._given, len(buffer))
        if new < self.at_least:
            return None
        self._given = clock.episodes
        return buffer.newest(new)

    def state_dict(self) -> dict[str, Any]:
        """Episodes given out so far."""
        return {"given": self._given}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` gave."""
        self._given = state["given"]


def parts_of(count: int, size: int, rng: np.random.Generator) -> Iterator[Tensor]:
    """The numbers below ``count`` in random order, in parts of ``size`` or up to twice as many in the last."""
    order = torch.from_numpy(rng.permutation(count))
    n_parts = max(count // size, 1)
    for part in range(n_parts):
        yield order[part * size : (part + 1) * size if part + 1 < n_parts else count]


def has_choice(avail: Tensor) -> Tensor:
    """[..., N] float32: 1 where an agent has more than one action. Dead and absent agents have one."""
    return (avail.sum(-1) > 1).float()


def entropy_of(log_pi: Tensor) -> Tensor:
    """[..., A] -> [...]: entropy of each distribution."""
    return -(log_pi.exp() * log_pi).sum(-1)
