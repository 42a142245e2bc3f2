"""The controller contract: from what is observed to a decision.

Shape legend: B environments, R rows (environments that still act), N agents, A actions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from components.episode_buffer import EpisodeBatch, FieldSpec
from components.random import load_rng_state, rng_state

Array = NDArray[Any]
Rows = slice | Tensor


@dataclass(frozen=True)
class Clock:
    """How far a run is.

    Attributes:
        env_steps: environment steps so far (one step of one environment, all its agents).
        episodes: episodes so far.
        t_max: environment steps of the whole run.
    """

    env_steps: int
    episodes: int
    t_max: int

    @property
    def fraction(self) -> float:
        """Share of the run that is over, 0 to 1."""
        return min(self.env_steps / self.t_max, 1.0)


@dataclass(frozen=True)
class Decision:
    """What a controller decides for the rows that act.

    Attributes:
        actions: [R, N] int64.
        extras: field -> [R, ...], declared by ``extra_fields`` and stored with the step.
    """

    actions: Array
    extras: Mapping[str, Array] = field(default_factory=dict)


class Controller(ABC):
    """Acts for all agents of B environments; keeps what lasts longer than a step (hidden states, assignments)."""

    # Observed fields that ``act`` or the learner's forward pass read.
    fields: tuple[str, ...]
    # Options (key -> value) that make a policy worth showing beside this one, e.g. one that learned nothing.
    reference: Mapping[str, Any] = {}
    # Draws exploration.
    _rng: np.random.Generator

    @abstractmethod
    def begin_episodes(self, batch_size: int) -> None:
        """Called before the first step of B new episodes."""

    @abstractmethod
    def act(self, batch: EpisodeBatch, t: int, rows: Rows, clock: Clock, test_mode: bool) -> Decision:
        """Decides at step t for the given rows of the batch, whose observations up to t are written."""

    def extra_fields(self) -> dict[str, FieldSpec]:
        """Fields that ``act`` returns beside the actions."""
        return {}

    def explain(self, batch: EpisodeBatch) -> dict[str, Array]:
        """What was behind the decisions of greedy episodes; empty where there is nothing to tell.

        Args:
            batch: [B, T] episodes that this controller played in ``test_mode``, with its ``fields`` and extras.

        Returns:
            Of assignments, arrays that are NaN wherever none was decided: ``scores`` [B, T, N, M], which the assignment
            maximized, ``prices`` [B, T, M], dual prices of the capacities, ``regrets`` [B, T, N, M], what each other
            pair would cost (infinite: impossible), ``margin`` [B, T], by how much every score may change before
            another assignment is best, and ``allowed`` [B, T, M], the capacities used, where a rule changed those of
            the environment. Under any other name, what was in every agent at every step: [B, T, N] or [B, T, N, C],
            of integers where they are numbers of something, such as skills.
        """
        return {}

    @abstractmethod
    def modules(self) -> dict[str, nn.Module]:
        """The networks by name."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All parameters."""
        for module in self.modules().values():
            yield from module.parameters()

    def state_dict(self) -> dict[str, Any]:
        """Networks and exploration stream. Episodes end before a checkpoint, so nothing of an episode is kept."""
        networks = {name: module.state_dict() for name, module in self.modules().items()}
        return networks | {"rng": rng_state(self._rng)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` gave."""
        for name, module in self.modules().items():
            module.load_state_dict(state[name])
        load_rng_state(self._rng, state["rng"])


def numpy_rows(rows: Rows) -> slice | NDArray[np.int64]:
    """The same rows for NumPy arrays."""
    return rows if isinstance(rows, slice) else rows.numpy()
