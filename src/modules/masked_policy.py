"""Policies over the available actions: masks, samples and straight-through samples.

Shape legend: ... any, A actions.
"""

from __future__ import annotations

import torch
from torch import Tensor

UNAVAILABLE = -1e10


def mask_logits(logits: Tensor, avail: Tensor) -> Tensor:
    """[..., A] logits with those of unavailable actions too small to be ever chosen."""
    return logits.masked_fill(avail == 0, UNAVAILABLE)


def best(logits: Tensor) -> Tensor:
    """[..., A] one-hot of the largest logit."""
    return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)


def straight_through(logits: Tensor, gumbel: Tensor) -> Tensor:
    """[..., A] a one-hot sample of softmax(logits) whose gradient is that of softmax(logits + gumbel).

    Straight-through Gumbel-softmax at temperature 1 (Jang et al. 2017, arXiv 1611.01144, section 2.2).

    Args:
        logits: masked.
        gumbel: standard Gumbel noise.
    """
    soft = (logits + gumbel).softmax(-1)
    return best(soft.detach()) + (soft - soft.detach())


def logit_penalty(logits: Tensor, avail: Tensor) -> Tensor:
    """[...] mean of the squared logits of the available actions."""
    available = (avail != 0).float()
    return (logits.square() * available).sum(-1) / available.sum(-1).clamp(min=1.0)
