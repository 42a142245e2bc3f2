"""Policies: sampled, masked, greedy in tests, with stored log-probabilities; separate networks against loops."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from support.policies import SEPARATE, played, policy_controller
from support.q_learning import AGENTS, CPU, INFO, episodes
from torch import nn

from controllers.base import Clock
from controllers.basic_controller import InputOptions
from controllers.policy_controller import PolicyController
from modules.orthogonal import RELU_GAIN, orthogonal_

POLICIES = {**AGENTS, "separate_mlp": SEPARATE}
CLOCK = Clock(0, 0, 1)


@pytest.mark.parametrize("agent", POLICIES)
def test_the_stored_log_probability_is_the_one_that_the_learner_finds(agent: str) -> None:
    """Row 1 ends after 2 steps and row 0 after 5: the others must keep their own hidden states."""
    controller = policy_controller(POLICIES[agent])
    batch = episodes([5, 2, 7, 7], [True, True, False, False])
    controller.begin_episodes(4)
    found = []
    for t in range(7):
        rows = slice(None) if t < 2 else torch.tensor([0, 2, 3] if t < 5 else [2, 3])
        decision = controller.act(batch, t, rows, CLOCK, test_mode=False)
        batch.data["actions"][rows, t, :, 0] = torch.from_numpy(decision.actions)
        found.append((t, rows, torch.from_numpy(decision.extras["log_probs"])))
    wanted = controller.log_pi(batch).gather(-1, batch["actions"])
    for t, rows, log_probs in found:
        assert torch.allclose(log_probs, wanted[rows, t], atol=1e-5)
        assert (log_probs > -100).all(), "an unavailable action was drawn"


def test_actions_are_drawn_from_the_softmax_and_tests_take_the_likeliest() -> None:
    controller = policy_controller()
    batch = episodes([1], [True])
    batch.data["avail_actions"][0, 0, 0] = torch.tensor([1, 0, 1, 1])
    draws: Counter[int] = Counter()
    for _ in range(4000):
        controller.begin_episodes(1)
        draws[int(controller.act(batch, 0, slice(None), CLOCK, test_mode=False).actions[0, 0])] += 1
    pi = controller.log_pi(batch)[0, 0, 0].exp()
    assert draws[1] == 0
    assert float(pi[1].detach()) == 0.0
    for action in (0, 2, 3):
        assert draws[action] / 4000 == pytest.approx(float(pi[action].detach()), abs=0.03)
    controller.begin_episodes(1)
    best = controller.act(batch, 0, slice(None), CLOCK, test_mode=True).actions[0, 0]
    assert best == int(pi.argmax())


def test_nothing_available_gives_finite_numbers_and_gradients() -> None:
    controller = policy_controller()
    batch = episodes([3], [True])
    batch.data["avail_actions"][:, 2:] = 0
    log_pi = controller.log_pi(batch)
    (log_pi.exp() * log_pi)[:, :2].sum().backward()
    assert torch.isfinite(log_pi).all()
    assert all(torch.isfinite(p.grad).all() for p in controller.parameters() if p.grad is not None)


def test_separate_networks_are_one_perceptron_each() -> None:
    agent = SEPARATE(3, 5, 4)
    inputs = torch.randn(2, 6, 3, 5)
    own, _ = agent(inputs, None)
    pairs = agent.pairs(inputs.view(12, 3, 5))
    assert pairs.shape == (3, 12, 3, 4)
    linear = [layer for layer in agent.layers if not isinstance(layer, nn.ReLU)]
    for i in range(3):
        x = inputs
        for depth, layer in enumerate(linear):
            x = x @ layer.weight[i] + layer.bias[i]
            x = x.relu() if depth < 2 else x
        assert torch.allclose(pairs[i].view(2, 6, 3, 4), x, atol=1e-6)
        assert torch.allclose(own[:, :, i], x[:, :, i], atol=1e-6)


def test_no_gradient_crosses_from_one_agent_to_another() -> None:
    controller = policy_controller(SEPARATE)
    batch = played(controller, [7, 7], [True, False])
    controller.log_pi(batch)[:, :, 1].exp().square().sum().backward()
    for p in controller.parameters():
        assert p.grad is not None
        assert p.grad[1].abs().sum() > 0
        assert p.grad[[0, 2]].abs().sum() == 0


@pytest.mark.parametrize("agent", ["mlp", "gru"])
def test_orthogonal_weights(agent: str) -> None:
    network = AGENTS[agent](20, 4)
    orthogonal_(network, 0.01)
    weights = {name: p.detach() for name, p in network.named_parameters() if "bias" not in name}
    assert all(p.abs().sum() == 0 for name, p in network.named_parameters() if "bias" in name)
    *_, head = weights
    for name, weight in weights.items():
        gain = 0.01 if name == head else 1.0 if name.startswith("rnn") else RELU_GAIN
        short = weight if weight.shape[0] <= weight.shape[1] else weight.T
        assert torch.allclose(short @ short.T, gain**2 * torch.eye(len(short)), atol=1e-5), name


def test_every_separate_network_is_orthogonal_by_itself() -> None:
    network = SEPARATE(3, 20, 4)
    orthogonal_(network, 0.5)
    for layer, gain in ((network.layers[0], RELU_GAIN), (network.layers[4], 0.5)):
        for weight in layer.weight.detach():
            assert torch.allclose(weight.T @ weight, gain**2 * torch.eye(weight.shape[1]), atol=1e-5)
        assert not torch.equal(layer.weight[0], layer.weight[1])


def test_the_first_policy_is_almost_uniform() -> None:
    controller = PolicyController(INFO, InputOptions(), AGENTS["mlp"], np.random.default_rng(0), CPU)
    batch = episodes([7], [False])
    batch.data["avail_actions"][:] = 1
    assert torch.allclose(controller.log_pi(batch).exp(), torch.tensor(0.25), atol=0.02)
