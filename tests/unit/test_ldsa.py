"""LDSA: reduction to QMIX, the two further terms with exact numbers, selection and its gradient, masks, acting."""

from __future__ import annotations

import math
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from support.q_learning import CPU, INFO, QMIX, episodes, learner
from support.replays import played, small_config
from support.small_runs import play, small_parts, start_clock
from torch import Tensor, nn

from components.episode_buffer import one_hot
from controllers.base import Clock
from controllers.basic_controller import BasicOptions
from controllers.ldsa_controller import LdsaController, gumbel
from learners.ldsa_learner import LdsaLearner, LdsaLearnerOptions, selection_change, subtask_distance
from modules.agents.base import ValueAgent
from modules.agents.gru_agent import unroll_gru
from modules.agents.ldsa_agent import LdsaAgent

START = Clock(0, 0, 1000)


def ldsa(n_subtasks: int = 4, mixer: Any = QMIX, **options: Any) -> LdsaLearner:
    """A learner whose targets differ from its networks."""
    torch.manual_seed(0)
    agent = partial(LdsaAgent, rnn_hidden_dim=8, n_subtasks=n_subtasks, agent_subtask_embed_dim=6)
    controller = LdsaController(INFO, BasicOptions.model_validate({}), agent, np.random.default_rng(0), CPU)
    built = LdsaLearner(controller, INFO, LdsaLearnerOptions(**options), np.random.default_rng(0), CPU, mixer)
    generator = torch.Generator().manual_seed(1)
    for p in built.targets.parameters():
        p.add_(torch.randn(p.shape, generator=generator), alpha=0.3)
    return built


class HypernetHead(ValueAgent):
    """Linear-ReLU-GRU and an output layer that a hypernetwork makes from a constant: LDSA's only policy, alone."""

    def __init__(self, agent: LdsaAgent) -> None:
        super().__init__()
        self.agent = agent

    def forward(self, inputs: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
        out, hidden = unroll_gru(self.agent.fc1, self.agent.rnn, inputs, hidden)
        code = self.agent.embeddings()[0].detach()
        weight = self.agent.hyper_weight(code).view(out.shape[-1], -1)
        return out @ weight + self.agent.hyper_bias(code), hidden


def test_with_one_subtask_the_loss_is_qmix_with_a_hypernet_head() -> None:
    built = ldsa(n_subtasks=1)
    plain = learner(lambda input_dim, n_actions: HypernetHead(deepcopy(built.controller.agent)), QMIX)
    for ours, theirs in ((built.nets, plain.nets), (built.targets, plain.targets)):
        head: Any = theirs["agent"]
        head.agent.load_state_dict(ours["agent"].state_dict())
        theirs["mixer"].load_state_dict(ours["mixer"].state_dict())
    batch = episodes([7, 4, 1], [True, False, True])
    loss, metrics = built.loss(batch)
    wanted, _ = plain.loss(batch)
    assert float(metrics["selection_change"]) == 0.0
    assert float(metrics["subtask_distance"]) == 0.0
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-6)
    inner: Any = plain.nets["agent"]
    for name in ("fc1", "rnn", "hyper_weight", "hyper_bias"):
        found = torch.autograd.grad(loss, list(getattr(built.controller.agent, name).parameters()), retain_graph=True)
        expected = torch.autograd.grad(wanted, list(getattr(inner.agent, name).parameters()), retain_graph=True)
        assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in zip(found, expected, strict=True))


def test_the_distance_of_opposite_embeddings_and_half_its_gradient() -> None:
    embeddings = torch.stack([torch.ones(64), -torch.ones(64)]).requires_grad_()
    distance = subtask_distance(embeddings)
    assert float(distance.detach()) == 256.0
    (gradient,) = torch.autograd.grad(distance, embeddings)
    # The mean over the pairs (0, 1) and (1, 0) of (e_k - e_l)^2 moves e_k only: 2 * 2 / 2, not 4.
    assert torch.equal(gradient, 2.0 * embeddings.detach())
    assert float(subtask_distance(torch.ones(1, 64))) == 0.0


def test_the_distance_is_a_mean_over_ordered_pairs() -> None:
    embeddings = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    pairs = [(k, j) for k in range(4) for j in range(4) if k != j]
    wanted = sum(float((embeddings[k] - embeddings[j]).square().sum()) for k, j in pairs) / len(pairs)
    assert float(subtask_distance(embeddings)) == pytest.approx(wanted, rel=1e-6)


def test_constant_selections_change_by_their_entropy() -> None:
    mask = torch.ones(2, 5, 1)
    p = torch.tensor([0.1, 0.2, 0.3, 0.4])
    entropy = -float((p * p.log()).sum())
    assert float(selection_change(p.log().expand(2, 6, 3, 4), mask)) == pytest.approx(entropy, rel=1e-6)
    assert float(selection_change(torch.zeros(2, 6, 3, 4), mask)) == pytest.approx(math.log(4.0), rel=1e-6)
    assert float(selection_change(torch.zeros(2, 6, 3, 1), mask)) == 0.0


def test_the_change_of_selections_is_that_of_a_loop_over_consecutive_transitions() -> None:
    logits = torch.randn(3, 8, 2, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    lengths = [7, 4, 1]
    mask = torch.tensor([[float(t < length) for t in range(7)] for length in lengths]).unsqueeze(-1)
    terms = [
        -(logits[b, t, i].softmax(-1).detach() * logits[b, t + 1, i].log_softmax(-1)).sum()
        for b, length in enumerate(lengths)
        for t in range(length - 1)
        for i in range(2)
    ]
    wanted, found = torch.stack(terms).mean(), selection_change(logits, mask)
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=1e-6)
    gradient, expected = (torch.autograd.grad(value, logits)[0] for value in (found, wanted))
    assert torch.allclose(gradient, expected, atol=1e-7)
    # No pair of transitions, no change.
    assert float(selection_change(logits[:, :2], torch.ones(3, 1, 1)).detach()) == 0.0


def test_the_loss_is_the_td_loss_minus_the_distance_plus_the_change_of_selections() -> None:
    plain, built = (
        ldsa(lambda_subtask_repr=0, lambda_subtask_prob=0),
        ldsa(lambda_subtask_repr=3, lambda_subtask_prob=5),
    )
    batch = episodes([7, 4, 1], [True, False, True])
    td, loss = plain.loss(batch)[0], built.loss(batch)[0]
    agent = plain.controller.agent
    distance = subtask_distance(agent.embeddings())
    change = selection_change(plain.controller.subtasks(batch, agent, None).logits, batch.mask())
    wanted = td - 3 * distance + 5 * change
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-6)
    found = torch.autograd.grad(loss, list(built.nets.parameters()))
    expected = torch.autograd.grad(wanted, list(plain.nets.parameters()))
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(found, expected, strict=True))


def test_the_targets_are_those_of_sampled_subtasks() -> None:
    built = ldsa(mixer=None, double_q=False, gamma=0.9)
    batch, target = episodes([7, 4] * 200, [True, False] * 200), built.targets["agent"]
    p = built.controller.subtasks(batch, target, None).logits.softmax(-1)
    best = []
    for k in range(4):
        only_k = torch.zeros_like(p)
        only_k[..., k] = 1e6
        values = built.controller.subtasks(batch, target, only_k).values
        best.append(values.masked_fill(batch["avail_actions"] == 0, -torch.inf).max(-1).values)
    future = (p * torch.stack(best, -1)).sum(-1)[:, 1:]
    targets = batch["reward"][:, :-1] + 0.9 * (1.0 - batch["terminated"][:, :-1].float()) * future
    wanted = (targets * batch.mask()).sum() / (batch.mask().sum() * 3)
    assert float(built.loss(batch)[1]["target_mean"]) == pytest.approx(float(wanted), abs=0.01)


def test_the_td_loss_of_a_batch_that_is_learned_again_and_again_falls() -> None:
    built, batch = ldsa(optimizer="adam", lr=1e-2), episodes([7, 4, 1], [True, False, True])[[0, 1, 2] * 20]
    losses = [float(built.learn(batch)["loss"]) for _ in range(40)]
    assert np.mean(losses[-5:]) < 0.5 * losses[0]


@pytest.mark.parametrize("sampled", [True, False])
def test_the_selection_is_one_hot_and_its_values_are_those_of_the_subtask(sampled: bool) -> None:
    controller = ldsa().controller
    agent, batch = controller.agent, episodes([7, 4], [True, True])
    noise = gumbel((2, 8, 3, 4), np.random.default_rng(0), CPU) if sampled else None
    found = controller.subtasks(batch, agent, noise)
    assert set(found.selected.detach().unique().tolist()) == {0.0, 1.0}
    assert bool((found.selected.sum(-1) == 1.0).all())
    picks = (found.logits if noise is None else found.logits + noise).argmax(-1)
    assert torch.equal(found.selected.argmax(-1), picks)
    # The same values from one output layer at a time.
    out, _ = unroll_gru(agent.fc1, agent.rnn, controller.inputs(batch), None)
    for k, code in enumerate(agent.embeddings()):
        weight = agent.hyper_weight(code).view(8, 4)
        values = out @ weight + agent.hyper_bias(code)
        assert torch.allclose(found.values[picks == k], values[picks == k], atol=1e-6)


def test_samples_follow_the_softmax_of_the_logits() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0]).expand(20_000, 3)
    picks = (logits + gumbel((20_000, 3), np.random.default_rng(0), CPU)).argmax(-1)
    shares = torch.bincount(picks, minlength=3) / 20_000
    assert shares.tolist() == pytest.approx(logits[0].softmax(-1).tolist(), abs=0.015)


def gradients_of(loss: Tensor, module: nn.Module) -> float:
    found = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True, allow_unused=True)
    return sum(float(g.abs().sum()) for g in found if g is not None)


def test_the_td_loss_teaches_the_abilities_through_the_selection_only() -> None:
    built = ldsa(lambda_subtask_repr=0.0, lambda_subtask_prob=0.0)
    batch = episodes([7, 4], [True, False])
    loss, _ = built.loss(batch)
    agent = built.controller.agent
    assert gradients_of(loss, agent.ability) > 0
    assert gradients_of(loss, agent.embed) > 0
    # Where there is nothing to select the policies' output layers learn, but teach the embeddings nothing.
    single = ldsa(n_subtasks=1, lambda_subtask_repr=0.0, lambda_subtask_prob=0.0)
    loss, _ = single.loss(batch)
    assert gradients_of(loss, single.controller.agent.ability) == 0.0
    assert gradients_of(loss, single.controller.agent.embed) == 0.0
    assert gradients_of(loss, single.controller.agent.hyper_weight) > 0


def test_junk_behind_the_end_changes_no_bit() -> None:
    lengths, found = [7, 4, 1], []
    for junk in (False, True):
        built, batch = ldsa(), episodes(lengths, [True, True, False])
        for b, length in enumerate(lengths if junk else []):
            for name in ("obs", "state", "avail_actions"):
                batch.data[name][b, length + 1 :] = 100 * (1 - batch.data[name][b, length + 1 :])
            for name in ("reward", "terminated"):
                batch.data[name][b, length:] = 1 - batch.data[name][b, length:]
            batch.data["actions"][b, length:] = 0
        loss, _ = built.loss(batch)
        found.append([loss.detach(), *torch.autograd.grad(loss, list(built.nets.parameters()))])
    assert all(map(torch.equal, *found))


def test_acting_in_tests_equals_unrolling_and_explain_tells_the_subtasks_followed() -> None:
    built = ldsa()
    controller, batch = built.controller, episodes([7, 2, 7], [True] * 3)
    batch.data["obs"] *= 30.0
    whole = controller.unroll(batch, controller.agent)
    told = controller.explain(batch)["subtask"]
    followed = controller.subtasks(batch, controller.agent, None).selected.argmax(-1)
    assert told.shape == (3, 8, 3)
    assert told.tolist() == followed.tolist()
    assert len(np.unique(told)) > 1
    controller.begin_episodes(3)
    for t in range(7):
        rows = slice(None) if t < 2 else torch.tensor([0, 2])
        decision = controller.act(batch, t, rows, START, test_mode=True)
        best = whole[rows, t].masked_fill(batch["avail_actions"][rows, t] == 0, -torch.inf).argmax(-1)
        assert decision.actions.tolist() == best.tolist()


def test_acting_samples_subtasks_in_training_and_takes_the_best_in_tests() -> None:
    controller = ldsa().controller
    controller.options = BasicOptions.model_validate({"epsilon_start": 0.0, "epsilon_finish": 0.0})
    agent, batch = controller.agent, episodes([7], [True])[[0] * 4000]
    agent.ability.fc2.weight.data *= 20.0
    batch.data["avail_actions"][:] = 1
    # Subtask k takes action k.
    agent.hyper_weight.requires_grad_(False).weight.zero_()
    agent.hyper_weight.bias.zero_()
    agent.hyper_bias.weight.data = torch.linalg.pinv(agent.embeddings()).T.detach()
    agent.hyper_bias.bias.data.zero_()
    p = controller.subtasks(batch[:1], agent, None).logits[0, 0].softmax(-1).detach()
    for test_mode in (False, True):
        controller.begin_episodes(4000)
        actions = torch.from_numpy(controller.act(batch, 0, slice(None), START, test_mode).actions)
        shares = one_hot(actions.unsqueeze(-1), 4).mean(0)
        wanted = one_hot(p.argmax(-1, keepdim=True), 4) if test_mode else p
        assert torch.allclose(shares, wanted, rtol=0.0, atol=0.03)


def test_subtasks_of_learning_are_no_matter_of_exploration() -> None:
    built, batch = ldsa(), episodes([7, 4], [True, False])
    before = built.controller._rng.bit_generator.state
    first, again = (float(built.loss(batch)[0].detach()) for _ in range(2))
    assert first != again
    assert built.controller._rng.bit_generator.state == before


def test_its_agent_learns_to_select_under_other_learners_too() -> None:
    parts = small_parts("qmix", "two_step_game", "agent=ldsa", "batch_size=4", "episodes_per_update=1")
    before = [p.clone() for p in parts.controller.agent.ability.parameters()]
    play(parts, start_clock(), 4)
    assert parts.learner.updates > 0
    assert any(
        not torch.equal(old, new) for old, new in zip(before, parts.controller.agent.ability.parameters(), strict=True)
    )
    parts.close()


def test_the_replay_page_shows_the_subtask_of_every_agent_at_every_step() -> None:
    panel = played(small_config("env_args.episode_limit=12", algorithm="ldsa"), 1)
    assert panel["choices"] == ["subtask"]
    shown = np.array(panel["episodes"][0]["internals"]["subtask"])
    assert shown.shape == (panel["episodes"][0]["length"], 5)
    assert set(shown.flatten().tolist()) <= set(range(4))
