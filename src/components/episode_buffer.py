"""Episodes as batches of tensors, and the replay buffer that keeps them.

Shape legend: B episodes, T steps (episode limit + 1: the last slot holds the final observation), N agents,
M tasks, A actions. Layouts and dtypes are PyMARL's, so that its learners and mixers read these batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.random import load_rng_state, rng_state
from envs.base import EnvInfo

Index = NDArray[np.int64]


@dataclass(frozen=True)
class FieldSpec:
    """One field of an episode: shape of a single step, and dtype."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32


_OBSERVED_DTYPES = {
    "avail_actions": torch.int32,
    "agent_alive": torch.bool,
    "task_alive": torch.bool,
    "capacity": torch.int64,
}


def episode_fields(
    info: EnvInfo, observed: Iterable[str], rewards: Iterable[str], extras: Mapping[str, FieldSpec]
) -> dict[str, FieldSpec]:
    """The fields that a run stores.

    Args:
        info: shapes of the environment.
        observed: observed fields that the controller or the learner asks for.
        rewards: ``reward_high``, ``task_reward``, ``agent_reward``: rewards beside the flat one.
        extras: what the controller returns beside the actions.
    """
    shapes = info.field_shapes()
    fields = {name: FieldSpec(shapes[name], _OBSERVED_DTYPES.get(name, torch.float32)) for name in observed}
    n_tasks = info.tasks.n_tasks if info.tasks else 0
    reward_shapes = {"reward_high": (1,), "task_reward": (info.n_agents, n_tasks), "agent_reward": (info.n_agents,)}
    fields |= {name: FieldSpec(reward_shapes[name]) for name in rewards}
    fields |= {
        "actions": FieldSpec((info.n_agents, 1), torch.int64),
        "reward": FieldSpec((1,)),
        "terminated": FieldSpec((1,), torch.uint8),
        "truncated": FieldSpec((1,), torch.uint8),
        "filled": FieldSpec((1,), torch.int64),
    }
    return fields | dict(extras)


def one_hot(actions: Tensor, n_actions: int) -> Tensor:
    """[..., 1] action numbers -> [..., A] float32."""
    shape = (*actions.shape[:-1], n_actions)
    return torch.zeros(shape, device=actions.device).scatter_(-1, actions, 1.0)


class EpisodeBatch:
    """B episodes: ``batch["obs"]`` is [B, T, N, O]; ``batch[:, :-1]`` and ``batch[ids]`` are batches.

    ``filled`` is 1 at every step that was observed, the final observation included; ``terminated`` is 1 at the
    step whose action ended the task and 0 at a time limit, which ``truncated`` marks.

    Args:
        data: field -> [B, T, ...].
        n_actions: A, for ``actions_onehot``.
    """

    def __init__(self, data: dict[str, Tensor], n_actions: int) -> None:
        self.data = data
        self.n_actions = n_actions

    @classmethod
    def zeros(cls, fields: Mapping[str, FieldSpec], batch_size: int, length: int, n_actions: int) -> EpisodeBatch:
        """A batch of empty episodes on the CPU."""
        data = {name: torch.zeros((batch_size, length, *spec.shape), dtype=spec.dtype) for name, spec in fields.items()}
        return cls(data, n_actions)

    @property
    def batch_size(self) -> int:
        """B."""
        return self.data["filled"].shape[0]

    @property
    def max_seq_length(self) -> int:
        """T."""
        return self.data["filled"].shape[1]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.data["filled"].device

    def __contains__(self, name: str) -> bool:
        return name in self.data

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self.actions_onehot() if key == "actions_onehot" else self.data[key]
        return EpisodeBatch({name: tensor[key] for name, tensor in self.data.items()}, self.n_actions)

    def actions_onehot(self) -> Tensor:
        """[B, T, N, A] float32."""
        return one_hot(self.data["actions"], self.n_actions)

    def to(self, device: torch.device | str) -> EpisodeBatch:
        """The same batch on a device; this one if it is there already."""
        if self.device == torch.device(device):
            return self
        return EpisodeBatch({name: tensor.to(device) for name, tensor in self.data.items()}, self.n_actions)

    def max_t_filled(self) -> int:
        """Observed steps of the longest episode."""
        return int(self.data["filled"].sum(1).max())

    def mask(self) -> Tensor:
        """[B, T-1, 1] float32: 1 where step t is a transition, that is where t and t+1 were both observed."""
        filled = self.data["filled"]
        return (filled[:, :-1] * filled[:, 1:]).float()

    def lengths(self) -> Tensor:
        """[B] transitions of each episode."""
        return self.data["filled"].sum((1, 2)) - 1


@dataclass(frozen=True)
class StepIndex:
    """Places in the replay buffer: ``episode`` [K] and ``step`` [K]."""

    episode: Tensor
    step: Tensor


class ReplayBuffer:
    """The last ``capacity`` episodes, in CPU memory.

    Args:
        fields: what an episode holds.
        capacity: episodes kept; the oldest are overwritten.
        length: T.
        n_actions: A.
        rng: draws the samples.

    Attributes:
        drawn: [K] the episodes given last: what to look at when a loss is not finite.
    """

    def __init__(
        self, fields: Mapping[str, FieldSpec], capacity: int, length: int, n_actions: int, rng: np.random.Generator
    ) -> None:
        self.capacity = capacity
        self._storage = EpisodeBatch.zeros(fields, capacity, length, n_actions)
        self._lengths = np.zeros(capacity, dtype=np.int64)
        self._size = 0
        self._next = 0
        self._rng = rng
        self.drawn: Index = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return self._size

    def insert(self, batch: EpisodeBatch) -> None:
        """Copies the episodes in; at most ``capacity`` of them, the last ones."""
        count = min(batch.batch_size, self.capacity)
        slots = (self._next + np.arange(count)) % self.capacity
        places = torch.from_numpy(slots)
        for name, stored in self._storage.data.items():
            stored[places] = batch.data[name][-count:]
        self._lengths[slots] = batch.lengths()[-count:].numpy()
        self._next = int(slots[-1] + 1) % self.capacity
        self._size = min(self._size + count, self.capacity)

    def sample(self, count: int) -> EpisodeBatch:
        """``count`` episodes, uniform without replacement, cut to the longest of them. Copies."""
        return self._copy(self.sample_ids(count))

    def newest(self, count: int) -> EpisodeBatch:
        """The ``count`` episodes stored last, or as many as there are, oldest first, cut to the longest. Copies."""
        count = min(count, self._size)
        self.drawn = (self._next - count + np.arange(count)) % self.capacity
        return self._copy(torch.from_numpy(self.drawn))

    def _copy(self, ids: Tensor) -> EpisodeBatch:
        length = int(self.lengths(ids).max()) + 1
        data = {name: stored[:, :length].index_select(0, ids) for name, stored in self._storage.data.items()}
        return EpisodeBatch(data, self._storage.n_actions)

    def sample_ids(self, count: int) -> Tensor:
        """[count] different episodes, uniform."""
        self.drawn = self._rng.choice(self._size, count, replace=False)
        return torch.from_numpy(self.drawn)

    def episodes(self, name: str, ids: Tensor) -> Tensor:
        """[K, T, ...]: a field of whole episodes."""
        return self._storage.data[name].index_select(0, ids)

    def lengths(self, ids: Tensor) -> Tensor:
        """[K] transitions of each episode."""
        return torch.from_numpy(self._lengths[ids.numpy()])

    def sample_steps(self, count: int) -> StepIndex:
        """``count`` transitions, uniform over all stored transitions, with replacement."""
        ends = np.cumsum(self._lengths[: self._size])
        flat = self._rng.integers(ends[-1], size=count)
        episode = np.searchsorted(ends, flat, side="right")
        step = flat - (ends[episode] - self._lengths[episode])
        self.drawn = episode
        return StepIndex(torch.from_numpy(episode), torch.from_numpy(step))

    def at(self, name: str, index: StepIndex, offset: int = 0) -> Tensor:
        """[K, ...]: a field at the sampled steps, ``offset`` steps later."""
        return self._storage.data[name][index.episode, index.step + offset]

    def non_finite(self) -> dict[str, list[int]]:
        """Field -> the episodes of the last sample in which it holds NaN or infinity."""
        ids = np.unique(self.drawn)
        found = {}
        for name, stored in self._storage.data.items():
            if stored.is_floating_point():
                bad = ~torch.isfinite(stored[torch.from_numpy(ids)]).flatten(1).all(1).numpy()
                found[name] = ids[bad].tolist()
        return {name: episodes for name, episodes in found.items() if episodes}

    def state_dict(self) -> dict[str, Any]:
        """The stored episodes and the sampling stream."""
        return {
            "data": {name: stored[: self._size].clone() for name, stored in self._storage.data.items()},
            "lengths": self._lengths[: self._size].copy(),
            "next": self._next,
            "rng": rng_state(self._rng),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` gave, into a buffer of the same fields and capacity."""
        self._size = len(state["lengths"])
        self._next = state["next"]
        self._lengths[: self._size] = state["lengths"]
        for name, stored in self._storage.data.items():
            stored[: self._size] = state["data"][name]
        load_rng_state(self._rng, state["rng"])
