"""Orthogonal initialization, as policy gradient methods use it."""

from __future__ import annotations

import torch
from torch import nn

RELU_GAIN = 2.0**0.5


@torch.no_grad()
def orthogonal_(network: nn.Module, head_gain: float) -> None:
    """Makes every weight matrix orthogonal and every bias zero.

    The gain is sqrt(2), what ReLU layers ask for, 1 in recurrent layers, and ``head_gain`` in the last layer. A weight
    [N, ...] of N networks is N matrices.
    """
    head = None
    for module in network.modules():
        gain = 1.0 if isinstance(module, nn.RNNBase) else RELU_GAIN
        for name, parameter in module.named_parameters(recurse=False):
            if name.startswith("bias"):
                parameter.zero_()
                continue
            for matrix in parameter if parameter.dim() == 3 else [parameter]:
                nn.init.orthogonal_(matrix, gain)
            head = parameter
    if head is not None:
        head.mul_(head_gain / RELU_GAIN)
