"""Symmetries and limits of LPMARL's networks: order, number, place, death and sight of agents and tasks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.task_states import graph_of, random_state, small_agent, small_controller, small_critic, task_info
from torch import Tensor

from controllers.task_structure import Observed
from modules.agents.lpmarl_agent import LpmarlAgent
from modules.assignment import make_problem, solve
from modules.critics.lpmarl_critic import LpmarlCritic

S, N, M = 4, 5, 3
SIGHT = 0.5


def assignment(s: int, n: int, m: int, seed: int = 0) -> Tensor:
    return torch.randint(m, (s, n), generator=torch.Generator().manual_seed(seed))


def outputs(agent: LpmarlAgent, critic: LpmarlCritic, seen: Observed, assign: Tensor) -> list[Tensor]:
    """C [S, N, M], logits [S, N, A], Q^h [S, N, M], Q^l [S, N, A]."""
    graph = graph_of(seen)
    with torch.no_grad():
        return [
            agent.scores(graph),
            agent.logits(graph, assign),
            critic.high_values(graph),
            critic.low_values(graph, assign),
        ]


def parts(rounds: int = 2) -> tuple[LpmarlAgent, LpmarlCritic]:
    return small_agent(task_info(N, M), graph_rounds=rounds), small_critic()(2, 1, 5, critic_graph_rounds=rounds)


def some_dead(seen: Observed) -> Observed:
    agent_alive, task_alive = seen.agent_alive.clone(), seen.task_alive.clone()
    agent_alive[1, 2] = agent_alive[2, 0] = task_alive[2, 1] = task_alive[3, 0] = False
    return seen._replace(agent_alive=agent_alive, task_alive=task_alive)


def test_permuting_agents_and_tasks_permutes_every_output() -> None:
    agent, critic = parts()
    seen, assign = some_dead(random_state(S, N, M)), assignment(S, N, M)
    agents, tasks = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([2, 0, 1])
    inverse = torch.argsort(tasks)
    moved = Observed(
        seen.agent_feats[:, agents],
        seen.task_feats[:, tasks],
        seen.agent_alive[:, agents],
        seen.task_alive[:, tasks],
        seen.capacity[:, tasks],
    )
    before = outputs(agent, critic, seen, assign)
    after = outputs(agent, critic, moved, inverse[assign[:, agents]])
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        expected = old[:, agents][:, :, tasks] if number in (0, 2) else old[:, agents]
        assert torch.allclose(new, expected, atol=1e-5)


def test_permuting_scores_permutes_the_assignment() -> None:
    rng = np.random.default_rng(0)
    scores, capacity = rng.random((50, N, M)), np.array([2, 1, 2])
    agents, tasks = np.array([3, 0, 4, 1, 2]), np.array([2, 0, 1])
    z = solve(make_problem(scores, capacity), "auto").z
    moved = solve(make_problem(scores[:, agents][:, :, tasks], capacity[tasks]), "auto").z
    assert np.array_equal(moved, z[:, agents][:, :, tasks])


def test_weights_made_for_3_agents_serve_20_agents_and_15_tasks() -> None:
    small = small_agent(task_info(3, 3))
    large = small_controller(task_info(20, 15)).agent
    large.load_state_dict(small.state_dict())
    seen, assign = random_state(S, 20, 15), assignment(S, 20, 15)
    with torch.no_grad():
        scores = small.scores(graph_of(seen))
        assert scores.shape == (S, 20, 15)
        assert torch.equal(large.scores(graph_of(seen)), scores)
        assert small.logits(graph_of(seen), assign).shape == (S, 20, 5)
    assert small_critic()(2, 1, 5).high_values(graph_of(seen)).shape == (S, 20, 15)


def test_only_relative_positions_count() -> None:
    agent, critic = parts()
    seen, assign = some_dead(random_state(S, N, M)), assignment(S, N, M)
    moved = seen._replace(agent_feats=seen.agent_feats.clone(), task_feats=seen.task_feats.clone())
    for feats in (moved.agent_feats, moved.task_feats):
        feats[..., 0] += 3.0
        feats[..., 1] -= 2.0
    for old, new in zip(outputs(agent, critic, seen, assign), outputs(agent, critic, moved, assign), strict=True):
        assert torch.allclose(old, new, atol=1e-5)


def test_the_dead_do_not_influence_the_living() -> None:
    agent, critic = parts()
    seen = some_dead(random_state(S, N, M))
    # Living agents are on living tasks.
    assign = torch.where(seen.task_alive[:, :1], 0, 2).expand(S, N)
    other = seen._replace(
        agent_feats=torch.where(seen.agent_alive.unsqueeze(-1), seen.agent_feats, 7.0),
        task_feats=torch.where(seen.task_alive.unsqueeze(-1), seen.task_feats, -7.0),
    )
    live_pairs = seen.agent_alive.unsqueeze(2) & seen.task_alive.unsqueeze(1)
    before, after = outputs(agent, critic, seen, assign), outputs(agent, critic, other, assign)
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        living = live_pairs if number in (0, 2) else seen.agent_alive
        assert torch.allclose(old[living], new[living], atol=1e-6)


def logits_at(rounds: int, agents: list[float], low_encoder: str = "gnn") -> Tensor:
    """[N, A] policy of agents on a line, both tasks in everybody's sight, agents on tasks 0, 1, 0, 1, ..."""
    n = len(agents)
    controller = small_controller(task_info(n, 2, sight=SIGHT), {"graph_rounds": rounds, "low_encoder": low_encoder})
    seen = random_state(1, n, 2)
    seen.agent_feats[0, :, 0] = torch.tensor(agents)
    seen.agent_feats[0, :, 1] = 0.0
    with torch.no_grad():
        return controller.agent.logits(controller.in_sight(graph_of(seen)), torch.arange(n).unsqueeze(0) % 2)[0]


def changed(old: Tensor, new: Tensor) -> list[bool]:
    return [not torch.equal(a, b) for a, b in zip(old, new, strict=True)]


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_an_agent_out_of_sight_tells_nothing(rounds: int) -> None:
    # Agents 0 and 1 see each other; agents 2 and 3 are beyond every chain of sight, whatever the tasks see.
    old = logits_at(rounds, [0.0, 0.4, 5.0, 5.4])
    assert changed(old, logits_at(rounds, [0.0, 0.4, 5.0, 5.3])) == [False, False, True, True]
    assert changed(old, logits_at(rounds, [0.0, 0.4, 5.0, 9.0])) == [False, False, True, True]


def test_an_agent_in_sight_is_seen() -> None:
    assert changed(logits_at(1, [0.0, 0.4, 5.0, 5.4]), logits_at(1, [0.0, 0.3, 5.0, 5.4])) == [True, True, False, False]


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_news_travels_one_neighbor_per_round(rounds: int) -> None:
    chain = [0.0, 0.4, 0.8, 1.2, 1.6]
    found = changed(logits_at(rounds, chain), logits_at(rounds, [*chain[:4], 1.65]))
    assert found == [4 - i <= rounds for i in range(5)]


def test_without_the_encoder_an_agent_sees_itself_and_its_task_alone() -> None:
    old = logits_at(1, [0.0, 0.4, 5.0, 5.4], "none")
    assert changed(old, logits_at(1, [0.0, 0.3, 5.0, 5.4], "none")) == [False, True, False, False]
