"""MAPPO and IPPO: advantages and losses against loops, clipping, masks, what the critic sees, time limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.policies import played, ppo
from support.q_learning import AGENTS, INFO
from support.small_runs import small_parts
from torch import Tensor

from components.config import load_config
from components.episode_buffer import EpisodeBatch, FieldSpec, ReplayBuffer, episode_fields
from components.errors import UserError
from controllers.base import Clock
from envs.base import EnvInfo
from learners.ppo_learner import PpoLearner, Rollout, standardized

LENGTHS, ENDS = [7, 4, 1, 7], [False, True, True, True]
CRITICS = ("state", "obs")


def losses(built: PpoLearner, part: Rollout) -> dict[str, Tensor]:
    return {"actor": built.policy_loss(part)[0], "critic": built.value_loss(part)[0]}


def gradients(built: PpoLearner, batch: EpisodeBatch) -> dict[str, list[Tensor]]:
    """Losses and gradients of policy and critic for freshly prepared episodes."""
    networks = {"actor": built.controller.agent, "critic": built.critic}
    found = losses(built, built.rollout(batch))
    return {
        name: [loss.detach(), *torch.autograd.grad(loss, list(networks[name].parameters()))]
        for name, loss in found.items()
    }


@pytest.mark.parametrize("critic_input", CRITICS)
def test_advantages_are_the_discounted_sums_of_td_errors(critic_input: str) -> None:
    built = ppo(critic_input=critic_input, gamma=0.9, gae_lambda=0.8)
    batch = played(built.controller, LENGTHS, ENDS)
    values = built.values(batch).detach()
    found = built.rollout(batch)
    k = 1 if critic_input == "state" else INFO.n_agents
    assert values.shape[-1] == k
    raw = torch.zeros(4, 7, k)
    for b, (length, end) in enumerate(zip(LENGTHS, ENDS, strict=True)):
        advantage = torch.zeros(k)
        for t in reversed(range(length)):
            future = 0.0 if end and t == length - 1 else 0.9
            delta = batch["reward"][b, t] + future * values[b, t + 1] - values[b, t]
            advantage = delta + 0.9 * 0.8 * advantage
            raw[b, t] = advantage
    weight = found.weight > 0
    assert weight.any()
    assert not weight.all()
    wanted = raw.expand_as(found.advantages)[weight]
    wanted = (wanted - wanted.mean()) / wanted.std(unbiased=False)
    assert torch.allclose(found.advantages[weight], wanted, atol=1e-4)
    targets = built.value_norm.denormalize(found.targets)
    played_steps = batch.mask().squeeze(-1) > 0
    assert torch.allclose(targets[played_steps], (raw + values[:, :-1])[played_steps], atol=1e-4)


@pytest.mark.parametrize("agent", AGENTS)
def test_the_first_step_is_the_plain_policy_gradient(agent: str) -> None:
    built = ppo(AGENTS[agent], entropy_coef=0.05)
    batch = played(built.controller, LENGTHS, ENDS)
    part = built.rollout(batch)
    loss, metrics = built.policy_loss(part)
    parameters = list(built.controller.parameters())
    found = torch.autograd.grad(loss, parameters)
    log_pi = built.controller.log_pi(batch)[:, :-1]
    total, count = torch.zeros(()), 0
    for b, length in enumerate(LENGTHS):
        for t in range(length):
            for i in range(INFO.n_agents):
                if batch["avail_actions"][b, t, i].sum() < 2:
                    continue
                entropy = torch.distributions.Categorical(logits=log_pi[b, t, i]).entropy()
                chosen = log_pi[b, t, i, batch["actions"][b, t, i, 0]]
                total = total - part.advantages[b, t, i] * chosen - 0.05 * entropy
                count += 1
    for left, right in zip(found, torch.autograd.grad(total / count, parameters), strict=True):
        assert torch.allclose(left, right, rtol=1e-3, atol=1e-5)
    assert float(metrics["clip_fraction"]) == 0.0
    assert float(metrics["approx_kl"]) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [(1.3, 1.0, False), (1.3, -1.0, True), (0.7, -1.0, False), (0.7, 1.0, True), (1.1, 1.0, True), (0.9, -1.0, True)],
)
def test_a_ratio_outside_the_clip_moves_only_back(ratio: float, advantage: float, moves: bool) -> None:
    built = ppo(entropy_coef=0.0, eps_clip=0.2)
    part = built.rollout(played(built.controller, [7], [True]))
    part = part._replace(
        log_probs=part.log_probs - np.log(ratio), advantages=torch.full_like(part.advantages, advantage)
    )
    loss, metrics = built.policy_loss(part)
    size = sum(float(g.abs().sum()) for g in torch.autograd.grad(loss, list(built.controller.parameters())))
    assert (size > 1e-6) == moves
    assert float(metrics["clip_fraction"]) == float(abs(ratio - 1.0) > 0.2)
    if moves:
        assert float(loss.detach()) == pytest.approx(-ratio * advantage, rel=1e-4)


def test_the_value_moves_no_further_than_the_clip() -> None:
    built = ppo(eps_clip=0.2, critic_input="obs")
    part = built.rollout(played(built.controller, LENGTHS, ENDS))
    now = built.values(part.batch)[:, :-1].detach()
    for old, target, wanted in (
        (now - 0.5, now + 1.0, 1.3**2),  # beyond the clip toward the target: rated where the clip is, no gradient
        (now - 0.5, now - 1.0, 1.0),  # beyond the clip away from it: as it is
        (now - 0.1, now + 1.0, 1.0),  # within
    ):
        loss = built.value_loss(part._replace(values=old, targets=target))[0]
        assert float(loss.detach()) == pytest.approx(0.5 * wanted, rel=1e-4)
        (gradient,) = torch.autograd.grad(loss, [list(built.critic.parameters())[-1]])
        assert (float(gradient.abs().sum()) > 1e-6) == (wanted == 1.0)


@pytest.mark.parametrize("critic_input", CRITICS)
@pytest.mark.parametrize("agent", AGENTS)
def test_junk_behind_the_end_changes_no_bit(agent: str, critic_input: str) -> None:
    found = []
    for junk in (False, True):
        built = ppo(AGENTS[agent], critic=AGENTS[agent], critic_input=critic_input)
        batch = played(built.controller, LENGTHS, ENDS)
        for b, length in enumerate(LENGTHS if junk else []):
            for name in ("obs", "state", "avail_actions"):
                batch.data[name][b, length + 1 :] = 100 * (1 - batch.data[name][b, length + 1 :])
            for name in ("reward", "terminated", "log_probs"):
                batch.data[name][b, length:] = 1 - batch.data[name][b, length:]
            batch.data["actions"][b, length:] = 0
        found.append(gradients(built, batch))
    for name in ("actor", "critic"):
        assert all(map(torch.equal, found[0][name], found[1][name]))


@pytest.mark.parametrize("critic_input", CRITICS)
@pytest.mark.parametrize("end", [True, False])
def test_the_last_observation_counts_at_a_time_limit_only(critic_input: str, end: bool) -> None:
    targets = []
    for shift in (0.0, 3.0):
        built = ppo(critic_input=critic_input)
        batch = played(built.controller, [5], [end])
        for name in ("obs", "state"):
            batch.data[name][:, 5] += shift
        targets.append(built.rollout(batch).targets)
    assert torch.equal(*targets) == end


@pytest.mark.parametrize("critic_input", CRITICS)
def test_the_critic_sees_the_state_or_what_its_agent_sees(critic_input: str) -> None:
    built = ppo(critic_input=critic_input)
    batch, other = (played(built.controller, [7], [False]) for _ in range(2))
    other.data["obs"][:, 2, 1] += 1.0
    changed = (built.values(batch) != built.values(other))[0]
    assert ("state" in built.fields) == (critic_input == "state")
    if critic_input == "obs":
        assert changed.nonzero().tolist() == [[2, 1]]
        other.data["state"] += 1.0
        assert (built.values(batch) != built.values(other))[0].nonzero().tolist() == [[2, 1]]
    else:
        assert not changed.any()
        other.data["state"][:, 3] += 1.0
        assert (built.values(batch) != built.values(other))[0].nonzero().tolist() == [[3, 0]]


def test_an_agent_without_a_choice_teaches_the_policy_nothing() -> None:
    """Dead agents: whatever they saw and whatever their log-probability."""
    found = []
    for shift in (0.0, 2.0):
        built = ppo(critic_input="state")
        batch = played(built.controller, LENGTHS, ENDS)
        batch.data["avail_actions"][:, 2:, 1] = torch.tensor([1, 0, 0, 0])
        batch.data["actions"][:, 2:, 1] = 0
        batch.data["log_probs"][:, 2:, 1] = -shift
        batch.data["obs"][:, 2:, 1] += shift
        found.append(gradients(built, batch)["actor"])
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(*found, strict=True))


def test_nobody_with_a_choice_is_no_division_by_zero() -> None:
    built = ppo()
    batch = played(built.controller, [3, 2], [True, True])
    batch.data["avail_actions"][:] = torch.tensor([1, 0, 0, 0])
    batch.data["actions"][:] = 0
    assert all(torch.isfinite(g).all() for parts in gradients(built, batch).values() for g in parts)
    assert torch.equal(standardized(torch.ones(2, 3, 1), torch.zeros(2, 3, 4)), torch.zeros(2, 3, 4))


def fill(built: PpoLearner, batch: EpisodeBatch, capacity: int) -> ReplayBuffer:
    extras = {"log_probs": FieldSpec((INFO.n_agents, 1))}
    fields = episode_fields(INFO, ("obs", "state", "avail_actions"), (), extras)
    buffer = ReplayBuffer(fields, capacity, INFO.episode_limit + 1, INFO.n_actions, np.random.default_rng(0))
    buffer.insert(batch)
    return buffer


@pytest.mark.parametrize(("minibatches", "epochs"), [(1, 3), (2, 3), (3, 2), (4, 1)])
def test_every_epoch_takes_its_minibatches(minibatches: int, epochs: int) -> None:
    built = ppo(minibatches=minibatches, epochs=epochs, batch_size=4)
    buffer = fill(built, played(built.controller, LENGTHS, ENDS), 4)
    assert built.update(buffer, Clock(0, 3, 1)) is None
    assert built.update(buffer, Clock(0, 4, 1)) is not None
    assert built.updates == minibatches * epochs
    assert built.update(buffer, Clock(0, 4, 1)) is None


def test_the_losses_fall_on_a_frozen_batch() -> None:
    built = ppo(batch_size=4, epochs=60, lr=3e-3, eps_clip=5.0, entropy_coef=0.0)
    batch = played(built.controller, LENGTHS, ENDS)
    part = built.rollout(batch)
    before = {name: loss.detach() for name, loss in losses(built, part).items()}
    built.update(fill(built, batch, 4), Clock(0, 4, 1))
    after = {name: loss.detach() for name, loss in losses(built, part).items()}
    assert float(after["actor"]) < float(before["actor"]) - 0.2
    assert float(after["critic"]) < 0.7 * float(before["critic"])


def test_an_endless_reward_is_worth_one_over_one_minus_gamma_only_if_the_limit_is_no_end() -> None:
    info = EnvInfo(n_agents=1, n_actions=2, obs_shape=1, state_shape=1, episode_limit=5)
    learned = []
    for end in (False, True):
        built = ppo(info=info, gamma=0.9, gae_lambda=0.95, batch_size=1, lr=1e-2, epochs=10, eps_clip=10.0)
        batch = played(built.controller, [5], [end], info)
        for name in ("obs", "state", "reward"):
            batch.data[name][:] = 1.0
        for _ in range(150):
            rollout = built.rollout(batch)
            for _ in range(3):
                built._step(rollout)
        learned.append(float(built.value_norm.denormalize(built.values(batch)[0, 0, 0].detach())))
    assert learned[0] == pytest.approx(10.0, rel=0.03)
    assert learned[1] < 6.0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [(("minibatches=33",), "minibatches <= 32"), (("critic_input=action",), "critic_input")],
)
def test_settings_that_cannot_work_are_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config("mappo", "navigation", overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("buffer_size=31",), "never holds the 32 episodes"),
        (("batch_size_run=12", "buffer_size=32"), "36 come, batch_size_run = 12 at once.*use buffer_size >= 36"),
        (("critic=null",), "needs a critic"),
        (("critic=lpmarl",), "what fits: gru, mlp"),
        (("agent=separate_mlp", "mac=policy_mac"), "policy_mac"),
        (("mac=basic_mac",), "what fits: policy_mac"),
    ],
)
def test_parts_that_do_not_fit_are_refused(overrides: tuple[str, ...], message: str) -> None:
    options: Any = [*(("buffer_size=64",) if "buffer" not in overrides[0] else ()), *overrides]
    with pytest.raises(UserError, match=message):
        small_parts("mappo", "navigation", *options)
