"""Graph over agents and tasks, and the network that encodes it (eqs. 1 to 4 of the paper).

Shape legend: S states, N agents, M tasks, H hidden units.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAKY_SLOPE = 0.01
# Pair features: offset x, offset y, distance.
PAIR_DIM = 3
# The first columns of node features are the position; it enters through the pair features only.
POSITION_DIM = 2


class Graph(NamedTuple):
    """Entities of S states, who is related to whom, and how they lie to each other.

    Attributes:
        agents: [S, N, Fa - 2] agent features without the position.
        tasks: [S, M, Ft - 2] task features without the position.
        to_tasks: [S, N, M, 3] offset and distance from agent i to task j.
        to_agents: [S, N, N, 3] offset and distance from agent i to agent k.
        sees_tasks: [S, N, M] bool, edge between agent i and task j.
        sees_agents: [S, N, N] bool, edge from agent k to agent i; no self-edges.
    """

    agents: Tensor
    tasks: Tensor
    to_tasks: Tensor
    to_agents: Tensor
    sees_tasks: Tensor
    sees_agents: Tensor


def build_graph(
    agent_feats: Tensor,
    task_feats: Tensor,
    agent_alive: Tensor,
    task_alive: Tensor,
    agent_sight: float = float("inf"),
    task_sight: float = float("inf"),
) -> Graph:
    """The graph of each state; edges join living entities, within sight where a radius is given.

    Args:
        agent_feats: [S, N, Fa], position first.
        task_feats: [S, M, Ft], position first.
        agent_alive: [S, N] bool.
        task_alive: [S, M] bool.
        agent_sight: largest distance of an edge between agents.
        task_sight: largest distance of an edge between an agent and a task.
    """
    where_agents, where_tasks = agent_feats[..., :POSITION_DIM], task_feats[..., :POSITION_DIM]
    to_tasks = with_distance(where_tasks.unsqueeze(1) - where_agents.unsqueeze(2))
    to_agents = with_distance(where_agents.unsqueeze(1) - where_agents.unsqueeze(2))
    alive = agent_alive.unsqueeze(2)
    others = ~torch.eye(agent_alive.shape[1], dtype=torch.bool, device=agent_alive.device)
    return Graph(
        agent_feats[..., POSITION_DIM:],
        task_feats[..., POSITION_DIM:],
        to_tasks,
        to_agents,
        alive & task_alive.unsqueeze(1) & (to_tasks[..., -1] <= task_sight),
        alive & agent_alive.unsqueeze(1) & others & (to_agents[..., -1] <= agent_sight),
    )


def with_distance(offset: Tensor) -> Tensor:
    """[..., 2] offsets -> [..., 3] offsets and their length."""
    return torch.cat([offset, offset.norm(dim=-1, keepdim=True)], -1)


def mlp(dims: list[int]) -> nn.Sequential:
    """Linear layers of these sizes with LeakyReLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip(dims[:-1], dims[1:], strict=True):
        layers += [nn.Linear(inputs, outputs), nn.LeakyReLU(LEAKY_SLOPE)]
    return nn.Sequential(*layers[:-1])


class PairLayer(nn.Module):
    """LeakyReLU(Linear([a_i, b_j, pair_ij])) for every pair, without building the concatenation.

    Args:
        left_dim: length of a_i.
        right_dim: length of b_j.
        out_dim: H.
    """

    def __init__(self, left_dim: int, right_dim: int, out_dim: int) -> None:
        super().__init__()
        self.left = nn.Linear(left_dim, out_dim)
        self.right = nn.Linear(right_dim, out_dim, bias=False)
        self.pair = nn.Linear(PAIR_DIM, out_dim, bias=False)

    def forward(self, left: Tensor, right: Tensor, pair: Tensor) -> Tensor:
        """[S, I, La], [S, J, Lb], [S, I, J, 3] -> [S, I, J, H]."""
        summed = self.pair(pair) + self.left(left).unsqueeze(2) + self.right(right).unsqueeze(1)
        return functional.leaky_relu(summed, LEAKY_SLOPE)


class MessageLayer(nn.Module):
    """Aggregated messages of one edge type: agg_j MLP(h_i, h_j, pair_ij) over the neighbors j of i.

    The second layer of the MLP is linear, so it is applied once to the aggregate instead of to every message.

    Args:
        dim: H.
        aggregate: mean or sum over neighbors; mean does not grow with their number.
    """

    def __init__(self, dim: int, aggregate: str) -> None:
        super().__init__()
        self.first = PairLayer(dim, dim, dim)
        self.second = nn.Linear(dim, dim)
        self.aggregate = aggregate

    def forward(self, receivers: Tensor, senders: Tensor, pair: Tensor, edges: Tensor) -> Tensor:
        """[S, I, H], [S, J, H], [S, I, J, 3], edges [S, I, J] -> [S, I, H]; zero where i has no neighbor."""
        weights = edges.to(receivers.dtype)
        count = weights.sum(-1, keepdim=True)
        if self.aggregate == "mean":
            weights = weights / count.clamp(min=1.0)
            count = (count > 0).to(count.dtype)
        messages = self.first(receivers, senders, pair)
        total = (weights.unsqueeze(2) @ messages).squeeze(2)
        return functional.linear(total, self.second.weight) + count * self.second.bias


class GraphEncoder(nn.Module):
    """Embeds agents and tasks by message passing (eqs. 1 to 4).

    m_ij = f(h_i, h_j, pair_ij), h'_i = f_V([agg_j m^NM_ij, agg_k m^NN_ik, h_i]); tasks get no agent-agent message.

    Args:
        agent_dim: Fa - 2, agent features without the position.
        task_dim: Ft - 2.
        hidden_dim: H.
        rounds: rounds of message passing.
        aggregate: "mean" or "sum".
    """

    def __init__(self, agent_dim: int, task_dim: int, hidden_dim: int, rounds: int, aggregate: str) -> None:
        super().__init__()
        self.embed_agent = nn.Linear(agent_dim, hidden_dim)
        self.embed_task = nn.Linear(task_dim, hidden_dim)
        self.from_agents = nn.ModuleList(MessageLayer(hidden_dim, aggregate) for _ in range(rounds))
        self.across = nn.ModuleList(MessageLayer(hidden_dim, aggregate) for _ in range(rounds))
        self.update = nn.ModuleList(mlp([3 * hidden_dim, hidden_dim, hidden_dim]) for _ in range(rounds))

    def forward(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Embeddings of agents [S, N, H] and tasks [S, M, H]."""
        agents = functional.leaky_relu(self.embed_agent(graph.agents), LEAKY_SLOPE)
        tasks = functional.leaky_relu(self.embed_task(graph.tasks), LEAKY_SLOPE)
        back = graph.to_tasks.transpose(1, 2)
        sees_back = graph.sees_tasks.transpose(1, 2)
        for from_agents, across, update in zip(self.from_agents, self.across, self.update, strict=True):
            near_tasks = across(agents, tasks, graph.to_tasks, graph.sees_tasks)
            near_agents = from_agents(agents, agents, graph.to_agents, graph.sees_agents)
            at_tasks = across(tasks, agents, back, sees_back)
            agents, tasks = (
                update(torch.cat([near_tasks, near_agents, agents], -1)),
                update(torch.cat([at_tasks, torch.zeros_like(tasks), tasks], -1)),
            )
        return agents, tasks


class PairHead(nn.Module):
    """A number per (agent, task): MLP [hidden, hidden] on (h_i, h_j, pair_ij)."""

    def __init__(self, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.first = PairLayer(embed_dim, embed_dim, hidden_dim)
        self.rest = mlp([hidden_dim, hidden_dim, 1])

    def forward(self, agents: Tensor, tasks: Tensor, graph: Graph) -> Tensor:
        """[S, N, M]."""
        out: Tensor = self.rest(self.first(agents, tasks, graph.to_tasks))
        return out.squeeze(-1)


class OwnTaskHead(nn.Module):
    """A vector per agent from itself and its task: MLP [hidden, hidden] on (h_i, h_j, pair_ij, features of i and j).

    Args:
        agent_dim: Fa - 2.
        task_dim: Ft - 2.
        embed_dim: H of the encoder, 0 to use no embeddings.
        hidden_dim: units of each hidden layer.
        out_dim: length of the vector.
    """

    def __init__(self, agent_dim: int, task_dim: int, embed_dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__()
        inputs = agent_dim + task_dim + PAIR_DIM + 2 * embed_dim
        self.layers = mlp([inputs, hidden_dim, hidden_dim, out_dim])

    def forward(self, graph: Graph, assign: Tensor, embeddings: tuple[Tensor, Tensor] | None) -> Tensor:
        """Values for the assignment [S, N] (a dead agent may carry any task) -> [S, N, out]."""
        parts = [
            graph.agents,
            take_task(graph.tasks, assign),
            take_pair(graph.to_tasks, assign),
        ]
        if embeddings is not None:
            parts += [embeddings[0], take_task(embeddings[1], assign)]
        out: Tensor = self.layers(torch.cat(parts, -1))
        return out


def take_task(tasks: Tensor, assign: Tensor) -> Tensor:
    """[S, M, F] and [S, N] -> [S, N, F]: the row of each agent's task."""
    return tasks.gather(1, assign.unsqueeze(-1).expand(-1, -1, tasks.shape[-1]))


def take_pair(pairs: Tensor, assign: Tensor) -> Tensor:
    """[S, N, M, F] and [S, N] -> [S, N, F]: the entry of each agent's task."""
    index = assign[..., None, None].expand(-1, -1, 1, pairs.shape[-1])
    return pairs.gather(2, index).squeeze(2)
