"""What MADDPG and MAAC share: the actors' loss by hand, the dead, masks, targets that follow, a critic that learns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.actor_critics import INFO, maac, maddpg, transitions
from support.q_learning import episodes
from torch import Tensor, nn

from components.episode_buffer import ReplayBuffer, episode_fields
from controllers.base import Clock
from learners.actor_critic_learner import ActorCriticLearner, Transitions

Build = Callable[..., ActorCriticLearner]
both = pytest.mark.parametrize("build", [maddpg, maac])


def with_deaths() -> Transitions:
    batch = transitions(20)
    batch.alive[12:, 1] = False
    return batch


@both
def test_the_actors_loss_by_hand_with_a_dead_agent_and_unavailable_actions(build: Build) -> None:
    built, twin = (build(logit_penalty=0.5, grad_norm_clip=1e9) for _ in range(2))
    batch = with_deaths()
    logits = twin.actor(batch.obs)
    losses, _ = twin.actor_losses(batch, logits.masked_fill(batch.avail == 0, -1e10))
    total = torch.zeros(())
    for i in range(3):
        living = [s for s in range(20) if batch.alive[s, i]]
        for s in living:
            available = [logits[s, i, a] for a in range(4) if batch.avail[s, i, a]]
            penalty = 0.5 * torch.stack(available).square().sum() / len(available)
            total = total + (losses[s, i] + penalty) / len(living)
    assert float(built._update_actor(batch)["actor_loss"]) == pytest.approx(float(total.detach()), rel=1e-5)
    wanted = torch.autograd.grad(total, list(twin.actor.parameters()))
    for p, gradient in zip(built.actor.parameters(), wanted, strict=True):
        assert p.grad is not None
        assert torch.allclose(p.grad, gradient, rtol=1e-4, atol=1e-6)


@both
def test_only_available_actions_of_living_agents_have_a_gradient(build: Build) -> None:
    built, batch = build(logit_penalty=0.5), with_deaths()
    pulls: list[Tensor] = []

    def watch(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        out.register_hook(pulls.append)

    built.actor.register_forward_hook(watch)
    built._update_actor(batch)
    assert torch.equal(pulls[0] != 0, (batch.avail != 0) & batch.alive.unsqueeze(-1))


@both
def test_targets_move_by_tau_towards_the_networks_after_their_steps(build: Build) -> None:
    rhythm = {"env_steps_per_update": 11, "warmup_episodes": 1, "batch_size": 16}
    built = build(target_update_tau=0.25, lr=0.05, critic_lr=0.05, **rhythm)
    fields = episode_fields(INFO, ("obs", "state", "avail_actions"), (), {})
    buffer = ReplayBuffer(fields, 2, INFO.episode_limit + 1, INFO.n_actions, np.random.default_rng(0))
    buffer.insert(episodes([7, 4], [True, False]))
    before = [p.clone() for p in built.targets.parameters()]
    assert built.update(buffer, Clock(11, 2, 100)) is not None
    assert built.updates == 1
    online = [*built.actor.parameters(), *built.critic.parameters()]
    for new, old, p in zip(built.targets.parameters(), before, online, strict=True):
        assert torch.allclose(new, 0.75 * old + 0.25 * p, atol=1e-6)


@both
def test_the_critics_loss_falls_on_a_frozen_batch(build: Build) -> None:
    built, batch = build(critic_lr=0.01), transitions(64)
    first = float(built.critic_loss(batch)[0].detach())
    for _ in range(60):
        built._update_critic(batch)
        built._update_actor(batch)
    assert float(built.critic_loss(batch)[0].detach()) < 0.6 * first
