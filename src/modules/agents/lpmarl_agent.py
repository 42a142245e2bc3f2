"""LPMARL's actor: one graph encoder, the score matrix for the assignment (high level) and the policy (low level)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from components.registry import Options
from modules.graph import Graph, GraphEncoder, OwnTaskHead, PairHead


class LpmarlAgentOptions(Options):
    """Sizes of the networks (the paper's table 4)."""

    graph_hidden_dim: int = Field(32, ge=1, description="H, units of the graph encoder")
    graph_rounds: int = Field(1, ge=1, le=4, description="rounds of message passing")
    graph_aggregate: Literal["mean", "sum"] = Field(
        "mean", description="messages of the neighbors are averaged or summed"
    )
    head_hidden_dim: int = Field(64, ge=1, description="units of each hidden layer of the cost and policy heads")
    low_encoder: Literal["gnn", "none"] = Field(
        "gnn", description="policy input: observation graph and own task, or own task alone (smaller and faster)"
    )


class LpmarlAgent(nn.Module):
    """Score matrix C = sigmoid(f_c(h'_i, h'_j, pair_ij)) and policy logits f_l(h'_i, h'_{a_i}, ...) (eqs. 5 and 8).

    Args:
        agent_dim: Fa - 2, agent features without the position.
        task_dim: Ft - 2.
        n_low_actions: actions of the low-level policy.
        graph_hidden_dim: H.
        graph_rounds: rounds of message passing.
        graph_aggregate: "mean" or "sum".
        head_hidden_dim: units of each hidden layer of the heads.
        low_encoder: "gnn" or "none".
    """

    def __init__(
        self,
        agent_dim: int,
        task_dim: int,
        n_low_actions: int,
        graph_hidden_dim: int,
        graph_rounds: int,
        graph_aggregate: str,
        head_hidden_dim: int,
        low_encoder: str,
    ) -> None:
        super().__init__()
        self.encoder = GraphEncoder(agent_dim, task_dim, graph_hidden_dim, graph_rounds, graph_aggregate)
        self.cost_head = PairHead(graph_hidden_dim, head_hidden_dim)
        self.embeds_low = low_encoder == "gnn"
        low_dim = graph_hidden_dim if self.embeds_low else 0
        self.policy_head = OwnTaskHead(agent_dim, task_dim, low_dim, head_hidden_dim, n_low_actions)

    def scores(self, graph: Graph) -> Tensor:
        """C [S, N, M] in (0, 1) on the global graph."""
        return torch.sigmoid(self.score_logits(graph))

    def score_logits(self, graph: Graph) -> Tensor:
        """[S, N, M] C before the sigmoid: without the LP, the logits of each agent's choice."""
        out: Tensor = self.cost_head(*self.encoder(graph), graph)
        return out

    def logits(self, graph: Graph, assign: Tensor) -> Tensor:
        """[S, N, A] low-level policy logits on the observation graph, given each agent's task [S, N]."""
        embeddings = self.encoder(graph) if self.embeds_low else None
        out: Tensor = self.policy_head(graph, assign, embeddings)
        return out
