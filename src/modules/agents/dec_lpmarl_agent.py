"""Dec-LPMARL's actor: LPMARL's, and an imitator of its assignment that works on what each agent sees."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from modules.agents.lpmarl_agent import LpmarlAgent, LpmarlAgentOptions
from modules.graph import LEAKY_SLOPE, Graph, GraphEncoder, PairLayer, mlp


class DecLpmarlAgentOptions(LpmarlAgentOptions):
    """Sizes of LPMARL's networks and of the imitator."""

    imitator_hidden_dim: int = Field(64, ge=1, description="units of each hidden layer of the imitator's head")
    message_rounds: int = Field(
        0, ge=0, le=5, description="load messages: how often agents in sight tell each other which task they would take"
    )


class Imitator(nn.Module):
    """Logits of pi_hat_i(j | o_i) (eq. 20), computed by every agent from what it sees.

    Agent i scores task j by itself, by the pair, and by what it sees around the task: a mean over the agents k in
    its sight of a function of the pair (k, j). In a round of load messages every agent tells those in sight its
    distribution over tasks; what they hear is averaged in the same way and changes their logits.

    Args:
        agent_dim: Fa - 2.
        task_dim: Ft - 2.
        embed_dim: H of the graph encoder.
        hidden_dim: units of each hidden layer of the head.
        rounds: graph encoder's rounds of message passing.
        aggregate: "mean" or "sum".
        message_rounds: rounds of load messages.
    """

    def __init__(
        self,
        agent_dim: int,
        task_dim: int,
        embed_dim: int,
        hidden_dim: int,
        rounds: int,
        aggregate: str,
        message_rounds: int,
    ) -> None:
        super().__init__()
        self.encoder = GraphEncoder(agent_dim, task_dim, embed_dim, rounds, aggregate)
        self.around = PairLayer(agent_dim, task_dim, hidden_dim)
        self.own = PairLayer(embed_dim, embed_dim, hidden_dim)
        self.join = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.head = mlp([hidden_dim, hidden_dim, 1])
        self.hear = nn.ModuleList(mlp([5, hidden_dim, 1]) for _ in range(message_rounds))

    def forward(self, graph: Graph) -> Tensor:
        """[S, N, M] on the observation graph."""
        agents, tasks = self.encoder(graph)
        pairs = graph.to_tasks
        near = in_sight_mean(graph, self.around(graph.agents, graph.tasks, pairs))
        hidden = self.own(agents, tasks, pairs) + self.join(near)
        logits: Tensor = self.head(functional.leaky_relu(hidden, LEAKY_SLOPE)).squeeze(-1)
        for hear in self.hear:
            logits = logits + hear(self._messages(graph, logits)).squeeze(-1)
        return logits

    def _messages(self, graph: Graph, logits: Tensor) -> Tensor:
        """[S, N, M, 5] own logit and probability, the others' mean probability, how many they are, the task's share."""
        pi = logits.masked_fill(~graph.to_tasks.edges, -1e7).softmax(-1)
        heard = in_sight_mean(graph, pi.unsqueeze(-1))
        others = graph.to_agents.edges.float().sum(-1)[:, :, None, None].expand_as(heard)
        share = graph.tasks[..., :1].unsqueeze(1).expand_as(heard)
        return torch.cat([logits.unsqueeze(-1), pi.unsqueeze(-1), heard, others / 10.0, share], -1)


def in_sight_mean(graph: Graph, values: Tensor) -> Tensor:
    """[S, N, M, H] -> [S, N, M, H]: for agent i, the mean over the agents k that it sees of the values of (k, j)."""
    weights = graph.to_agents.edges.to(values.dtype)
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1.0)
    return torch.einsum("sik,skjh->sijh", weights, values)


class DecLpmarlAgent(LpmarlAgent):
    """LPMARL's actor with an imitator beside it, which shares no weights with it.

    Arguments as :class:`modules.agents.lpmarl_agent.LpmarlAgent`, and:

    Args:
        imitator_hidden_dim: units of each hidden layer of the imitator's head.
        message_rounds: rounds of load messages.
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
        imitator_hidden_dim: int,
        message_rounds: int,
    ) -> None:
        sizes = (graph_hidden_dim, graph_rounds, graph_aggregate)
        super().__init__(agent_dim, task_dim, n_low_actions, *sizes, head_hidden_dim, low_encoder)
        self.imitator = Imitator(
            agent_dim, task_dim, graph_hidden_dim, imitator_hidden_dim, graph_rounds, graph_aggregate, message_rounds
        )

    def imitated(self, graph: Graph) -> Tensor:
        """[S, N, M] the imitator's logits on the observation graph."""
        out: Tensor = self.imitator(graph)
        return out
