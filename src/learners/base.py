"""The learner contract: what to sample, how often, and which losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from components.episode_buffer import EpisodeBatch, ReplayBuffer
from components.errors import RunFailed
from controllers.base import Array, Clock

Metrics = dict[str, float]


class Learner(ABC):
    """Improves a controller from the replay buffer."""

    # Observed fields and rewards that the learner reads beside the controller's fields.
    fields: tuple[str, ...] = ()
    rewards: tuple[str, ...] = ()
    # Episodes that must be stored before the first update.
    needs_episodes: int = 1
    # Whether every episode is learned from once: the buffer must hold all that come between two updates.
    each_once: bool = False
    # Gradient updates so far.
    updates: int = 0
    # Whether ``explain`` tells something.
    explains: bool = False

    @abstractmethod
    def update(self, buffer: ReplayBuffer, clock: Clock) -> Metrics | None:
        """Does the updates that are due and returns the metrics of the last, or ``None`` when none was due."""

    def after_test(self, metrics: Mapping[str, float]) -> None:  # noqa: B027  few learners care
        """Called after each evaluation during training with the means of its greedy episodes."""

    def not_begun(self) -> list[str]:
        """What the run was too short for, a clause each; told at its end."""
        wait = f"no update was due: it waits for {self.needs_episodes} episodes, then for its interval"
        return [] if self.updates else [wait]

    def explain(self, batch: EpisodeBatch) -> dict[str, Array]:
        """As the controller's ``explain``, with what only training needs: mixers, critics."""
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that the coming updates depend on, apart from the controller and the buffer."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` gave."""


class NonFiniteUpdate(RunFailed):
    """A loss or gradient that is not a number; the parameters are as before the step."""


def step(
    optimizer: torch.optim.Optimizer,
    loss: Tensor,
    clip: float,
    cut: Callable[[list[nn.Parameter], float], Tensor] = nn.utils.clip_grad_norm_,
) -> Tensor:
    """One clipped gradient step; returns the gradient's norm before clipping, or what else ``cut`` returns.

    Raises:
        NonFiniteUpdate: instead of a step that would make the parameters NaN.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = cut(parameters, clip)
    if not torch.isfinite(norm):
        shapes = [tuple(p.shape) for p in parameters if not torch.isfinite(p).all()]
        weights = f", and weights of shape {shapes} are not finite" if shapes else ""
        raise NonFiniteUpdate(f"the loss is {loss.item():.4g} and its gradient's norm {norm.item():.4g}{weights}")
    optimizer.step()
    return norm


def adam(parameters: Iterable[nn.Parameter], lr: float, eps: float = 1e-8) -> torch.optim.Adam:
    """Adam, fused: one call for all parameters."""
    return torch.optim.Adam(list(parameters), lr=lr, eps=eps, fused=True)


@torch.no_grad()
def blend_target(target: nn.Module, source: nn.Module, tau: float) -> None:
    """Target <- (1 - tau) target + tau source; tau = 1 copies."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), tau)


def read_metrics(metrics: Mapping[str, Tensor | float]) -> Metrics:
    """The same numbers as Python floats."""
    return {name: float(value) for name, value in metrics.items()}
