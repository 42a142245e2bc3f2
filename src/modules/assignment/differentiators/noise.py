"""Noise on the scores.

Shape legend: S noisy copies, B states, N agents, M tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from components.registry import Options
from modules.assignment.differentiators.base import TensorProblem
from modules.assignment.differentiators.step_size import in_units

NoiseName = Literal["gaussian", "gumbel", "sum_of_gamma"]
# Terms of the sum that stands for its infinite series.
GAMMA_TERMS = 10


class NoiseOptions(Options):
    """Scale of the noise."""

    sigma: float | None = Field(None, gt=0, description="scale of the noise; null = relative_sigma counts")
    relative_sigma: float = Field(0.25, gt=0, description="the same relative to the spread of each state's scores")


class NoisyCopies(NamedTuple):
    """Noisy copies of a batch, solved.

    Attributes:
        noise: xi, [S, B, N, M] of unit scale.
        scores: C + sigma xi, [S, B, N, M].
        plans: Z of each, [S, B, N, M].
    """

    noise: Tensor
    scores: Tensor
    plans: Tensor


def gaussian(shape: tuple[int, ...], problem: TensorProblem, rng: torch.Generator) -> Tensor:
    """Standard normal noise."""
    return torch.randn(shape, dtype=torch.float64, generator=rng)


def gumbel(shape: tuple[int, ...], problem: TensorProblem, rng: torch.Generator) -> Tensor:
    """Standard Gumbel noise, mean 0.577: with room everywhere the mean assignment is softmax(C / sigma)."""
    # 1 - u is never 0.
    uniform = 1.0 - torch.rand(shape, dtype=torch.float64, generator=rng)
    return -torch.log(-torch.log(uniform).clamp(max=-torch.finfo(torch.float64).tiny))


def sum_of_gamma(shape: tuple[int, ...], problem: TensorProblem, rng: torch.Generator) -> Tensor:
    """Noise whose sum over the chosen pairs is about Gumbel (Niepert et al. 2021, section 3.3).

    xi = (1 / n) [sum_{t=1}^{10} Gamma(shape 1 / n, scale n / t) - log 10], with n chosen pairs: the living agents.
    """
    # PyTorch has no public gamma noise from a given generator.
    seed = int(torch.randint(2**62, (), generator=rng))
    living = problem.agent_mask.sum(1).clamp(min=1).cpu().numpy()[None, :, None, None].astype(np.float64)
    draw, total = np.random.Generator(np.random.PCG64(seed)), np.full(shape, -np.log(GAMMA_TERMS))
    for term in range(1, GAMMA_TERMS + 1):
        total += draw.gamma(1.0 / living, living / term, shape)
    return torch.from_numpy(total / living)


_NOISES: dict[NoiseName, Callable[[tuple[int, ...], TensorProblem, torch.Generator], Tensor]] = {
    "gaussian": gaussian,
    "gumbel": gumbel,
    "sum_of_gamma": sum_of_gamma,
}


def draw_noise(name: NoiseName, samples: int, problem: TensorProblem, rng: torch.Generator) -> Tensor:
    """[S, B, N, M] noise of unit scale on the problem's device, 0 for pairs that are not allowed.

    Drawn on the CPU in float64, whatever the masks: a seed gives the same noise on every device, and a state's noise
    depends on its place in the batch only.
    """
    drawn = _NOISES[name]((samples, *problem.scores.shape), problem, rng)
    return drawn.to(problem.scores.device).masked_fill_(~problem.allowed, 0.0)


def noise_scale(problem: TensorProblem, options: NoiseOptions) -> Tensor:
    """[B, 1, 1] sigma of each state."""
    return in_units(problem, options.sigma, options.relative_sigma)


def noisy_copies(
    name: NoiseName, samples: int, problem: TensorProblem, options: NoiseOptions, rng: torch.Generator
) -> NoisyCopies:
    """Draws and solves S copies."""
    noise = draw_noise(name, samples, problem, rng)
    scores = problem.scores + noise_scale(problem, options) * noise
    return NoisyCopies(noise, scores, problem.plan(scores))
