"""MAAC: what the critic may depend on, whom it attends to, targets and policy gradient by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.actor_critics import ATTENTION, maac, transitions
from support.small_runs import EARLY, play, small_parts, start_clock
from torch import Tensor, nn
from torch.nn import functional

from components.config import load_config
from components.errors import UserError
from envs.base import EnvInfo
from learners.maac_learner import policy_losses
from modules.critics.attention_critic import AttentionCritic
from modules.masked_policy import best


def critic_of(n_agents: int, seed: int = 0) -> AttentionCritic:
    torch.manual_seed(seed)
    return ATTENTION(n_agents, 5, 4)


def seen(n_agents: int, count: int = 6, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    batch = transitions(count, EnvInfo(n_agents, 4, 5, 6, 7), seed)
    return batch.obs, batch.actions, batch.alive


def test_with_two_agents_all_attention_is_on_the_other() -> None:
    found = critic_of(2)(*seen(2))
    assert torch.equal(found.weights, torch.tensor([[0.0, 1.0], [1.0, 0.0]]).expand(6, 2, 2, 2))


def test_permuting_the_others_with_their_encoders_changes_nothing_for_an_agent() -> None:
    critic, (obs, actions, alive) = critic_of(4), seen(4)
    order = torch.tensor([0, 3, 1, 2])
    permuted = critic_of(4, seed=9)
    permuted.load_state_dict(critic.state_dict())
    with torch.no_grad():
        for name in ("encode_obs", "encode_both"):
            for part in ("weight", "bias"):
                getattr(getattr(permuted, name), part).copy_(getattr(getattr(critic, name), part)[order])
    values = critic(obs, actions, alive).values
    again = permuted(obs[:, order], actions[:, order], alive).values
    assert torch.allclose(values[:, 0], again[:, 0], atol=1e-6)
    assert not torch.allclose(values[:, 0], critic(obs[:, order], actions[:, order], alive).values[:, 0])


def test_the_own_action_enters_by_index_only_and_the_others_by_their_encoders() -> None:
    critic, (obs, actions, alive) = critic_of(3), seen(3)
    actions.requires_grad_()
    values = critic(obs, actions, alive).values
    for i in range(3):
        (gradient,) = torch.autograd.grad(values[:, i].sum(), actions, retain_graph=True)
        assert gradient[:, i].abs().max() == 0.0
        assert all(gradient[:, j].abs().sum() > 0 for j in range(3) if j != i)


def test_uniform_attention_is_a_mean_field_value() -> None:
    critic, (obs, actions, alive) = critic_of(4), seen(4)
    nn.init.zeros_(critic.query.weight)
    found = critic(obs, actions, alive)
    both = functional.leaky_relu(critic.encode_both(torch.cat([obs, actions], -1).transpose(0, 1)))
    own = functional.leaky_relu(critic.encode_obs(obs.transpose(0, 1)))
    messages = functional.leaky_relu(critic.value(both))
    mean = (messages.sum(0) - messages) / 3.0
    expected = critic.value_head(torch.cat([own, mean], -1)).transpose(0, 1)
    assert torch.allclose(found.values, expected, atol=1e-6)


def test_nobody_attends_to_the_dead_and_the_last_one_hears_nothing() -> None:
    critic, (obs, actions, alive) = critic_of(3), seen(3)
    alive[:2, 2] = False
    alive[1, 1] = False
    found = critic(obs, actions, alive)
    assert found.weights[:2, :, :, 2].abs().max() == 0.0
    assert torch.allclose(found.weights[0].sum(-1), torch.ones(2, 3))
    assert found.weights[1, :, 0].abs().max() == 0.0
    assert torch.isfinite(found.values).all()
    other = critic(obs + torch.tensor([0.0, 0.0, 9.0]).view(1, 3, 1), actions, alive)
    assert torch.equal(found.values[:2, :2], other.values[:2, :2])
    assert not torch.equal(found.values[2:, :2], other.values[2:, :2])


def test_targets_by_hand_with_the_entropy_inside_the_discount() -> None:
    built, batch = maac(gamma=0.9, reward_scale=2.0), transitions(20)
    loss, metrics = built.critic_loss(batch)
    twin = maac(gamma=0.9, reward_scale=2.0)
    logits = twin.targets["actor"](batch.next_obs).masked_fill(batch.next_avail == 0, -torch.inf)
    sampled = best(logits + twin.gumbel(logits.shape))
    ahead = twin.targets["critic"](batch.next_obs, sampled, batch.next_alive).values
    found = twin.critic(batch.obs, batch.actions, batch.alive)
    squares = torch.zeros(3)
    total = 0.0
    for s in range(20):
        for i in range(3):
            a = int(sampled[s, i].argmax())
            future = ahead[s, i, a] - 0.5 * logits[s, i].log_softmax(-1)[a]
            y = batch.reward[s, 0] + 0.9 * (1.0 - batch.terminated[s, 0]) * future
            squares[i] += (found.values[s, i, int(batch.actions[s, i].argmax())] - y).detach() ** 2
            total += float(y)
    assert metrics["target_mean"].item() == pytest.approx(total / 60, rel=1e-4)
    off = ~torch.eye(3, dtype=torch.bool)
    penalty = sum(found.logits[:, k, i][:, off[i]].square().mean() for k in range(2) for i in range(3))
    assert loss.detach().item() == pytest.approx(float((squares.sum() / 20 + 1e-3 * penalty).detach()), rel=1e-4)


def test_the_advantage_is_zero_on_average_over_the_policy() -> None:
    logits, values = torch.randn(10, 3, 4), torch.randn(10, 3, 4)
    log_pi = logits.log_softmax(-1)
    total = torch.zeros(10, 3)
    for a in range(4):
        sampled = torch.eye(4)[a].expand(10, 3, 4)
        # Without entropy the loss is -log pi(a) A(a).
        total += log_pi[..., a].exp() * policy_losses(logits, sampled, values, 0.0) / -log_pi[..., a]
    assert total.abs().max() < 1e-6


def test_a_policy_converges_to_the_softmax_of_the_values_over_alpha() -> None:
    logits = nn.Parameter(torch.zeros(1, 1, 2))
    optimizer = torch.optim.Adam([logits], lr=0.02)
    generator = np.random.default_rng(0)
    values = torch.tensor([1.0, 0.0]).expand(512, 1, 2)
    for _ in range(400):
        many = logits.expand(512, 1, 2)
        sampled = best(many.detach() + torch.from_numpy(generator.gumbel(size=(512, 1, 2))).float())
        optimizer.zero_grad()
        policy_losses(many, sampled, values, 0.5).mean().backward()
        optimizer.step()
    assert logits.softmax(-1).flatten().tolist() == pytest.approx([0.881, 0.119], abs=0.01)


def test_the_actors_loss_by_hand_at_actions_that_all_policies_sample_together() -> None:
    built, twin, batch = maac(reward_scale=2.0), maac(reward_scale=2.0), transitions(20)
    batch.alive[12:, 1] = False
    logits = built.actor(batch.obs).masked_fill(batch.avail == 0, -1e10).detach().requires_grad_()
    losses, _ = built.actor_losses(batch, logits)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    sampled = best(logits.detach() + twin.gumbel(logits.shape))
    values = twin.critic(batch.obs, sampled, batch.alive).values.detach()
    for s in range(20):
        for i in range(3):
            log_pi = logits[s, i].detach().log_softmax(-1)
            a = int(sampled[s, i].argmax())
            baseline = sum(float(log_pi[b].exp() * values[s, i, b]) for b in range(4))
            bracket = 0.5 * float(log_pi[a]) - (float(values[s, i, a]) - baseline)
            assert float(losses[s, i].detach()) == pytest.approx(float(log_pi[a]) * bracket, abs=1e-5)
            assert torch.allclose(gradient[s, i], bracket * (torch.eye(4)[a] - log_pi.exp()), atol=1e-5)


def test_the_critics_step_divides_the_shared_maps_gradient_by_n_and_cuts_at_n_times_the_limit() -> None:
    built, twin, batch = maac(critic_grad_norm_clip=0.01), maac(), transitions(30)
    critic = dict(twin.critic.named_parameters())
    gradients = torch.autograd.grad(twin.critic_loss(batch)[0], list(critic.values()))
    shared = {"query.weight", "key.weight", "value.weight", "value.bias"}
    divided = {name: g / (3.0 if name in shared else 1.0) for name, g in zip(critic, gradients, strict=True)}
    norm = float(torch.cat([g.flatten() for g in divided.values()]).norm())
    assert norm > 0.03
    assert float(built._update_critic(batch)["critic_grad_norm"]) == pytest.approx(norm, rel=1e-5)
    for name, p in built.critic.named_parameters():
        assert p.grad is not None
        assert torch.allclose(p.grad, divided[name] * 0.03 / norm, rtol=1e-4, atol=1e-8), name


def test_what_is_attended_to_is_told_for_every_step() -> None:
    parts = small_parts(
        "maac", "constrained_navigation", *EARLY["maac_learner"], "env_args.min_agents=2", "env_args.min_landmarks=1"
    )
    try:
        clock, _ = play(parts, start_clock(), 2)
        batch = parts.test.collect(clock, test_mode=True).batch
        attention = parts.learner.explain(batch)["attention"]
    finally:
        parts.close()
    assert attention.shape == (*batch["filled"].shape[:2], 5, 5)
    assert np.isnan(attention[..., range(5), range(5)]).all()
    living = batch["agent_alive"].numpy()
    heard = np.nansum(attention, -1)[living & (living.sum(-1, keepdims=True) > 1)]
    assert heard == pytest.approx(np.ones(len(heard)), abs=1e-5)


def test_one_agent_is_refused() -> None:
    with pytest.raises(UserError, match="two agents or more"):
        small_parts("maac", "navigation", "env_args.n_agents=1", "env_args.n_landmarks=1")
    with pytest.raises(UserError, match="two agents or more"):
        maac(EnvInfo(1, 4, 5, 6, 7))


def test_heads_that_do_not_share_the_units_evenly_are_refused() -> None:
    with pytest.raises(UserError, match="must be a multiple of attention_heads = 3"):
        load_config("maac", "navigation", ("attention_heads=3",))
