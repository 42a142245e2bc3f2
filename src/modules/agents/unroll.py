"""Whole episodes through a network, with little of the padding behind their ends.

Shape legend: B episodes, T steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# Fewer steps leave out more padding and take more calls. On 8m 8, 16 and 32 are within a tenth of each other.
CHUNK = 16


def unroll(network: Callable[..., Any], lengths: Tensor, *sequences: Tensor) -> tuple[Tensor, ...]:
    """What a network says of episodes of different lengths; zeros behind the last chunk of each.

    A batch is as long as its longest episode, in fights several times the mean. So it is cut into chunks of steps, and
    each goes through the network without the episodes that have ended. cuDNN is fastest with all steps in one call.

    Args:
        network: ``network(*chunks, hidden)`` takes [b, t, ...] of each sequence and the hidden state of those b
            episodes (``None``: the start), and returns outputs [b, t, ...], one or a tuple, and the hidden state.
        lengths: [B] observed steps.
        sequences: [B, T, ...].

    Returns:
        Every output, [B, T, ...].
    """
    steps = sequences[0].shape[1]
    ends, order = lengths.sort(descending=True)
    if sequences[0].is_cuda or steps <= CHUNK or int(ends[-1]) > steps - CHUNK:
        return _outputs(network(*sequences, None))[0]
    starts = torch.arange(0, steps, CHUNK, device=ends.device)
    # Somebody goes on to the end, so that outputs are as long as the batch.
    going = (ends.unsqueeze(1) > starts).sum(0).clamp(min=1).tolist()
    ordered = [sequence[order] for sequence in sequences]
    hidden: Tensor | None = None
    chunks = []
    for start, count in zip(starts.tolist(), going, strict=True):
        pieces = (sequence[:count, start : start + CHUNK] for sequence in ordered)
        outputs, hidden = _outputs(network(*pieces, None if hidden is None else hidden[:count]))
        chunks.append([_with_rows(output, len(order)) for output in outputs])
    back = order.argsort()
    return tuple(torch.cat(output, 1)[back] for output in zip(*chunks, strict=True))


def _outputs(found: tuple[Any, Tensor | None]) -> tuple[tuple[Tensor, ...], Tensor | None]:
    outputs, hidden = found
    return (outputs if isinstance(outputs, tuple) else (outputs,)), hidden


def _with_rows(output: Tensor, count: int) -> Tensor:
    """[b, ...] -> [count, ...], zeros after the first b."""
    return functional.pad(output, (0, 0) * (output.dim() - 1) + (0, count - len(output)))
