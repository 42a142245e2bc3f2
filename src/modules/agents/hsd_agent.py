"""HSD's networks of one agent: which skill, which action given the skill, and which skill it was (the decoder)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from components.episode_buffer import one_hot
from components.registry import Options
from modules.agents.mlp_agent import MLPAgent


class HsdAgentOptions(Options):
    """Sizes of the networks."""

    n_skills: int = Field(6, ge=1, description="K, skills")
    high_hidden_dim: int = Field(128, ge=1, description="units of each hidden layer of the skills' values")
    low_hidden_dim: int = Field(64, ge=1, description="units of each hidden layer of the actions' values")
    decoder_hidden_dim: int = Field(128, ge=1, description="units of the decoder's LSTM in each direction")


class HsdAgent(nn.Module):
    """Q^h(o, z), Q^l(o, z, a) and p(z | tau), shared by all agents.

    Args:
        input_dim: F, what the agent sees.
        n_actions: A.
        decoder_dim: D, entries of a step of the trajectory tau.
        n_skills: K.
        high_hidden_dim: units of each hidden layer of Q^h.
        low_hidden_dim: units of each hidden layer of Q^l.
        decoder_hidden_dim: units of the decoder's LSTM in each direction.
    """

    def __init__(
        self,
        input_dim: int,
        n_actions: int,
        decoder_dim: int,
        n_skills: int,
        high_hidden_dim: int,
        low_hidden_dim: int,
        decoder_hidden_dim: int,
    ) -> None:
        super().__init__()
        self.n_skills = n_skills
        self.high = MLPAgent(input_dim, n_skills, high_hidden_dim)
        self.low = MLPAgent(input_dim + n_skills, n_actions, low_hidden_dim)
        self.decoder = SkillDecoder(decoder_dim, n_skills, decoder_hidden_dim)

    def skill_values(self, inputs: Tensor) -> Tensor:
        """Q^h: [..., F] -> [..., K]."""
        values: Tensor = self.high(inputs, None)[0]
        return values

    def action_values(self, inputs: Tensor, skills: Tensor) -> Tensor:
        """Q^l: [..., F] and skills [..., 1] -> [..., A]."""
        values: Tensor = self.low(torch.cat([inputs, one_hot(skills, self.n_skills)], -1), None)[0]
        return values


class SkillDecoder(nn.Module):
    """Logits of p(z | tau): a bidirectional LSTM, its mean over time, a linear layer.

    Args:
        input_dim: D.
        n_skills: K.
        hidden_dim: units in each direction.
    """

    def __init__(self, input_dim: int, n_skills: int, hidden_dim: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(input_dim, hidden_dim, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden_dim, n_skills)

    def forward(self, trajectories: Tensor) -> Tensor:
        """[S, P, D] -> [S, K]."""
        logits: Tensor = self.head(self.rnn(trajectories)[0].mean(1))
        return logits
