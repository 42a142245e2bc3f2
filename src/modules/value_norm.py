"""Running mean and deviation of value targets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SMALLEST_VARIANCE = 1e-2


class ValueNorm(nn.Module):
    """Normalizes value targets, so that the critic's loss has one scale whatever the rewards (van Hasselt et al. 2016).

    The statistics are a moving average over updates without the bias of its start.

    Args:
        beta: share of the old statistics in an update.
    """

    mean: Tensor
    square: Tensor
    weight: Tensor

    def __init__(self, beta: float = 0.99999) -> None:
        super().__init__()
        self.beta = beta
        for name in ("mean", "square", "weight"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))

    def update(self, targets: Tensor, mask: Tensor) -> None:
        """Takes in the targets where the mask, of their shape, is 1."""
        count = mask.sum().clamp(min=1.0)
        seen = ((targets * mask).sum() / count, (targets.square() * mask).sum() / count, torch.ones(()))
        for average, value in zip((self.mean, self.square, self.weight), seen, strict=True):
            average.lerp_(value.to(average), 1.0 - self.beta)

    def _moments(self) -> tuple[Tensor, Tensor]:
        weight = self.weight if self.weight > 0 else torch.ones_like(self.weight)
        mean = self.mean / weight
        variance = self.square / weight - mean.square() if self.weight > 0 else torch.ones_like(mean)
        return mean.float(), variance.clamp(min=SMALLEST_VARIANCE).sqrt().float()

    def normalize(self, targets: Tensor) -> Tensor:
        """Targets in units of the running deviation from the running mean; as they are before the first update."""
        mean, deviation = self._moments()
        return (targets - mean) / deviation

    def denormalize(self, values: Tensor) -> Tensor:
        """What ``normalize`` would have made ``values`` of."""
        mean, deviation = self._moments()
        return values * deviation + mean
