"""How training explores assignments: the LP makes a feasible one of whatever scores come out.

Shape legend: R environments that decide, N agents, M tasks.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from components.registry import Options
from components.schedules import linear
from controllers.base import Array, Clock
from controllers.high_policies import gumbel


class AssignmentNoiseOptions(Options):
    """How much noise, what of it agents have in common, and how long it holds."""

    score_noise_start: float = Field(
        0.5, ge=0, description="standard deviation of the noise on the scores, at the start"
    )
    score_noise_finish: float = Field(0.35, ge=0, description="the same at the end of training (linear)")
    score_noise_shared: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the noise's variance that all agents have in common, so that they try tasks together",
    )
    random_assignment: float = Field(0.2, ge=0, le=1, description="share of random feasible assignments in training")
    exploration_hold: float = Field(
        0.25, ge=0, le=1, description="share of training episodes whose noise holds; else it is drawn at each decision"
    )


class AssignmentNoise:
    """Noise on the scores, or random scores instead of them.

    Args:
        options: its size and how long it holds.
        n_agents: N.
        n_tasks: M.
        rng: draws it; shared with the controller.
    """

    def __init__(self, options: AssignmentNoiseOptions, n_agents: int, n_tasks: int, rng: np.random.Generator) -> None:
        self._options = options
        self._pairs = (n_agents, n_tasks)
        self._rng = rng
        self.begin_episodes(0)

    def begin_episodes(self, batch_size: int) -> None:
        """Called before the first decision of new episodes."""
        self._batch_size = batch_size
        self._drawn: Array | None = None
        self._holds = np.zeros(batch_size, dtype=np.bool_)

    def of(self, environments: Array) -> Array:
        """[R, 2, N, M]: standard normal noise on the scores, and scores to use instead (or NaN).

        In a share of the episodes it is drawn once and holds for all decisions, so that the agents arrive; in the
        others it is drawn at every decision, so that the critic sees many assignments from many states.
        """
        if self._drawn is None:
            self._drawn = self._draw(self._batch_size)
            self._holds = self._rng.random(self._batch_size) < self._options.exploration_hold
        fresh = environments[~self._holds[environments]]
        self._drawn[fresh] = self._draw(len(fresh))
        return self._drawn[environments]

    def add(self, scores: Array, noise: Array, clock: Clock, feasible: bool) -> Array:
        """[R, N, M] what the assignment goes by; ``noise`` as :meth:`of` gives it.

        Without the LP (``feasible`` is false) every agent samples its task from the softmax of its scores.
        """
        shift, instead = noise[:, 0], noise[:, 1]
        shift = self.scale(clock) * shift if feasible else gumbel(shift)
        return np.where(np.isnan(instead), scores + shift, instead)

    def scale(self, clock: Clock) -> float:
        """Standard deviation of the noise on the scores."""
        return linear(self._options.score_noise_start, self._options.score_noise_finish, clock.fraction)

    def standard(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        """[..., N, M] normal noise of unit variance, in part the same for all agents (``score_noise_shared``)."""
        own, shared = rng.standard_normal(shape), self._options.score_noise_shared
        if shared == 0:
            return own
        common = rng.standard_normal((*shape[:-2], 1, shape[-1]))
        noise: Array = shared**0.5 * common + (1 - shared) ** 0.5 * own
        return noise

    def _draw(self, count: int) -> Array:
        shape = (count, *self._pairs)
        replaced = self._rng.random((count, 1, 1)) < self._options.random_assignment
        instead = np.where(replaced, self._rng.random(shape), np.nan)
        return np.stack([self.standard(shape, self._rng), instead], 1)
