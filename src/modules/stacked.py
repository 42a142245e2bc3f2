"""Networks of N agents that share no weights, side by side in one tensor: one batched product instead of N.

Shape legend: S states, N agents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class StackedLinear(nn.Module):
    """y_i = x_i W_i + b_i for every agent i, initialized as ``nn.Linear``.

    Args:
        n_agents: N.
        inputs: features of x_i.
        outputs: features of y_i.
    """

    def __init__(self, n_agents: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(n_agents, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_agents, 1, outputs).uniform_(-bound, bound))

    def forward(self, inputs: Tensor) -> Tensor:
        """[N, S, inputs] -> [N, S, outputs]."""
        return torch.baddbmm(self.bias, inputs, self.weight)


def stacked_mlp(n_agents: int, sizes: Sequence[int], activation: Callable[[], nn.Module]) -> nn.Sequential:
    """[N, S, sizes[0]] -> [N, S, sizes[-1]]: layers of these sizes with the activation between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [StackedLinear(n_agents, inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


def clip_each_agent_(parameters: Sequence[nn.Parameter], clip: float) -> Tensor:
    """Cuts the gradient's norm of every agent's own networks; returns the largest norm before.

    Args:
        parameters: [N, ...] stacked, all with a gradient.
        clip: the norm allowed.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()
    scale = (clip / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale.view(-1, *[1] * (gradient.dim() - 1)))
    return norms.max()
