"""The environment contract: what every environment gives, alone (``MultiAgentEnv``) or batched (``VectorEnv``).

Shape legend: B environments, N agents, M tasks, A actions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Fields that every environment observes, and those that a task-structured one adds.
FLAT_FIELDS = ("obs", "state", "avail_actions")
TASK_FIELDS = ("agent_feats", "task_feats", "agent_alive", "task_alive", "capacity")
# Reward parts that a task-structured step returns beside the flat reward.
TASK_REWARDS = ("reward_high", "task_reward")
# What each agent earns whatever its task, for methods that give agents none; an environment may leave it out.
AGENT_REWARD = "agent_reward"
# Extra result [B] bool, where there is one: the episode was lost (a game died), nothing of it is to be learned from.
DROPPED = "dropped"


@dataclass(frozen=True)
class TaskInfo:
    """What a task-structured environment promises about its tasks.

    The first two columns of ``agent_feats`` and of ``task_feats`` are the position (x, y) in one common frame:
    pair features (offsets, distances) are derived from them.

    Attributes:
        n_tasks: M, the largest number of tasks.
        agent_feats: Fa, columns of ``agent_feats``.
        task_feats: Ft, columns of ``task_feats``.
        agent_sight: distance up to which an agent observes another agent, in position units.
        task_sight: distance up to which an agent observes a task.
        first_task_action: index of the action "act on task 0"; actions from there on belong to the tasks, one
            each. ``None`` when no action names a task.
        agent_radius: size of an agent, in position units, for drawing only; 0 = unknown.
        task_radius: an agent closer than this to its nearest task is drawn as present there; 0 = unknown.
        half_width: the arena is drawn from minus to plus this; 0 = unknown.
        costs: names of further [N, M] float32 fields that can be observed: what the environment knows of the cost of
            giving task j to agent i, lower is better. Computed only when requested.
    """

    n_tasks: int
    agent_feats: int
    task_feats: int
    agent_sight: float = float("inf")
    task_sight: float = float("inf")
    first_task_action: int | None = None
    agent_radius: float = 0.0
    task_radius: float = 0.0
    half_width: float = 0.0
    costs: tuple[str, ...] = ()


@dataclass(frozen=True)
class EnvInfo:
    """Shapes and limits, fixed for the life of an environment.

    Attributes:
        n_agents: N, the largest number of agents.
        n_actions: A.
        obs_shape: length of one agent's flat observation.
        state_shape: length of the global state.
        episode_limit: steps after which an episode is truncated.
        tasks: the task structure, or ``None`` for a flat environment.
        external: each environment is a program of its own, whose state cannot be saved: tests start no more of them
            than training, and a resumed run goes on with new episodes.
        version: of what it plays: raised when the same seed and actions come to see or earn something else. Runs of
            different versions are not compared.
    """

    n_agents: int
    n_actions: int
    obs_shape: int
    state_shape: int
    episode_limit: int
    tasks: TaskInfo | None = None
    external: bool = False
    version: int = 1

    def field_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one environment's array per observed field."""
        shapes: dict[str, tuple[int, ...]] = {
            "obs": (self.n_agents, self.obs_shape),
            "state": (self.state_shape,),
            "avail_actions": (self.n_agents, self.n_actions),
        }
        if self.tasks is not None:
            m = self.tasks.n_tasks
            shapes |= {
                "agent_feats": (self.n_agents, self.tasks.agent_feats),
                "task_feats": (m, self.tasks.task_feats),
                "agent_alive": (self.n_agents,),
                "task_alive": (m,),
                "capacity": (m,),
            }
            shapes |= dict.fromkeys(self.tasks.costs, (self.n_agents, m))
        return shapes


@dataclass
class StepResult:
    """One step of B environments. Rows of environments that were not active are undefined.

    Attributes:
        reward: [B] float32, the flat team reward.
        terminated: [B] bool, the task itself ended the episode (success, defeat).
        truncated: [B] bool, the time limit ended it: not a terminal state.
        extras: further rewards, e.g. ``reward_high`` [B] and ``task_reward`` [B, N, M] (what agent i would earn at
            this step were j its task), ``agent_reward`` [B, N] (what it earns whatever its task); and ``DROPPED`` [B]
            bool, which ends an episode that nobody is to learn from.
    """

    reward: Array
    terminated: Array
    truncated: Array
    extras: Mapping[str, Array] = field(default_factory=dict)

    @property
    def agent_reward(self) -> Array:
        """[B, N] what each agent earns whatever its task: as given, else the sum of its ``task_reward``."""
        given = self.extras.get(AGENT_REWARD)
        earned: Array = self.extras["task_reward"].sum(-1) if given is None else given
        return earned


class VectorEnv(ABC):
    """B environments stepped by one call.

    ``observation`` maps each requested field to an array [B, ...] that describes the current step. The arrays may
    be reused by the next ``reset`` or ``step``: copy what is to be kept.
    """

    info: EnvInfo
    n_envs: int
    observation: Mapping[str, Array]

    @abstractmethod
    def reset(self) -> None:
        """Starts a new episode in every environment."""

    @abstractmethod
    def step(self, actions: Array, active: Array) -> StepResult:
        """Steps the active environments.

        Args:
            actions: [B, N] int64.
            active: [B] bool; the others keep their state.
        """

    @abstractmethod
    def episode_metrics(self) -> dict[str, Array]:
        """[B] float64 per metric of the episode that ended, NaN where it does not apply."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that the coming episodes depend on, random streams included."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` gave."""

    @property
    @abstractmethod
    def seeds(self) -> list[int]:
        """The seed of each environment, all distinct."""

    def close(self) -> None:  # noqa: B027  most environments hold nothing
        """Releases processes and files."""


class MultiAgentEnv(ABC):
    """One environment: what a user writes. ``SerialEnvs`` makes a ``VectorEnv`` of B of them.

    Construct with ``(options, seed)``, where ``options`` is the registered options model.
    """

    info: EnvInfo

    @abstractmethod
    def reset(self) -> dict[str, Array]:
        """Starts an episode and returns its first observation: field -> array (``EnvInfo.field_shapes``)."""

    @abstractmethod
    def step(self, actions: Array) -> tuple[dict[str, Array], float, bool, bool, dict[str, Array]]:
        """Steps with actions [N]. Returns observation, reward, terminated, truncated, extra rewards."""

    def episode_metrics(self) -> dict[str, float]:
        """Metrics of the episode that ended."""
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that the coming episodes depend on."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` gave."""

    def close(self) -> None:  # noqa: B027
        """Releases processes and files."""


def derive_seeds(seed: int, stream: int, count: int) -> list[int]:
    """``count`` distinct seeds of one run.

    Args:
        seed: the run's seed.
        stream: which use they are for (training, evaluation): streams never overlap.
        count: how many.
    """
    words = np.random.SeedSequence([seed, stream]).generate_state(count, np.uint64)
    seeds = [int(word >> np.uint64(1)) for word in words]
    if len(set(seeds)) < count:
        raise RuntimeError(f"environment seeds collide for seed {seed}, stream {stream}")
    return seeds


def check_fields(info: EnvInfo, fields: Sequence[str]) -> None:
    """Raises ``KeyError`` when a requested field is not one that the environment observes."""
    missing = sorted(set(fields) - set(info.field_shapes()))
    if missing:
        known = ", ".join(info.field_shapes())
        raise KeyError(f"the environment does not observe {', '.join(missing)}; it observes {known}")
