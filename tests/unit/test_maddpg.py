"""MADDPG: targets by hand, whose logits a loss moves, straight-through samples, masks, the dead, stacked networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.actor_critics import AGENT, INFO, controller, maddpg, transitions
from support.small_runs import small_parts
from torch import nn

from components.config import load_config
from components.episode_buffer import EpisodeBatch, ReplayBuffer, episode_fields
from components.errors import UserError
from controllers.base import Clock
from envs.base import EnvInfo
from learners.actor_critic_learner import living_mean, sample_transitions
from learners.base import step
from modules.masked_policy import best, logit_penalty, mask_logits, straight_through
from modules.stacked import StackedLinear, clip_each_agent_, stacked_mlp

ALONE = EnvInfo(n_agents=1, n_actions=4, obs_shape=5, state_shape=6, episode_limit=7)


def test_one_agents_target_is_ddpgs_by_hand() -> None:
    built = maddpg(ALONE, gamma=0.9)
    batch = transitions(40, ALONE)
    errors = []
    for s in range(40):
        logits = built.targets["actor"](batch.next_obs[s : s + 1])[0, 0]
        allowed = [a for a in range(4) if batch.next_avail[s, 0, a]]
        chosen = max(allowed, key=lambda a: float(logits[a]))
        following = torch.cat([batch.next_obs[s, 0], torch.eye(4)[chosen]])
        future = built.targets["critic"].layers(following[None, None]).item()
        y = batch.reward[s].item() + 0.9 * (1.0 - batch.terminated[s].item()) * future
        taken = torch.cat([batch.obs[s, 0], batch.actions[s, 0]])
        errors.append((built.critic.layers(taken[None, None]).item() - y) ** 2)
    assert batch.terminated.sum() > 0
    assert float(built.critic_loss(batch)[0].detach()) == pytest.approx(np.mean(errors), rel=1e-5)


def test_an_agents_loss_moves_no_other_agents_logits() -> None:
    built, batch = maddpg(), transitions(30)
    logits = mask_logits(built.actor(batch.obs), batch.avail).detach().requires_grad_()
    losses, _ = built.actor_losses(batch, logits)
    for i in range(3):
        (gradient,) = torch.autograd.grad(losses[:, i].sum(), logits, retain_graph=True)
        assert gradient[:, i].abs().sum() > 0
        assert gradient[:, [k for k in range(3) if k != i]].abs().max() == 0.0


def test_the_others_actions_are_the_replays() -> None:
    built, batch = maddpg(), transitions(30)
    logits = torch.full((30, 3, 4), -1e10)
    logits[..., 2] = 0.0
    losses, _ = built.actor_losses(batch, logits)
    for i in range(3):
        actions = batch.actions.clone()
        actions[:, i] = torch.tensor([0.0, 0.0, 1.0, 0.0])
        assert torch.allclose(losses[:, i], -built.critic(batch.obs, actions)[:, i], atol=1e-6)


def test_a_straight_through_sample_is_one_hot_and_has_the_gradient_of_the_softmax() -> None:
    logits, noise, weight = (torch.randn(50, 5, generator=torch.Generator().manual_seed(k)) for k in range(3))
    logits.requires_grad_()
    sample = straight_through(logits, noise)
    assert ((sample == 0) | (sample == 1)).all()
    assert (sample.sum(-1) == 1).all()
    assert torch.equal(sample.argmax(-1), (logits + noise).argmax(-1))
    (found,) = torch.autograd.grad((sample * weight).sum(), logits)
    p = (logits + noise).softmax(-1).detach()
    jacobian = torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)
    assert torch.allclose(found, (jacobian @ weight.unsqueeze(-1)).squeeze(-1), atol=1e-6)


def test_an_unavailable_action_is_never_sampled_in_a_hundred_thousand_draws() -> None:
    info = EnvInfo(n_agents=2, n_actions=3, obs_shape=1, state_shape=1, episode_limit=1)
    acting = controller(info)
    with torch.no_grad():
        acting.agent.layers[-1].bias[..., 1] = 20.0
    batch = EpisodeBatch.zeros(episode_fields(info, acting.fields, (), {}), 50_000, 2, 3)
    batch.data["avail_actions"][..., [0, 2]] = 1
    for test_mode in (False, True):
        actions = acting.act(batch, 0, slice(None), Clock(0, 0, 1), test_mode).actions
        assert actions.size == 100_000
        assert set(np.unique(actions)) <= {0, 2}
        # Sampled in training, the most likely one in tests.
        assert (len(np.unique(actions[:, 0])) == 1) == test_mode
    built = maddpg()
    logits = mask_logits(torch.randn(25_000, 4), torch.tensor([1, 0, 1, 1]))
    logits[:, 1] += 50.0
    assert straight_through(logits, built.gumbel(logits.shape))[:, 1].sum() == 0
    assert best(logits)[:, 1].sum() == 0


def test_masked_logits_are_not_penalized() -> None:
    logits = torch.tensor([[3.0, 100.0, -1.0]])
    assert logit_penalty(logits, torch.tensor([[1, 0, 1]])).item() == pytest.approx(5.0)


def test_dead_agents_have_no_actor_loss_but_are_judged() -> None:
    built, batch = maddpg(), transitions(30)
    alive = batch.alive.clone()
    alive[10:, 1] = False
    losses = torch.arange(90.0).view(30, 3)
    expected = losses[:, 0].mean() + losses[:10, 1].mean() + losses[:, 2].mean()
    assert living_mean(losses, alive).item() == pytest.approx(expected.item())
    assert living_mean(losses, torch.zeros_like(alive)).item() == 0.0
    # The team earns on after a death: its critic goes on learning.
    assert torch.equal(built.critic_loss(batch)[0], built.critic_loss(batch._replace(alive=alive))[0])


def test_the_actors_step_leaves_no_gradient_in_the_critic() -> None:
    built, batch = maddpg(), transitions(30)
    built._update_actor(batch)
    assert all(p.grad is None and p.requires_grad for p in built.critic.parameters())
    before = [p.detach().clone() for p in built.actor.parameters()]
    built._update_critic(batch)
    assert all(map(torch.equal, before, built.actor.parameters()))


def test_the_terminal_transition_is_learned_from_and_padding_is_not() -> None:
    built = maddpg()
    fields = episode_fields(INFO, (*built.controller.fields, *built.fields), (), {})
    batch = EpisodeBatch.zeros(fields, 2, 8, 4)
    for b, length in enumerate((3, 1)):
        batch.data["filled"][b, : length + 1] = 1
        batch.data["avail_actions"][b, : length + 1] = 1
        batch.data["terminated"][b, length - 1] = 1
        batch.data["reward"][b, length - 1] = 1.0
        batch.data["reward"][b, length:] = 99.0
    buffer = ReplayBuffer(fields, 2, 8, 4, np.random.default_rng(0))
    buffer.insert(batch)
    drawn = sample_transitions(buffer, 4000, False, built.device)
    assert drawn.terminated.mean().item() == pytest.approx(0.5, abs=0.05)
    assert torch.equal(drawn.reward, drawn.terminated)


def test_stacked_layers_are_separate_networks_side_by_side() -> None:
    torch.manual_seed(0)
    stacked = stacked_mlp(3, (5, 8, 2), nn.ReLU)
    inputs = torch.randn(3, 7, 5)
    first, _, last = stacked
    assert isinstance(first, StackedLinear)
    assert isinstance(last, StackedLinear)
    for i in range(3):
        hidden = torch.relu(inputs[i] @ first.weight[i] + first.bias[i])
        assert torch.allclose(stacked(inputs)[i], hidden @ last.weight[i] + last.bias[i], atol=1e-6)


def test_gradients_are_cut_agent_by_agent() -> None:
    weight, bias = nn.Parameter(torch.zeros(2, 3, 4)), nn.Parameter(torch.zeros(2, 1, 4))
    pull = torch.tensor([3.0, 0.01])
    loss = (pull.view(2, 1, 1) * weight).sum() + (pull.view(2, 1, 1) * bias).sum()
    norm = step(torch.optim.SGD([weight, bias], lr=1.0), loss, 0.5, clip_each_agent_)
    assert norm.item() == pytest.approx(3.0 * 4.0)
    moved = torch.cat([weight.detach(), bias.detach()], 1).flatten(1).norm(dim=1)
    assert moved.tolist() == pytest.approx([0.5, 0.04], rel=1e-4)


def test_agents_share_no_weights() -> None:
    agents = AGENT(3, 5, 4)
    obs = torch.randn(6, 3, 5)
    out = agents(obs)
    (gradient,) = torch.autograd.grad(out[:, 1].sum(), agents.layers[0].weight)
    assert gradient[1].abs().sum() > 0
    assert gradient[[0, 2]].abs().sum() == 0


@pytest.mark.parametrize("option", ["ou_noise=0.3", "action_std=0.1"])
def test_options_of_continuous_maddpg_are_refused(option: str) -> None:
    with pytest.raises(UserError, match="unknown key"):
        load_config("maddpg", "navigation", (option,))


def test_a_controller_without_policies_is_refused() -> None:
    with pytest.raises(UserError, match="does not fit learner = 'maddpg_learner'; what fits: actor_mac"):
        small_parts("maddpg", "navigation", "mac=basic_mac", "agent=mlp")
