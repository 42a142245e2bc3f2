"""What the differentiators that take a mean over noisy copies share: options, forward pass, and the copies themselves.

Shape legend: S noisy copies, B states, N agents, M tasks.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from typing_extensions import override

from modules.assignment.differentiators.base import Differentiator, Plan, TensorProblem, generator_of
from modules.assignment.differentiators.noise import NoiseName, NoiseOptions, NoisyCopies, noisy_copies


class NoisyOptions(NoiseOptions):
    """Noise and forward pass."""

    samples: int = Field(8, ge=1, description="noisy copies of each state")
    noise: NoiseName = Field("gaussian", description="distribution of the noise")
    forward: Literal["exact", "mean"] = Field("exact", description="the LP, or the mean assignment of the noisy copies")


class Noisy(Differentiator):
    """The LP on noisy copies of the scores; the backward pass sees the copies of a ``mean`` forward pass again."""

    stochastic: ClassVar[bool] = True
    options: NoisyOptions

    @override
    def forward(self, problem: TensorProblem, rng: torch.Generator | None) -> Plan:
        if self.options.forward == "exact":
            return Plan(problem.plan(problem.scores))
        copies = self._draw(problem, rng)
        return Plan(copies.plans.mean(0), copies)

    def copies(self, problem: TensorProblem, start: Plan, rng: torch.Generator | None) -> NoisyCopies:
        """The copies of the forward pass, or new ones where it had none."""
        return start.memory or self._draw(problem, rng)

    def _draw(self, problem: TensorProblem, rng: torch.Generator | None) -> NoisyCopies:
        options = self.options
        return noisy_copies(options.noise, options.samples, problem, options, generator_of(self, rng))
