"""QPLEX: the agents' best actions are the team's, numbers by hand, reductions, and who learns from what."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from support.q_learning import AGENTS, INFO, QPLEX, episodes, learner
from torch import Tensor, nn

from components.episode_buffer import one_hot
from modules.mixers.qplex import HeadNets, QPlexMixer

N, S, A = 3, 4, 3


def mixer(n_agents: int = N, heads: int = 2) -> QPlexMixer:
    torch.manual_seed(0)
    return QPlexMixer(n_agents, S, A, hypernet_embed=8, attention_heads=heads, attention_embed=8, state_clip=1.0)


def fixed(net: nn.Module, outputs: list[float]) -> None:
    """The network gives these numbers whatever comes in."""
    last = net if isinstance(net, HeadNets) else net[-1]
    nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor(outputs).view(last.bias.shape)


def joint(n_agents: int) -> Tensor:
    """[A ** N, N, 1] every joint action."""
    return torch.tensor(list(product(range(A), repeat=n_agents))).unsqueeze(-1)


def values_of_all(mix: QPlexMixer, values: Tensor, states: Tensor) -> Tensor:
    """[B, A ** N] Q_tot of every joint action, for values [B, N, A]."""
    actions = joint(values.shape[1]).expand(len(values), -1, -1, -1)
    every = values.unsqueeze(1).expand(-1, actions.shape[1], -1, -1)
    taken, best = every.gather(-1, actions).squeeze(-1), every.max(-1).values
    return mix(taken, states.unsqueeze(1).expand(-1, actions.shape[1], -1), best, one_hot(actions, A)).squeeze(-1)


@pytest.mark.parametrize("n_agents", [1, 2, 4])
def test_the_best_joint_action_is_made_of_the_agents_best_ones(n_agents: int) -> None:
    mix = mixer(n_agents)
    # Large weights, so that lambda varies over orders of magnitude.
    for p in mix.parameters():
        p.data *= 5.0
    values, states = torch.randn(300, n_agents, A), torch.randn(300, S)
    totals = values_of_all(mix, values, states).detach()
    greedy = joint(n_agents).squeeze(-1)[totals.argmax(-1)]
    assert torch.equal(greedy, values.argmax(-1))


def test_lesser_actions_may_be_ordered_by_what_the_others_do() -> None:
    """QMIX orders an agent's actions the same way whatever the others do; here lambda turns the order around."""
    mix = mixer(2, heads=1)
    fixed(mix.agents, [0.0, 0.0])
    nn.init.zeros_(mix.actions.first.weight)
    nn.init.zeros_(mix.actions.first.bias)
    # Hidden unit h is on where agent 0 takes action 1 and agent 1 takes action 1.
    mix.actions.first.weight.data[0, S + 1] = mix.actions.first.weight.data[0, S + A + 1] = 1.0
    mix.actions.first.bias.data[0] = -1.0
    nn.init.zeros_(mix.actions.bias)
    nn.init.zeros_(mix.actions.weight)
    mix.actions.weight.data[0, 0, 0] = 9.0
    with torch.no_grad():
        totals = values_of_all(mix, torch.tensor([[[3.0, 1.0, 0.5], [2.0, 0.0, 0.0]]]), torch.zeros(1, S)).view(A, A)
    assert totals[1, 0] > totals[2, 0]
    assert totals[1, 1] < totals[2, 1]


def test_numbers_by_hand() -> None:
    mix = mixer(2, heads=1)
    fixed(mix.weight, [2.0, -0.5])
    fixed(mix.bias, [1.0, -1.0])
    fixed(mix.key, [-1.0])
    fixed(mix.agents, [0.0, 0.0])
    fixed(mix.actions, [0.0, 0.0])
    states, actions = torch.zeros(1, S), one_hot(torch.tensor([[[0], [1]]]), A)
    # lambda = 1 * 0.5 * 0.5; 2 * 1 + 1 + 0.5 * 3 - 1 = 3.5; (0.25 - 1) * 2 * (1 - 2) = 1.5.
    assert float(mix(torch.tensor([[1.0, 3.0]]), states, torch.tensor([[2.0, 3.0]]), actions).detach()) == 5.0
    assert float(mix(torch.tensor([[2.0, 3.0]]), states, torch.tensor([[2.0, 3.0]]), actions).detach()) == 5.5


def test_with_unit_weights_and_importance_it_is_vdn() -> None:
    mix = mixer(heads=1)
    fixed(mix.weight, [1.0] * N)
    fixed(mix.bias, [0.0] * N)
    fixed(mix.key, [1.0])
    # A sigmoid of 50 is 1 in single precision.
    fixed(mix.agents, [50.0] * N)
    fixed(mix.actions, [50.0] * N)
    values, states = torch.randn(20, N, A), torch.randn(20, S)
    actions = joint(N).squeeze(-1)
    expected = values[:, torch.arange(N), actions].sum(-1)
    assert torch.allclose(values_of_all(mix, values, states), expected, atol=1e-6)


def test_the_agents_gradient_is_w_and_lambda_learns_from_steps_away_from_the_best_only() -> None:
    mix = mixer()
    states, best = torch.rand(5, S), torch.randn(5, N).requires_grad_()
    values = (best - torch.rand(5, N)).detach().requires_grad_()
    actions = one_hot(torch.randint(A, (5, N, 1)), A)
    attention = [*mix.key.parameters(), *mix.agents.parameters(), *mix.actions.parameters()]
    gradient, at_best, *learned = torch.autograd.grad(
        mix(values, states, best, actions).sum(), [values, best, *attention], allow_unused=True
    )
    assert torch.allclose(gradient, mix.weight(states).abs())
    assert at_best is None
    assert all(g is not None and g.abs().sum() > 0 for g in learned)
    total = mix(best.detach(), states, best.detach(), actions)
    assert all(float(g.abs().sum()) == 0.0 for g in torch.autograd.grad(total.sum(), attention))


def test_heads_at_once_are_heads_one_by_one() -> None:
    torch.manual_seed(0)
    nets, inputs = HeadNets(3, S, 8, 2), torch.randn(5, 6, S)
    for k in range(3):
        hidden = torch.relu(inputs @ nets.first.weight[8 * k : 8 * k + 8].T + nets.first.bias[8 * k : 8 * k + 8])
        assert torch.allclose(nets(inputs)[..., k, :], hidden @ nets.weight[k] + nets.bias[k], atol=1e-6)


def test_the_learner_gives_the_mixer_the_best_available_values_and_the_actions() -> None:
    built = learner(AGENTS["mlp"], QPLEX)
    batch = episodes([7, 4], [True, False])
    seen: list[tuple[Tensor, ...]] = []
    built.nets["mixer"].register_forward_hook(lambda module, given, out: seen.append(given))
    built.targets["mixer"].register_forward_hook(lambda module, given, out: seen.append(given))
    built.loss(batch)
    after, now = seen
    own = built.controller.unroll(batch, built.nets["agent"]).detach()
    target = built.controller.unroll(batch, built.targets["agent"]).detach()
    masked = [x.masked_fill(batch["avail_actions"] == 0, -torch.inf) for x in (own, target)]
    inside = batch.mask().squeeze(-1) > 0
    assert torch.allclose(now[2][inside], masked[0][:, :-1].max(-1).values[inside])
    assert torch.equal(now[3], batch["actions_onehot"][:, :-1])
    picks = masked[0][:, 1:].argmax(-1, keepdim=True)
    assert torch.allclose(after[2][inside], masked[1][:, 1:].max(-1).values[inside])
    assert torch.equal(after[3][inside], one_hot(picks, INFO.n_actions)[inside])
    assert torch.allclose(after[0][inside], target[:, 1:].gather(-1, picks).squeeze(-1)[inside])


def test_large_state_entries_are_cut() -> None:
    mix, values, actions = mixer(), torch.randn(2, N), one_hot(torch.randint(A, (2, N, 1)), A)
    far, near = torch.tensor([[9.0, -9.0, 0.5, 1.0]] * 2), torch.tensor([[1.0, -1.0, 0.5, 1.0]] * 2)
    assert torch.equal(mix(values, far, values + 1, actions), mix(values, near, values + 1, actions))
