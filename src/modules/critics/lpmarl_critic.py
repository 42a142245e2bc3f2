"""LPMARL's critics: the value of an assignment (high level) and of an action given the own task (low level)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from components.registry import Options
from modules.graph import Graph, GraphEncoder, OwnTaskHead, PairHead


class LpmarlCriticOptions(Options):
    """Sizes of the critics (the paper's table 4)."""

    critic_graph_hidden_dim: int = Field(32, ge=1, description="H, units of each critic's graph encoder")
    critic_graph_rounds: int = Field(1, ge=1, le=4, description="rounds of message passing")
    critic_graph_aggregate: Literal["mean", "sum"] = Field("mean", description="messages are averaged or summed")
    critic_head_hidden_dim: int = Field(64, ge=1, description="units of each hidden layer of the value heads")
    critic_low_encoder: Literal["gnn", "none"] = Field(
        "gnn", description="low-level critic input: global graph and own task, or own task alone"
    )


class LpmarlCritic(nn.Module):
    """Q^h_ij, the share of agent i with task j in the team's value (eq. 13), and Q^l_i(., a) within the group (eq. 17).

    Each has a graph encoder of its own. Arguments as :class:`modules.agents.lpmarl_agent.LpmarlAgent`.
    """

    def __init__(
        self,
        agent_dim: int,
        task_dim: int,
        n_low_actions: int,
        critic_graph_hidden_dim: int,
        critic_graph_rounds: int,
        critic_graph_aggregate: str,
        critic_head_hidden_dim: int,
        critic_low_encoder: str,
    ) -> None:
        super().__init__()
        shape = (agent_dim, task_dim, critic_graph_hidden_dim, critic_graph_rounds, critic_graph_aggregate)
        self.embeds_low = critic_low_encoder == "gnn"
        low_dim = critic_graph_hidden_dim if self.embeds_low else 0
        self.high = nn.ModuleList([GraphEncoder(*shape), PairHead(critic_graph_hidden_dim, critic_head_hidden_dim)])
        self.low = nn.ModuleList([OwnTaskHead(agent_dim, task_dim, low_dim, critic_head_hidden_dim, n_low_actions)])
        if self.embeds_low:
            self.low.append(GraphEncoder(*shape))

    def high_values(self, graph: Graph) -> Tensor:
        """Q^h [S, N, M]."""
        encoder, head = self.high
        out: Tensor = head(*encoder(graph), graph)
        return out

    def low_values(self, graph: Graph, assign: Tensor) -> Tensor:
        """Q^l [S, N, A] of every low-level action, given each agent's task [S, N]."""
        embeddings = self.low[1](graph) if self.embeds_low else None
        out: Tensor = self.low[0](graph, assign, embeddings)
        return out
