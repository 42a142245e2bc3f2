"""HSD: segments and rewards of both levels, reductions to IQL and QMIX, the decoder, alpha, and what stops at start."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.q_learning import AGENTS, CPU, INFO, QMIX, episodes, learner, networks
from support.replays import played, small_config
from support.small_runs import play, small_parts, start_clock
from torch import Tensor

import experiment
from components.config import load_config
from components.episode_buffer import EpisodeBatch, ReplayBuffer, episode_fields
from components.errors import UserError
from controllers.base import Clock
from controllers.hsd_controller import HsdController, HsdOptions
from envs.base import EnvInfo
from learners.base import step
from learners.hsd_learner import HsdLearner, HsdLearnerOptions
from modules.agents.hsd_agent import HsdAgent, SkillDecoder

START = Clock(0, 0, 1000)
LONG = EnvInfo(n_agents=2, n_actions=3, obs_shape=5, state_shape=6, episode_limit=13)


def hsd(info: EnvInfo = INFO, skills: int = 3, mac: dict[str, Any] | None = None, **options: Any) -> HsdLearner:
    """A learner whose targets differ from its networks."""
    torch.manual_seed(0)
    agent = partial(HsdAgent, n_skills=skills, high_hidden_dim=8, low_hidden_dim=8, decoder_hidden_dim=8)
    seen = HsdOptions.model_validate({"segment_length": 4} | (mac or {}))
    controller = HsdController(info, seen, agent, np.random.default_rng(0), CPU)
    built = HsdLearner(controller, info, HsdLearnerOptions(**options), np.random.default_rng(0), CPU, QMIX)
    generator = torch.Generator().manual_seed(1)
    for p in built.targets.parameters():
        p.add_(torch.randn(p.shape, generator=generator), alpha=0.3)
    return built


def with_skills(built: HsdLearner, batch: EpisodeBatch) -> EpisodeBatch:
    """A random skill for every agent and segment."""
    length = built.controller.options.segment_length
    generator = torch.Generator().manual_seed(2)
    b, t, n = batch["actions"].shape[:3]
    drawn = torch.randint(built.agent.n_skills, (b, math.ceil(t / length), n, 1), generator=generator)
    batch.data["skills"] = drawn.repeat_interleave(length, 1)[:, :t]
    return batch


def filled(built: HsdLearner) -> ReplayBuffer:
    """Four episodes of LONG: with a batch size of 4 every update is on all of them."""
    fields = episode_fields(LONG, ("obs", "state", "avail_actions"), (), built.controller.extra_fields())
    buffer = ReplayBuffer(fields, 4, 14, 3, np.random.default_rng(0))
    buffer.insert(with_skills(built, episodes([13, 6, 9, 13], [False, True, True, True], LONG)))
    return buffer


@pytest.mark.parametrize("length", [1, 4, 5, 13])
def test_decisions_are_those_of_a_loop(length: int) -> None:
    built = hsd(LONG, mac={"segment_length": length, "decoder_skip": 1}, gamma=0.9)
    lengths, ends = [13, 1, 4, 5, 6, 11], [False, True, True, False, True, False]
    batch = with_skills(built, episodes(lengths, ends, LONG))
    wanted = []
    for b, (whole, end) in enumerate(zip(lengths, ends, strict=True)):
        for start in range(0, whole, length):
            stop = min(start + length, whole)
            ret = sum(0.9 ** (t - start) * float(batch["reward"][b, t, 0]) for t in range(start, stop))
            wanted.append((b, start, stop, ret, 0.0 if end and stop == whole else 0.9 ** (stop - start)))
    cut = built.decisions(batch)
    assert list(zip(cut.episode.tolist(), cut.start.tolist(), cut.end.tolist(), strict=True)) == [w[:3] for w in wanted]
    assert cut.ret.tolist() == pytest.approx([w[3] for w in wanted], abs=1e-5)
    assert cut.discount.tolist() == pytest.approx([w[4] for w in wanted])


def test_the_intrinsic_reward_comes_with_the_last_step_of_whole_segments_only() -> None:
    info = EnvInfo(n_agents=2, n_actions=3, obs_shape=5, state_shape=6, episode_limit=45)
    built = hsd(info, mac={"segment_length": 20, "decoder_skip": 4})
    batch = with_skills(built, episodes([45, 39, 20, 19], [False, True, True, True], info))
    with torch.no_grad():
        rewards = built.intrinsic_rewards(batch)
    assert torch.nonzero(rewards[..., 0])[:, 1].tolist() == [19, 39, 19, 19]
    assert torch.nonzero(rewards[..., 0])[:, 0].tolist() == [0, 0, 1, 2]
    # The same by hand: the decoder's probability of the own skill, on the differences of every fourth observation.
    seen = batch["obs"][0, 20:41:4, 1]
    logits = built.agent.decoder((seen[1:] - seen[:-1]).unsqueeze(0))[0]
    assert float(rewards[0, 39, 1]) == pytest.approx(float(logits.softmax(-1)[batch["skills"][0, 20, 1, 0]].detach()))


def test_the_low_level_reward_is_shared_by_alpha() -> None:
    built = hsd(LONG, alpha_start=0.7, alpha_finish=0.7)
    batch = with_skills(built, episodes([13, 6], [False, True], LONG))
    with torch.no_grad():
        expected = 0.7 * batch["reward"][:, :-1] + 0.3 * built.intrinsic_rewards(batch)
        assert torch.allclose(built.low_rewards(batch), expected)


def test_with_one_skill_it_is_recognized_for_sure() -> None:
    built = hsd(LONG, skills=1)
    batch = with_skills(built, episodes([13, 6], [False, True], LONG))
    rewards = built.intrinsic_rewards(batch)
    assert torch.nonzero(rewards.sum(-1)).tolist() == [[0, 3], [0, 7], [0, 11], [1, 3]]
    assert torch.equal(rewards.unique(), torch.tensor([0.0, 1.0]))


def copied(source: Any, into: Any, inputs: int) -> None:
    """The weights of one perceptron in another, whose further inputs count for nothing."""
    into.load_state_dict(source.state_dict() | {"layers.0.weight": into.layers[0].weight.data})
    into.layers[0].weight.data[:, inputs:] = 0.0
    into.layers[0].weight.data[:, :inputs] = source.layers[0].weight.data


def test_with_alpha_1_the_low_level_is_iql() -> None:
    iql = learner(AGENTS["mlp"], None, double_q=False)
    iql.controller.options = iql.controller.options.model_copy(update={"obs_last_action": False})
    width = INFO.obs_shape + INFO.n_agents
    for network in networks(iql):
        network.layers[0] = torch.nn.Linear(width, 8)
    built = hsd()
    for source, into in zip(networks(iql), (built.agent, built.targets["agent"]), strict=True):
        copied(source, into.low, width)
    batch = with_skills(built, episodes([7, 4, 1], [True, False, True]))
    assert float(built.low_loss(batch)[0].detach()) == pytest.approx(float(iql.loss(batch)[0].detach()), rel=1e-5)


def test_with_segments_of_one_step_and_skills_for_actions_the_high_level_is_qmix() -> None:
    qmix = learner(AGENTS["mlp"], QMIX, double_q=False, gamma=0.9)
    qmix.controller.options = qmix.controller.options.model_copy(update={"obs_last_action": False})
    width = INFO.obs_shape + INFO.n_agents
    for network in networks(qmix):
        network.layers[0] = torch.nn.Linear(width, 8)
    built = hsd(skills=INFO.n_actions, mac={"segment_length": 1, "decoder_skip": 1}, gamma=0.9)
    for nets, own in ((qmix.nets, built.nets), (qmix.targets, built.targets)):
        own["agent"].high.load_state_dict(nets["agent"].state_dict())  # type: ignore[union-attr]
        own["mixer"].load_state_dict(nets["mixer"].state_dict())
    batch = episodes([7, 4, 1], [True, False, True])
    batch.data["avail_actions"][:] = 1
    batch.data["skills"] = batch["actions"]
    expected = qmix.loss(batch)[0]
    found = built.high_loss(batch)[0]
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    mine = torch.autograd.grad(found, list(built.mixer.parameters()))
    for a, b in zip(mine, torch.autograd.grad(expected, list(qmix.nets["mixer"].parameters())), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_junk_behind_the_end_changes_no_loss() -> None:
    built = hsd(LONG, alpha_start=0.7)
    lengths = [13, 6, 1]
    clean, batch = (with_skills(built, episodes(lengths, [True, True, False], LONG)) for _ in range(2))
    for b, length in enumerate(lengths):
        for name in ("obs", "state", "avail_actions"):
            batch.data[name][b, length + 1 :] = 1 - batch.data[name][b, length + 1 :]
        for name in ("reward", "terminated"):
            batch.data[name][b, length:] = 1 - batch.data[name][b, length:]
        for name in ("actions", "skills"):
            batch.data[name][b, length:] = 0
    for loss in (built.high_loss, built.low_loss, built.decoder_loss):
        mine, wanted = loss(batch), loss(clean)
        assert mine is not None
        assert wanted is not None
        assert torch.equal(mine[0], wanted[0])


def test_each_level_learns_from_its_own_loss() -> None:
    built = hsd(LONG, alpha_start=0.7)
    batch = with_skills(built, episodes([13, 6], [False, True], LONG))
    agent = built.agent
    for loss, learning in (
        (built.high_loss, [agent.high, built.mixer]),
        (built.low_loss, [agent.low]),
        (built.decoder_loss, [agent.decoder]),
    ):
        found = loss(batch)
        assert found is not None
        built.nets.zero_grad()
        found[0].backward()
        moved = {id(p) for p in built.nets.parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)}
        assert moved <= {id(p) for module in learning for p in module.parameters()}
        assert moved


def test_an_update_moves_both_levels_and_the_mixer_and_from_new_episodes_the_decoder() -> None:
    built = hsd(LONG, batch_size=4, episodes_per_update=4, decoder_episodes=8)
    buffer = filled(built)
    of_decoder = {name for name, _ in built.nets.named_parameters() if name.startswith("agent.decoder.")}
    others = {name for name, _ in built.nets.named_parameters()} - of_decoder
    for count, wanted in ((4, others), (8, others | of_decoder), (9, set())):
        before = {name: p.detach().clone() for name, p in built.nets.named_parameters()}
        built.update(buffer, Clock(0, count, 1000))
        assert {name for name, p in built.nets.named_parameters() if not torch.equal(p, before[name])} == wanted


def test_an_update_moves_the_targets_by_tau() -> None:
    built = hsd(LONG, batch_size=4, episodes_per_update=4, decoder_episodes=8, target_update_tau=0.25)
    before = [p.clone() for p in built.targets.parameters()]
    built.update(filled(built), Clock(0, 4, 1000))
    for was, now, p in zip(before, built.targets.parameters(), built.nets.parameters(), strict=True):
        assert torch.allclose(now, 0.75 * was + 0.25 * p, rtol=1e-6, atol=1e-7)


def test_the_losses_of_a_batch_that_is_learned_again_and_again_fall() -> None:
    built = hsd(LONG, batch_size=4, episodes_per_update=4, decoder_episodes=4, lr=1e-2)
    buffer = filled(built)
    logged = [built.update(buffer, Clock(0, 4 * k, 1000)) for k in range(1, 41)]
    for level in ("high", "low", "decoder"):
        losses = [metrics[f"{level}_loss"] for metrics in logged if metrics]
        assert losses[-1] < 0.5 * losses[0]


def test_with_epsilon_1_skills_are_uniform_and_so_are_actions_among_the_available_ones() -> None:
    controller, batch = hsd().controller, episodes([7] * 2000, [True] * 2000)
    batch.data["avail_actions"][:] = torch.tensor([1, 0, 1, 1])
    controller.begin_episodes(2000)
    decision = controller.act(batch, 0, slice(None), START, test_mode=False)
    for agent in range(3):
        skills, actions = decision.extras["skills"][:, agent, 0], decision.actions[:, agent]
        assert (np.bincount(skills, minlength=3) / 2000).tolist() == pytest.approx([1 / 3] * 3, abs=0.05)
        wanted = [1 / 3, 0, 1 / 3, 1 / 3]
        assert (np.bincount(actions, minlength=4) / 2000).tolist() == pytest.approx(wanted, abs=0.05)


def directions(skills: Tensor, length: int, seed: int) -> Tensor:
    """[S, length, 2] changes of position: skill k walks in direction k of 6, with noise."""
    angle = skills * (2 * math.pi / 6)
    way = torch.stack([angle.cos(), angle.sin()], -1).unsqueeze(1)
    return way + 0.4 * torch.randn(len(skills), length, 2, generator=torch.Generator().manual_seed(seed))


@pytest.mark.learning
@pytest.mark.parametrize("initial", range(5))
def test_the_decoder_tells_directions_apart_in_200_steps(initial: int) -> None:
    torch.manual_seed(initial)
    decoder = SkillDecoder(2, 6, 16)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-2)
    skills = torch.arange(6).repeat(40)
    for seed in range(200):
        logits = decoder(directions(skills, 5, 1000 * initial + seed))
        step(optimizer, torch.nn.functional.cross_entropy(logits, skills), 10.0)
    with torch.no_grad():
        right = decoder(directions(skills, 5, 10_000)).argmax(-1) == skills
    assert float(right.float().mean()) > 0.95


def test_the_dead_do_not_teach_the_decoder() -> None:
    built = hsd(LONG)
    built._knows_the_dead = True
    batch = with_skills(built, episodes([8, 3], [True, True], LONG))
    alive = torch.ones(2, 14, 2, dtype=torch.bool)
    alive[0, 3:, 1] = False  # lives 3 steps of the first segment of 4, none of the second
    batch.data["agent_alive"] = alive
    episode, start = built.controller.whole_segments(batch)
    logits = built.controller.recognize(batch, episode, start)
    each = -logits.log_softmax(-1).gather(-1, batch["skills"][episode, start]).squeeze(-1)
    found = built.decoder_loss(batch)
    assert found is not None
    assert float(found[0].detach()) == pytest.approx(float((each[0].sum() + each[1, 0]).detach()) / 3)
    assert built.decoder_loss(batch[1:]) is None


def test_the_dead_earn_nothing_from_the_decoder_that_does_not_know_them() -> None:
    built = hsd(LONG)
    batch = with_skills(built, episodes([8], [True], LONG))
    everyone = built.intrinsic_rewards(batch)
    built._knows_the_dead = True
    batch.data["agent_alive"] = torch.ones(1, 14, 2, dtype=torch.bool)
    batch.data["agent_alive"][0, 3:, 1] = False  # lives 3 steps of the first segment of 4, none of the second
    found = built.intrinsic_rewards(batch)
    assert everyone[0, 7, 1] > 0
    expected = everyone.clone()
    expected[0, 7, 1] = 0.0
    assert torch.equal(found, expected)


def test_while_alpha_is_1_the_decoder_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    built = hsd(LONG, alpha_start=1.0)
    batch = with_skills(built, episodes([8, 3], [True, False], LONG))
    expected = batch["reward"][:, :-1] + 0.0 * built.intrinsic_rewards(batch)
    monkeypatch.setattr(built, "intrinsic_rewards", lambda _: pytest.fail("asked"))
    assert torch.equal(built.low_rewards(batch), expected)


def test_alpha_falls_after_each_successful_evaluation_to_its_floor() -> None:
    built = hsd()
    seen = []
    for success in (0.49, 0.5, 0.2, *[1.0] * 9):
        built.after_test({"success": success})
        seen.append(round(built.alpha, 2))
    assert seen == [1.0, 0.95, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.6, 0.6]
    other = hsd()
    other.load_state_dict(built.state_dict())
    assert other.alpha == built.alpha


def test_the_training_loop_tells_the_learner_of_its_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    built = hsd()
    monkeypatch.setattr(experiment, "_evaluate", lambda session, count: {"success": 0.9, "return": 1.0})
    session: Any = SimpleNamespace(
        config=SimpleNamespace(run=SimpleNamespace(test_nepisode=5)),
        watch=SimpleNamespace(process=0.0, wall=0.0),
        position=SimpleNamespace(episodes=3),
        parts=SimpleNamespace(learner=built),
        log=lambda values: None,
    )
    assert experiment._test(session) == {"success": 0.9, "return": 1.0}
    assert built.alpha == 0.95


def test_the_decoder_sees_every_episode_once() -> None:
    parts = small_parts("hsd", "navigation", "decoder_episodes=6", "batch_size=64")
    seen: list[int] = []
    assert isinstance(parts.learner, HsdLearner)
    whole = parts.learner.decoder_loss

    def watched(batch: EpisodeBatch) -> Any:
        seen.append(batch.batch_size)
        return whole(batch)

    parts.learner.decoder_loss = watched  # type: ignore[method-assign]
    play(parts, start_clock(), 5)
    parts.close()
    assert seen == [8, 8]


def test_skills_are_kept_for_a_segment_and_change_the_actions() -> None:
    parts = small_parts("hsd", "navigation", "epsilon_finish=1.0", "env_args.occupancy_radius=0.001")
    batch = parts.train.collect(start_clock()).batch
    skills = batch["skills"][:, :50].view(4, 5, 10, 3)
    parts.close()
    assert torch.equal(skills, skills[:, :, :1].expand_as(skills))
    assert not torch.equal(skills[:, 0], skills[:, 1])
    assert skills.unique().tolist() == [0, 1, 2, 3, 4, 5]


def test_rewards_of_the_levels_are_split_where_there_are_tasks() -> None:
    parts = small_parts("hsd", "navigation", "env_args.rewards=dense")
    batch = parts.train.collect(start_clock()).batch
    assert isinstance(parts.learner, HsdLearner)
    assert torch.equal(parts.learner.low_rewards(batch), batch["agent_reward"][:, :-1])
    assert torch.equal(parts.learner.decisions(batch).ret, torch.zeros(len(parts.learner.decisions(batch).ret)))
    parts.close()


def test_going_in_and_out_of_landmarks_pays_nothing() -> None:
    parts = small_parts("hsd", "navigation", "env_args.reach_reward=delta", "env_args.occupancy_radius=0.4")
    batch = parts.train.collect(start_clock()).batch
    assert isinstance(parts.learner, HsdLearner)
    earned = (parts.learner.low_rewards(batch) * batch.mask()).cumsum(1)
    parts.close()
    assert (earned.diff(dim=1) < 0).any()
    assert set(earned.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("algorithm", ["hsd", "hsd_official"])
def test_games_and_fights_have_settings_of_their_own(algorithm: str) -> None:
    assert load_config(algorithm, "matrix_game").values["segment_length"] == 1
    assert load_config(algorithm, "skirmish").values["decoder_obs"] is None
    assert load_config(algorithm, "navigation").values["decoder_obs"] is not None


def test_segments_that_never_end_stop_at_start() -> None:
    with pytest.raises(UserError, match=r"segment_length = 10 is longer than .* 2 steps.*use segment_length <= 2"):
        small_parts("hsd", "two_step_game", "segment_length=10")
    with pytest.raises(UserError, match="decoder_skip = 7 is more than segment_length = 5"):
        small_parts("hsd", "navigation", "segment_length=5", "decoder_skip=7")
    with pytest.raises(UserError, match="alpha_finish"):
        small_parts("hsd", "navigation", "alpha_start=0.3")


def test_it_plays_games_without_tasks() -> None:
    parts = small_parts("hsd", "two_step_game", "segment_length=1", "decoder_skip=1", "batch_size=4")
    clock, logged = play(parts, Clock(0, 0, 1000), 3)
    parts.close()
    assert clock.episodes == 12
    assert logged[-1] is not None
    assert all(math.isfinite(value) for value in logged[-1].values())


def test_skills_are_on_the_replay_page() -> None:
    panel = played(small_config("env_args.episode_limit=25", algorithm="hsd"), 2)
    episode = panel["episodes"][0]
    internals = episode["internals"]
    assert set(internals) == {"skill", "Q(skill)", "p(skill | segment)"}
    assert all(len(rows) == episode["length"] for rows in internals.values())
    values, skills = internals["Q(skill)"], internals["skill"]
    for t in range(0, episode["length"], 10):
        assert skills[t] == [int(np.argmax(row)) for row in values[t]]
    if episode["length"] == 25:
        assert internals["p(skill | segment)"][24] == [None] * 5
        assert all(0 < p < 1 for p in internals["p(skill | segment)"][19])
