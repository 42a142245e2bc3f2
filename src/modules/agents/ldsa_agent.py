"""LDSA's agent (Yang et al. 2022, arXiv 2205.02561): every agent picks a subtask, and acts by its policy.

Shape legend: B episodes, T steps, N agents, A actions, K subtasks, E length of an embedding, H units of a GRU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from components.registry import Options
from modules.agents.base import ValueAgent
from modules.agents.gru_agent import GRUAgent, unroll_gru


class LdsaAgentOptions(Options):
    """Sizes of the networks, and the number of subtasks."""

    rnn_hidden_dim: int = Field(64, ge=1, description="units of the input layer and of the GRU, of both networks")
    n_subtasks: int = Field(4, ge=1, description="K, subtasks")
    agent_subtask_embed_dim: int = Field(64, ge=1, description="E, length of an agent's and of a subtask's embedding")


class Subtasks(NamedTuple):
    """What the agent says of a sequence of steps.

    Attributes:
        values: [B, T, N, A] under the selected subtask.
        logits: [B, T, N, K] <ability of the agent, embedding of the subtask>.
        selected: [B, T, N, K] one-hot.
    """

    values: Tensor
    logits: Tensor
    selected: Tensor


class LdsaAgent(ValueAgent):
    """Q_i = sum_k sel_ik Q_ik, with sel_i one-hot over the subtasks k and drawn by <ability of i, embedding of k>.

    The output layer of subtask k is generated from its embedding, which learns nothing through it.

    Args:
        input_dim: F.
        n_actions: A.
        rnn_hidden_dim: H.
        n_subtasks: K.
        agent_subtask_embed_dim: E.
    """

    def __init__(
        self, input_dim: int, n_actions: int, rnn_hidden_dim: int, n_subtasks: int, agent_subtask_embed_dim: int
    ) -> None:
        super().__init__()
        self.n_subtasks = n_subtasks
        self.ability = GRUAgent(input_dim, agent_subtask_embed_dim, rnn_hidden_dim)
        self.embed = nn.Sequential(
            nn.Linear(n_subtasks, agent_subtask_embed_dim),
            nn.ReLU(),
            nn.Linear(agent_subtask_embed_dim, agent_subtask_embed_dim),
            nn.Tanh(),
        )
        self.fc1 = nn.Linear(input_dim, rnn_hidden_dim)
        self.rnn = nn.GRU(rnn_hidden_dim, rnn_hidden_dim)
        self.hyper_weight = nn.Linear(agent_subtask_embed_dim, rnn_hidden_dim * n_actions)
        self.hyper_bias = nn.Linear(agent_subtask_embed_dim, n_actions)

    def embeddings(self) -> Tensor:
        """[K, E] of the subtasks."""
        found: Tensor = self.embed(torch.eye(self.n_subtasks, device=self.fc1.weight.device))
        return found

    def select(self, inputs: Tensor, hidden: Tensor | None, noise: Tensor | None) -> tuple[Subtasks, Tensor]:
        """Values of a sequence, and the hidden state after its last step.

        Args:
            inputs: [B, T, N, F].
            hidden: [B, N, 2H], or ``None`` at the start.
            noise: [B, T, N, K] Gumbel noise: a sample of softmax(logits); ``None``: the best subtask. Straight-through.
        """
        of_ability, of_policy = (None, None) if hidden is None else hidden.chunk(2, -1)
        ability, of_ability = self.ability(inputs, of_ability)
        out, of_policy = unroll_gru(self.fc1, self.rnn, inputs, of_policy)
        embeddings = self.embeddings()
        logits = ability @ embeddings.T
        noisy = logits if noise is None else logits + noise
        selected = functional.one_hot(noisy.argmax(-1), self.n_subtasks).to(logits.dtype)
        soft = noisy.softmax(-1)
        selected = selected + (soft - soft.detach())
        weights = self.hyper_weight(embeddings.detach()).view(self.n_subtasks, out.shape[-1], -1)
        each = torch.einsum("btnh,kha->btnka", out, weights) + self.hyper_bias(embeddings.detach())
        values = torch.einsum("btnk,btnka->btna", selected, each)
        return Subtasks(values, logits, selected), torch.cat([of_ability, of_policy], -1)

    @override
    def forward(self, inputs: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
        """Values under every agent's best subtask; arguments as :class:`ValueAgent`."""
        subtasks, hidden = self.select(inputs, hidden, None)
        return subtasks.values, hidden
