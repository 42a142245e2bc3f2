"""Recurrent agent: PyMARL's Linear-ReLU-GRU-Linear."""

from __future__ import annotations

from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn

from components.registry import Options
from modules.agents.base import ValueAgent


class GRUOptions(Options):
    """Size of the network."""

    rnn_hidden_dim: int = Field(64, ge=1, description="units of the input layer and of the GRU")


class GRUAgent(ValueAgent):
    """Linear-ReLU-GRU-Linear; whole sequences in one GRU call, single steps by its cell on the same weights.

    Args:
        input_dim: F.
        n_actions: A.
        rnn_hidden_dim: H.
    """

    def __init__(self, input_dim: int, n_actions: int, rnn_hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(input_dim, rnn_hidden_dim)
        self.rnn = nn.GRU(rnn_hidden_dim, rnn_hidden_dim)
        self.fc2 = nn.Linear(rnn_hidden_dim, n_actions)

    def forward(self, inputs: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
        """[B, T, N, F] and [B, N, H] (None: zeros) -> [B, T, N, A] and the hidden state after the last step."""
        out, hidden = unroll_gru(self.fc1, self.rnn, inputs, hidden)
        return self.fc2(out), hidden


def unroll_gru(embed: nn.Linear, rnn: nn.GRU, inputs: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
    """Linear-ReLU-GRU: [B, T, N, F] and [B, N, H] (None: zeros) -> [B, T, N, H] and the last hidden state."""
    b, t, n, _ = inputs.shape
    x = torch.relu(embed(inputs))
    h = x.new_zeros((b * n, x.shape[-1])) if hidden is None else hidden.reshape(b * n, -1)
    if t == 1:
        h = torch.gru_cell(x.reshape(b * n, -1), h, *_cell_weights(rnn))
        out = h.view(b, 1, n, -1)
    else:
        # A copied network's weights lie apart, which cuDNN would mend at every call; nothing is done where they do not.
        rnn.flatten_parameters()
        sequence, last = rnn(x.transpose(0, 1).reshape(t, b * n, -1), h.unsqueeze(0))
        out, h = sequence.view(t, b, n, -1).transpose(0, 1), last[0]
    return out, h.view(b, n, -1)


def _cell_weights(rnn: nn.GRU) -> list[Tensor]:
    """The GRU's weights in the order that a single cell takes them."""
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    return [cast(Tensor, getattr(rnn, name)) for name in names]
