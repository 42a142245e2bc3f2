"""RODE: reductions, intervals against a loop, clusters with a known answer, roles in acting, and the one switch."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from support.q_learning import CPU, INFO, QMIX, episodes, learner
from support.replays import played, small_config
from support.small_runs import EARLY, play, small_parts, start_clock
from torch import Tensor

from components.config import load_config
from components.episode_buffer import EpisodeBatch, ReplayBuffer, episode_fields
from components.errors import UserError
from controllers.base import Clock
from controllers.rode_controller import RodeController, RodeOptions
from envs.base import EnvInfo, TaskInfo
from learners.rode_learner import RodeLearner, RodeLearnerOptions
from modules.action_encoder import cluster, role_sets
from modules.agents.base import ValueAgent
from modules.agents.rode_agent import RodeAgent
from modules.mixers.vdn import VDNMixer
from parts import build
from replays import panel

START = Clock(0, 0, 1000)
ROLES = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 1]], dtype=torch.bool)


def rode(info: EnvInfo = INFO, interval: int = 3, roles: Tensor | None = ROLES, **options: Any) -> RodeLearner:
    """A learner whose targets differ from its networks; with the given roles and random codes, or without."""
    torch.manual_seed(0)
    mixer = options.pop("mixer", QMIX)
    agent = partial(RodeAgent, rnn_hidden_dim=8, action_latent_dim=4, n_role_clusters=3)
    acting = RodeOptions.model_validate({"role_interval": interval, "epsilon_anneal_time": 100})
    controller = RodeController(info, acting, agent, np.random.default_rng(0), CPU)
    if roles is not None:
        controller.agent.set_roles(torch.randn(info.n_actions, 4), roles, env_steps=0)
    options = {"batch_size": 4, "episodes_per_update": 4} | options
    built = RodeLearner(controller, info, RodeLearnerOptions(**options), np.random.default_rng(0), CPU, mixer)
    generator = torch.Generator().manual_seed(1)
    for p in built.targets.parameters():
        p.add_(torch.randn(p.shape, generator=generator), alpha=0.3)
    return built


def with_roles(batch: EpisodeBatch, n_roles: int = 2, info: EnvInfo = INFO) -> EpisodeBatch:
    shape = (*batch["obs"].shape[:3], 1)
    batch.data["roles"] = torch.randint(n_roles, shape, generator=torch.Generator().manual_seed(3))
    if info.tasks:
        batch.data["reward_high"] = torch.randn(batch["reward"].shape)
        batch.data["agent_reward"] = torch.randn(shape[:3])
        batch.data["agent_alive"] = torch.ones(shape[:3], dtype=torch.bool)
    return batch


class OneRole(ValueAgent):
    """Q(a) = <z, code of a>, without roles."""

    def __init__(self, agent: RodeAgent) -> None:
        super().__init__()
        self.agent = agent

    def forward(self, inputs: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
        values, hidden = self.agent(inputs, hidden)
        return values.keys[..., 0, :] @ self.agent.action_codes.T, hidden


@pytest.mark.parametrize("double_q", [True, False])
@pytest.mark.parametrize("td_lambda", [0.0, 0.6])
def test_with_one_role_of_all_actions_the_action_level_is_qmix(double_q: bool, td_lambda: float) -> None:
    everything = torch.ones(1, 4, dtype=torch.bool)
    built = rode(interval=1, roles=everything, double_q=double_q, td_lambda=td_lambda)
    plain = learner(
        lambda input_dim, n_actions: OneRole(deepcopy(built.agent)), QMIX, double_q=double_q, td_lambda=td_lambda
    )
    for ours, theirs in ((built.nets, plain.nets), (built.targets, plain.targets)):
        theirs["agent"].agent.load_state_dict(ours["agent"].state_dict())  # type: ignore[union-attr]
        theirs["mixer"].load_state_dict(ours["mixer"].state_dict())
    batch = with_roles(episodes([7, 4, 1], [True, False, True]), n_roles=1)
    values = built.controller.role_values(batch, built.nets["agent"])
    behind = built.controller.role_values(batch, built.targets["agent"])
    loss, _ = built.action_loss(batch, values, behind)
    wanted, _ = plain.loss(batch)
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-6)
    found = torch.autograd.grad(loss, list(built.agent.policies.parameters()))
    inner: Any = plain.nets["agent"]
    expected = torch.autograd.grad(wanted, list(inner.agent.policies.parameters()))
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("mixer", [QMIX, VDNMixer])
@pytest.mark.parametrize("end", [True, False], ids=["terminated", "time limit"])
@pytest.mark.parametrize("length", [1, 4, 5, 6, 11])
def test_the_loss_of_the_roles_equals_a_loop_over_intervals(length: int, end: bool, mixer: Any) -> None:
    info = EnvInfo(n_agents=3, n_actions=4, obs_shape=5, state_shape=6, episode_limit=12)
    built = rode(info, interval=5, mixer=mixer, gamma=0.9)
    lengths = [length, 12]
    batch = with_roles(episodes(lengths, [end, not end], info))
    values = built.controller.role_values(batch, built.nets["agent"])
    behind = built.controller.role_values(batch, built.targets["agent"])
    found, _ = built.role_loss(batch, values, behind)
    errors = []
    for b, ends in enumerate([end, not end]):
        for t in range(0, lengths[b], 5):
            after = min(t + 5, lengths[b])
            picked = torch.stack([values.roles[b, t, i, batch["roles"][b, t, i, 0]] for i in range(3)])
            q = built.nets["role_mixer"](picked[None], batch["state"][b, t][None])
            y = batch["reward"][b, t:after].sum()
            if not (ends and after == lengths[b]):
                best = values.roles[b, after, :, :2].argmax(-1)
                judged = torch.stack([behind.roles[b, after, i, best[i]] for i in range(3)])
                y = y + 0.9 * built.targets["role_mixer"](judged[None], batch["state"][b, after][None])
            errors.append((q - y.detach()).square())
    assert float(found.detach()) == pytest.approx(float(torch.stack(errors).mean().detach()), rel=1e-5)


def test_the_loss_of_the_actions_equals_a_loop_that_changes_roles_at_choices_only() -> None:
    built = rode(interval=3, gamma=0.9)
    lengths, ends = [7, 5, 3], [True, False, False]
    batch = with_roles(episodes(lengths, ends))
    values = built.controller.role_values(batch, built.nets["agent"])
    behind = built.controller.role_values(batch, built.targets["agent"])
    found, _ = built.action_loss(batch, values, behind)
    codes, errors = built.agent.action_codes, []
    for b, length in enumerate(lengths):
        for t in range(length):
            taken, best = [], []
            for i in range(3):
                role = batch["roles"][b, t, i, 0]
                taken.append(values.keys[b, t, i, role] @ codes[batch["actions"][b, t, i, 0]])
                if (t + 1) % 3 == 0:
                    role = values.roles[b, t + 1, i, :2].argmax()
                allowed = batch["avail_actions"][b, t + 1, i] > 0
                ahead = (codes @ values.keys[b, t + 1, i, role]).masked_fill(~allowed, -torch.inf)
                best.append((codes @ behind.keys[b, t + 1, i, role])[ahead.argmax()])
            q = built.nets["mixer"](torch.stack(taken)[None], batch["state"][b, t][None])
            y = batch["reward"][b, t]
            if not (ends[b] and t == length - 1):
                y = y + 0.9 * built.targets["mixer"](torch.stack(best)[None], batch["state"][b, t + 1][None])
            errors.append((q - y.detach()).square().sum())
    assert float(found.detach()) == pytest.approx(float(torch.stack(errors).mean().detach()), rel=1e-5)


def test_the_loss_is_that_of_the_actions_plus_that_of_the_roles() -> None:
    built, batch = rode(), with_roles(episodes([7, 4, 1], [True, False, True]))
    loss, _ = built.loss(batch)
    values, behind = (built.controller.role_values(batch, nets["agent"]) for nets in (built.nets, built.targets))
    wanted = built.action_loss(batch, values, behind)[0] + built.role_loss(batch, values, behind)[0]
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-6)
    parameters = list(built.nets.parameters())
    found, expected = (torch.autograd.grad(of, parameters) for of in (loss, wanted))
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in zip(found, expected, strict=True))


def test_the_loss_of_the_encoder_equals_a_loop_over_transitions_and_agents() -> None:
    built = rode()
    encoder, lengths = built.encoder, [7, 4, 1]
    batch = episodes(lengths, [True, False, True])
    obs, onehot, errors = batch["obs"], batch["actions_onehot"], []
    for b, length in enumerate(lengths):
        for t in range(length):
            for i, others in enumerate(([1, 2], [0, 2], [0, 1])):
                situation = encoder.situation(torch.cat([obs[b, t, i], *(onehot[b, t, j] for j in others)]))
                joint = torch.cat([situation, encoder.action(onehot[b, t, i])])
                away = (encoder.next_obs(joint) - obs[b, t + 1, i]).square().sum().sqrt()
                errors.append(away + 10 * (encoder.reward(joint)[0] - batch["reward"][b, t, 0]).square())
    found = encoder_loss(built)(batch)[0]
    assert float(found.detach()) == pytest.approx(float(torch.stack(errors).mean().detach()), rel=1e-5)


def test_the_losses_of_a_batch_that_is_learned_again_and_again_fall() -> None:
    built = rode(optimizer="adam", lr=1e-2)
    batch = with_roles(episodes([7, 4, 1, 7], [True, False, True, False]))
    logged = [built.learn(batch) for _ in range(60)]
    for name in ("loss", "role_loss"):
        losses = [float(metrics[name]) for metrics in logged]
        assert losses[-1] < 0.5 * losses[0]
    losses = [float(built.learn_encoder(batch)) for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]


def test_junk_behind_the_end_changes_no_bit() -> None:
    built = rode()
    lengths = [7, 4, 1]
    clean, batch = (with_roles(episodes(lengths, [True, True, False])) for _ in range(2))
    for b, length in enumerate(lengths):
        for name in ("obs", "state", "avail_actions"):
            batch.data[name][b, length + 1 :] = 100 * (1 - batch.data[name][b, length + 1 :])
        for name in ("reward", "terminated", "roles"):
            batch.data[name][b, length:] = 1 - batch.data[name][b, length:]
        batch.data["actions"][b, length:] = 0
    for loss_of in (built.loss, encoder_loss(built)):
        (loss, _), (wanted, _) = loss_of(batch), loss_of(clean)
        assert torch.equal(loss, wanted)
        parameters = [p for p in (*built.nets.parameters(), *built.encoder.parameters()) if p.requires_grad]
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        expected = torch.autograd.grad(wanted, parameters, allow_unused=True)
        assert all(a is b is None or torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def encoder_loss(built: RodeLearner) -> Any:
    def loss(batch: EpisodeBatch) -> tuple[Tensor, None]:
        actions = batch["actions_onehot"][:, :-1]
        return built.encoder.loss(batch["obs"], actions, batch["reward"][:, :-1], batch.mask()), None

    return loss


def test_with_tasks_roles_learn_from_success_and_actions_from_what_is_earned() -> None:
    tasks = TaskInfo(n_tasks=2, agent_feats=3, task_feats=3)
    info = EnvInfo(n_agents=3, n_actions=4, obs_shape=5, state_shape=6, episode_limit=7, tasks=tasks)
    batch = with_roles(episodes([7, 5], [True, False], info), info=info)
    split, mixed = rode(info), rode(info, level_rewards="mixed")
    assert split.rewards == ("reward_high", "agent_reward")
    assert mixed.rewards == ()
    high, low = split._rewards(batch)
    assert torch.equal(high, batch["reward_high"][:, :-1])
    assert float(low[1, 2]) == pytest.approx(float(np.mean(batch["agent_reward"][1, 2].tolist())))
    # Agent 2 is absent from the second episode, agent 0 dies in it: two were there at the start.
    batch.data["agent_alive"][1, :, 2] = False
    batch.data["agent_alive"][1, 2:, 0] = False
    low = split._rewards(batch)[1]
    assert float(low[1, 2]) == pytest.approx(float(np.sum(batch["agent_reward"][1, 2].tolist())) / 2)
    assert float(low[0, 2]) == pytest.approx(float(np.mean(batch["agent_reward"][0, 2].tolist())))
    assert all(torch.equal(rewards, batch["reward"][:, :-1]) for rewards in mixed._rewards(batch))
    assert rode().rewards == ()


# ---- Acting --------------------------------------------------------------------------------------------------------


def test_a_role_lasts_for_the_interval_and_greedy_actions_keep_to_it() -> None:
    built = rode(interval=3)
    batch = episodes([7, 2, 7, 7], [True] * 4)
    batch.data["avail_actions"][:] = 1
    # Far enough apart that roles change.
    batch.data["obs"] *= 30.0
    controller = built.controller
    whole = controller.role_values(batch[:, :7], built.agent)
    controller.begin_episodes(4)
    followed = []
    for t in range(7):
        rows = slice(None) if t < 2 else torch.tensor([0, 2, 3])
        decision = controller.act(batch, t, rows, START, test_mode=True)
        roles = torch.from_numpy(decision.extras["roles"])[..., 0]
        followed.append(roles[[0, -2, -1]])
        if t % 3 == 0:
            assert torch.equal(roles, whole.roles[rows, t, :, :2].argmax(-1))
        else:
            assert torch.equal(followed[-1], followed[-2])
        values = built.agent.action_values(whole.keys[rows, t : t + 1], roles[:, None])[:, 0]
        best = values.masked_fill(~ROLES[roles], -torch.inf).argmax(-1)
        assert decision.actions.tolist() == best.tolist()
    assert len({tuple(roles.flatten().tolist()) for roles in followed}) > 1


def test_random_actions_are_among_all_available_ones_and_so_are_greedy_ones_without_any_of_the_role() -> None:
    built = rode(interval=1)
    batch = episodes([7] * 200, [True] * 200)
    batch.data["avail_actions"][:] = torch.tensor([0, 0, 1, 1])
    controller = built.controller
    # Only role 0, which has neither action 2 nor 3.
    controller.agent.role_exists[1] = False
    for test_mode in (True, False):
        controller.begin_episodes(200)
        actions = controller.act(batch, 0, slice(None), START, test_mode).actions
        assert set(actions.flatten().tolist()) == {2, 3}
        assert 0.4 < (actions == 2).mean() < 0.6
    batch.data["avail_actions"][:] = 1
    controller.begin_episodes(200)
    assert set(controller.act(batch, 0, slice(None), START, test_mode=False).actions.flatten().tolist()) == {0, 1, 2, 3}
    controller.begin_episodes(200)
    assert set(controller.act(batch, 0, slice(None), START, test_mode=True).actions.flatten().tolist()) <= {0, 1}


def test_with_epsilon_1_roles_are_uniform_among_those_that_exist_and_last_for_the_interval() -> None:
    built, batch = rode(interval=3), episodes([7] * 2000, [True] * 2000)
    built.controller.begin_episodes(2000)
    decisions = (built.controller.act(batch, t, slice(None), START, test_mode=False) for t in range(4))
    roles = [decision.extras["roles"].copy() for decision in decisions]
    assert all(np.array_equal(roles[0], later) for later in roles[1:3])
    for chosen in (roles[0], roles[3], roles[3][roles[0] == 0]):
        shares = np.bincount(chosen.flatten(), minlength=3) / chosen.size
        assert shares.tolist() == pytest.approx([0.5, 0.5, 0.0], abs=0.05)


def test_before_there_are_roles_all_actions_are_worth_the_same_in_three_equal_roles() -> None:
    built = rode(roles=None)
    batch = with_roles(episodes([7], [True]))
    values = built.controller.role_values(batch, built.agent)
    of_actions = built.agent.action_values(values.keys, batch["roles"].squeeze(-1))
    assert torch.allclose(of_actions, of_actions[..., :1].expand_as(of_actions))
    assert torch.allclose(values.roles, values.roles[..., :1].expand_as(values.roles))
    assert built.agent.role_exists.tolist() == [True] * 3
    assert bool(built.agent.role_actions.all())


def test_exploration_starts_anew_with_the_roles() -> None:
    controller = rode(roles=None).controller
    assert controller.epsilon(Clock(100, 0, 1000)) == pytest.approx(0.05)
    controller.agent.roles_since.fill_(150)
    assert controller.epsilon(Clock(150, 0, 1000)) == 1.0
    assert controller.epsilon(Clock(150 + 35_000, 0, 1000)) == pytest.approx((1.0 + 0.05) / 2)
    assert controller.epsilon(Clock(150 + 70_000, 0, 1000)) == pytest.approx(0.05)


# ---- Roles ---------------------------------------------------------------------------------------------------------


def test_clusters_of_separate_points_are_found_and_equal_points_leave_clusters_empty() -> None:
    rng = np.random.default_rng(0)
    centers = 10.0 * np.eye(3)
    labels = cluster(np.repeat(centers, 5, 0) + 0.1 * rng.normal(size=(15, 3)), 3, rng)
    assert [len(set(labels[5 * k : 5 * k + 5])) for k in range(3)] == [1, 1, 1]
    assert len(set(labels)) == 3
    assert len(set(cluster(np.ones((4, 2)), 3, rng))) == 1


@pytest.mark.parametrize(
    ("labels", "first_task_action", "sets"),
    [
        # Navigation: every cluster, with action 0; together they have all actions.
        ([0, 1, 1, 2, 2], None, [[1, 0, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 0, 1, 1]]),
        ([2, 2, 2, 0, 0], None, [[1, 0, 0, 1, 1], [1, 1, 1, 0, 0]]),
        # Two actions beside no-op and stop: as it is. Three: with all moves. The single attack 9 goes to all.
        (
            [0, 0, 0, 0, 1, 1, 2, 2, 2, 3],
            6,
            [[1, 1, 1, 1, 0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 1, 1, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]],
        ),
        # 2m_vs_1z: the only attack.
        ([0, 0, 1, 1, 1, 1, 2], 6, [[1, 1, 1, 1, 1, 1, 1]] * 3),
        # One role left: three copies.
        ([0, 1, 2, 3, 4, 5, 6, 6, 6], 6, [[1, 1, 1, 1, 1, 1, 1, 1, 1]] * 3),
        ([0, 1, 2, 3, 4, 5, 6, 7], 6, [[1, 1, 1, 1, 1, 1, 1, 1]] * 3),
        (
            [0, 0, 0, 0, 0, 0, 1, 1],
            6,
            [[1, 1, 1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0, 1, 1], [1, 1, 1, 1, 1, 1, 0, 0]],
        ),
    ],
)
def test_roles_of_clusters(labels: list[int], first_task_action: int | None, sets: list[list[int]]) -> None:
    found = role_sets(np.array(labels), first_task_action)
    assert found.astype(int).tolist() == sets
    assert found[:, 0].all()
    assert found.any(0).all()


def test_the_code_of_a_role_is_the_mean_of_its_actions() -> None:
    agent = rode().agent
    for j in range(2):
        assert torch.allclose(agent.role_codes[j], agent.action_codes[ROLES[j]].mean(0), atol=1e-6)


def test_roles_are_made_once_and_the_targets_follow_at_once() -> None:
    built = rode(roles=None, role_action_spaces_update_start=100, target_update_interval=10_000)
    fields = episode_fields(INFO, ("obs", "state", "avail_actions"), (), built.controller.extra_fields())
    buffer = ReplayBuffer(fields, 16, 8, 4, np.random.default_rng(0))
    buffer.insert(with_roles(episodes([7] * 8, [True] * 8), 3))
    since, frozen = [], []
    for count in range(4, 25, 4):
        before = [p.clone() for p in built.encoder.parameters()]
        built.update(buffer, Clock(count * 10, count, 1000))
        since.append(int(built.agent.roles_since))
        frozen.append(all(map(torch.equal, before, built.encoder.parameters())))
        if since[-1] == count * 10:
            ours, theirs = built.nets.state_dict(), built.targets.state_dict()
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)
            codes = built.agent.action_codes.clone()
    assert since == [-1, -1, 120, 120, 120, 120]
    assert frozen == [False, False, False, True, True, True]
    assert torch.equal(built.agent.action_codes, codes)


@pytest.mark.parametrize("rhythm", [0.5, 4.0, 8.0])
def test_the_encoder_learns_once_for_every_episode_whatever_the_rhythm_of_the_levels(
    rhythm: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = rode(roles=None, role_action_spaces_update_start=100, episodes_per_update=rhythm)
    fields = episode_fields(INFO, ("obs", "state", "avail_actions"), (), built.controller.extra_fields())
    buffer = ReplayBuffer(fields, 16, 8, 4, np.random.default_rng(0))
    learned = 0
    learn = built.learn_encoder

    def counted(batch: EpisodeBatch) -> Tensor:
        nonlocal learned
        learned += 1
        return learn(batch)

    monkeypatch.setattr(built, "learn_encoder", counted)
    counts, logged = [], []
    for count in range(2, 19, 2):
        buffer.insert(with_roles(episodes([7, 4], [True, False]), 3))
        logged.append("encoder_loss" in (built.update(buffer, Clock(count * 10, count, 1000)) or {}))
        counts.append(learned)
    # batch_size is 4: the first two episodes earn nothing. The roles come with the tenth episode.
    assert counts == [0, 2, 4, 6, 8, 8, 8, 8, 8]
    assert logged == [False, True, True, True, True, False, False, False, False]
    assert built.updates == int(16 / rhythm)


def test_a_run_that_is_resumed_keeps_its_roles() -> None:
    early = (*EARLY["rode_learner"], "env_args.episode_limit=12", "role_action_spaces_update_start=60")
    parts = small_parts("rode", "constrained_navigation", *early)
    clock, _ = play(parts, start_clock(), 3)
    state = parts.state_dict(with_buffer=True)
    fresh = small_parts("rode", "constrained_navigation", *early, "seed=5")
    fresh.load_state_dict(state)
    ours, theirs = (p.controller.modules()["agent"] for p in (parts, fresh))
    assert int(ours.roles_since) > 0  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(ours.buffers(), theirs.buffers(), strict=True))
    play(fresh, clock, 2)
    assert torch.equal(ours.roles_since, theirs.roles_since)  # type: ignore[arg-type]
    for p in (parts, fresh):
        p.close()


# ---- Bad settings --------------------------------------------------------------------------------------------------


def test_one_cluster_or_one_action_is_refused() -> None:
    with pytest.raises(UserError, match=r"n_role_clusters .*2"):
        load_config("rode", "navigation", ("n_role_clusters=1",))
    with pytest.raises(UserError, match="at least two actions"):
        rode(EnvInfo(n_agents=2, n_actions=1, obs_shape=2, state_shape=2, episode_limit=3), roles=None)
    with pytest.raises(UserError, match="needs a mixer, but mixer is null; what fits: qmix, qplex, vdn"):
        small_parts("rode", "navigation", "mixer=null")


def test_the_replay_page_shows_the_role_of_every_agent_at_every_step() -> None:
    config = small_config("env_args.episode_limit=12", algorithm="rode")
    # Before the actions are clustered there are no roles to be told.
    assert played(config, 1)["episodes"][0]["internals"] == {}
    parts = build(config)
    assert isinstance(parts.learner, RodeLearner)
    parts.learner.make_roles(start_clock())
    shown_panel = panel(config, parts.controller, start_clock(), 1, (), parts.learner)
    parts.close()
    assert shown_panel["choices"] == ["role"]
    shown = np.array(shown_panel["episodes"][0]["internals"]["role"])
    assert shown.shape == (shown_panel["episodes"][0]["length"], 5)
    assert set(shown.flatten().tolist()) <= set(range(3))
