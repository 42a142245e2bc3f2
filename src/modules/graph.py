"""Graph over agents and tasks, and the network that encodes it (eqs. 1 to 4 of the paper).

Shape legend: S states, N agents, M tasks, H hidden units.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAKY_SLOPE = 0.01
# The first columns of node features are the position; it enters through offsets and distances only.
POSITION_DIM = 2


class Pairs(NamedTuple):
    """How the entities of one kind (I of them) lie to those of another (J), and which pairs are related.

    Attributes:
        here: [S, I, 2] positions.
        there: [S, J, 2] positions.
        distance: [S, I, J].
        edges: [S, I, J] bool.
    """

    here: Tensor
    there: Tensor
    distance: Tensor
    edges: Tensor

    def reversed(self) -> Pairs:
        """The same pairs seen from the other side."""
        return Pairs(self.there, self.here, self.distance.transpose(1, 2), self.edges.transpose(1, 2))

    def within(self, radius: float) -> Pairs:
        """Without the edges longer than the radius."""
        return self if radius == float("inf") else self._replace(edges=self.edges & (self.distance <= radius))


class Graph(NamedTuple):
    """Entities of S states and the pairs between them; edges join living entities.

    Attributes:
        agents: [S, N, Fa - 2] agent features without the position.
        tasks: [S, M, Ft - 2] task features without the position.
        to_tasks: agents to tasks.
        to_agents: agents to other agents.
        tasks_listen: whether tasks gather messages from agents.
    """

    agents: Tensor
    tasks: Tensor
    to_tasks: Pairs
    to_agents: Pairs
    tasks_listen: bool = True

    def within_sight(self, agent_sight: float, task_sight: float) -> Graph:
        """The observation graph: without the edges longer than an agent sees.

        Tasks gather nothing in it: one that two agents see would tell either where the other is, however far apart.
        """
        return self._replace(
            to_tasks=self.to_tasks.within(task_sight), to_agents=self.to_agents.within(agent_sight), tasks_listen=False
        )


def build_graph(agent_feats: Tensor, task_feats: Tensor, agent_alive: Tensor, task_alive: Tensor) -> Graph:
    """The graph of each state.

    Args:
        agent_feats: [S, N, Fa], position first.
        task_feats: [S, M, Ft], position first.
        agent_alive: [S, N] bool.
        task_alive: [S, M] bool.
    """
    agents, tasks = agent_feats[..., :POSITION_DIM], task_feats[..., :POSITION_DIM]
    alive = agent_alive.unsqueeze(2)
    others = ~torch.eye(agent_alive.shape[1], dtype=torch.bool, device=agent_alive.device)
    return Graph(
        agent_feats[..., POSITION_DIM:],
        task_feats[..., POSITION_DIM:],
        Pairs(agents, tasks, distances(agents, tasks), alive & task_alive.unsqueeze(1)),
        Pairs(agents, agents, distances(agents, agents), alive & agent_alive.unsqueeze(1) & others),
    )


def distances(here: Tensor, there: Tensor) -> Tensor:
    """[S, I, 2] and [S, J, 2] -> [S, I, J]."""
    return (there.unsqueeze(1) - here.unsqueeze(2)).square().sum(-1).sqrt()


def mlp(dims: list[int]) -> nn.Sequential:
    """Linear layers of these sizes with LeakyReLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(dims):
        layers += [nn.Linear(inputs, outputs), nn.LeakyReLU(LEAKY_SLOPE)]
    return nn.Sequential(*layers[:-1])


class PairLayer(nn.Module):
    """LeakyReLU(Linear([a_i, b_j, offset_ij, distance_ij])) for every pair, without building the concatenation.

    The offset p_j - p_i is linear in both positions, so its weights are applied per entity, not per pair.

    Args:
        left_dim: length of a_i.
        right_dim: length of b_j.
        out_dim: H.
    """

    def __init__(self, left_dim: int, right_dim: int, out_dim: int) -> None:
        super().__init__()
        self.left = nn.Linear(left_dim, out_dim)
        self.right = nn.Linear(right_dim, out_dim, bias=False)
        self.offset = nn.Linear(POSITION_DIM, out_dim, bias=False)
        self.distance = nn.Parameter(torch.empty(out_dim).uniform_(-1.0, 1.0) / POSITION_DIM**0.5)

    def forward(self, left: Tensor, right: Tensor, pairs: Pairs) -> Tensor:
        """[S, I, La] and [S, J, Lb] -> [S, I, J, H]."""
        from_left = self.left(left) - self.offset(pairs.here)
        from_right = self.right(right) + self.offset(pairs.there)
        entities = from_left.unsqueeze(2) + from_right.unsqueeze(1)
        return functional.leaky_relu(torch.addcmul(entities, pairs.distance.unsqueeze(-1), self.distance), LEAKY_SLOPE)


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

    def forward(self, receivers: Tensor, senders: Tensor, pairs: Pairs) -> Tensor:
        """[S, I, H] and [S, J, H] -> [S, I, H]; zero where i has no neighbor."""
        weights = pairs.edges.to(receivers.dtype)
        count = weights.sum(-1, keepdim=True)
        if self.aggregate == "mean":
            weights = weights / count.clamp(min=1.0)
            count = count.clamp(max=1.0)
        total = (self.first(receivers, senders, pairs) * weights.unsqueeze(-1)).sum(2)
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
        for from_agents, across, update in zip(self.from_agents, self.across, self.update, strict=True):
            near_tasks = across(agents, tasks, graph.to_tasks)
            near_agents = from_agents(agents, agents, graph.to_agents)
            silence = torch.zeros_like(tasks)
            at_tasks = across(tasks, agents, graph.to_tasks.reversed()) if graph.tasks_listen else silence
            agents, tasks = (
                update(torch.cat([near_tasks, near_agents, agents], -1)),
                update(torch.cat([at_tasks, silence, tasks], -1)),
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
        inputs = agent_dim + task_dim + POSITION_DIM + 1 + 2 * embed_dim
        self.layers = mlp([inputs, hidden_dim, hidden_dim, out_dim])

    def forward(self, graph: Graph, assign: Tensor, embeddings: tuple[Tensor, Tensor] | None) -> Tensor:
        """Values for the assignment [S, N] (a dead agent may carry any task) -> [S, N, out]."""
        where, pairs = assign.unsqueeze(-1), graph.to_tasks
        offset = take_task(pairs.there, assign) - pairs.here
        parts = [graph.agents, take_task(graph.tasks, assign), offset, pairs.distance.gather(2, where)]
        if embeddings is not None:
            parts += [embeddings[0], take_task(embeddings[1], assign)]
        out: Tensor = self.layers(torch.cat(parts, -1))
        return out


def take_task(tasks: Tensor, assign: Tensor) -> Tensor:
    """[S, M, F] and [S, N] -> [S, N, F]: the row of each agent's task."""
    return tasks.gather(1, assign.unsqueeze(-1).expand(-1, -1, tasks.shape[-1]))
