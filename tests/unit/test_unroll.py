"""Unrolling without padding: the same numbers and gradients as whole sequences, in fewer rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from modules.agents.gru_agent import GRUAgent
from modules.agents.ldsa_agent import LdsaAgent
from modules.agents.mlp_agent import MLPAgent
from modules.agents.rode_agent import RodeAgent
from modules.agents.unroll import CHUNK, unroll

N, F, A, T = 2, 5, 4, 3 * CHUNK + 5
LENGTHS = [[T, 1, CHUNK, CHUNK + 1, 7], [T], [3, T, 3], [2 * CHUNK, 2, 2 * CHUNK - 1], [T, T], [1]]
AGENTS = {
    "mlp": lambda: MLPAgent(F, A, hidden_dim=8),
    "gru": lambda: GRUAgent(F, A, rnn_hidden_dim=8),
    "rode": lambda: RodeAgent(F, A, rnn_hidden_dim=8, action_latent_dim=3, n_role_clusters=3),
    "ldsa": lambda: LdsaAgent(F, A, rnn_hidden_dim=8, n_subtasks=3, agent_subtask_embed_dim=6),
}


def shown(found: Any) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("name", AGENTS)
def test_outputs_and_gradients_are_those_of_whole_sequences(name: str, lengths: list[int]) -> None:
    torch.manual_seed(0)
    agent: Any = AGENTS[name]()
    inputs = torch.randn(len(lengths), T, N, F)
    there = torch.arange(T) < torch.tensor(lengths).unsqueeze(1)
    found = unroll(agent, torch.tensor(lengths), inputs)
    wanted = shown(agent(inputs, None)[0])
    assert len(found) == len(wanted)
    weights = [torch.randn_like(output) for output in wanted]
    gradients = []
    for outputs in (found, wanted):
        loss = sum((output[there] * weight[there]).sum() for output, weight in zip(outputs, weights, strict=True))
        gradients.append(torch.autograd.grad(loss, list(agent.parameters()), allow_unused=True))  # type: ignore[arg-type]
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.shape == theirs.shape
        assert torch.allclose(ours[there], theirs[there], atol=1e-6)
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_network_sees_no_episode_after_its_last_chunk_and_outputs_there_are_zero() -> None:
    rows = []

    def network(x: Tensor, noise: Tensor, hidden: Tensor | None) -> tuple[tuple[Tensor, Tensor], Tensor]:
        rows.append(tuple(x.shape[:2]))
        start = torch.zeros(len(x)) if hidden is None else hidden
        return (x + noise, x.cumsum(1) + start.unsqueeze(1)), start + x.sum(1)

    lengths = [5, T, CHUNK + 1, CHUNK]
    x = torch.from_numpy(np.random.default_rng(0).integers(1, 9, (4, T))).float()
    both, sums = unroll(network, torch.tensor(lengths), x, 10 * x)
    assert rows == [(4, CHUNK), (2, CHUNK), (1, CHUNK), (1, 5)]
    for b, length in enumerate(lengths):
        assert torch.equal(both[b, :length], 11 * x[b, :length])
        assert torch.equal(sums[b, :length], x[b, :length].cumsum(0))
        ends = -(-length // CHUNK) * CHUNK
        assert not both[b, ends:].any()
        assert not sums[b, ends:].any()


def test_episodes_of_nearly_one_length_go_in_one_call() -> None:
    calls = []

    def network(x: Tensor, hidden: Tensor | None) -> tuple[Tensor, None]:
        calls.append(len(x))
        return x, None

    x = torch.randn(3, T)
    assert torch.equal(unroll(network, torch.tensor([T, T - CHUNK + 1, T - 1]), x)[0], x)
    assert calls == [3]
