"""Dec-LPMARL: what an agent sees decides, the LP is the teacher, and one run holds both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.task_states import CPU, episode_of, graph_of, random_state, small_critic, task_info

from controllers.base import Clock
from controllers.dec_lpmarl_controller import DecLpmarlController, DecLpmarlOptions
from controllers.task_structure import Observed
from envs.base import EnvInfo
from learners.base import step
from learners.dec_lpmarl_learner import DecLpmarlLearner, DecLpmarlLearnerOptions
from modules.agents.dec_lpmarl_agent import DecLpmarlAgent, DecLpmarlAgentOptions, in_sight_mean
from modules.assignment import policies

END = Clock(1000, 0, 1000)
START = Clock(0, 0, 1000)
ALL = slice(None)


def dec_agent(**options: Any) -> DecLpmarlAgent:
    torch.manual_seed(1)
    sizes = {"graph_hidden_dim": 8, "head_hidden_dim": 16, "imitator_hidden_dim": 16}
    return DecLpmarlAgent(2, 1, 5, **DecLpmarlAgentOptions(**(sizes | options)).model_dump())


def dec_controller(info: EnvInfo, agent: DecLpmarlAgent | None = None, **options: Any) -> DecLpmarlController:
    made = agent or dec_agent()
    return DecLpmarlController(info, DecLpmarlOptions(**options), lambda *dims: made, np.random.default_rng(0), CPU)


def one_place_each(s: int, n: int) -> Observed:
    return random_state(s, n, n)._replace(capacity=torch.ones(s, n, dtype=torch.int64))


@pytest.mark.parametrize("message_rounds", [0, 2])
@pytest.mark.parametrize("rounds", [1, 2])
def test_what_happens_out_of_sight_changes_no_choice_but_what_is_relayed(rounds: int, message_rounds: int) -> None:
    agent = dec_agent(message_rounds=message_rounds, graph_rounds=rounds)
    controller = dec_controller(task_info(4, 3, sight=1.0), agent)
    seen = random_state(1, 4, 3)
    # A chain: 0 sees 1, 1 sees 0 and 2, 2 sees 1; 3 is alone.
    seen.agent_feats[0, :, :2] = torch.tensor([[0.0, 0.0], [0.8, 0.0], [1.6, 0.0], [9.0, 9.0]])
    moved = Observed(*(field.clone() for field in seen))
    moved.agent_feats[0, 2:, 2:] += 0.5
    moved.agent_feats[0, 3, :2] -= 0.1

    def logits(state: Observed) -> torch.Tensor:
        return agent.imitated(controller.in_sight(graph_of(state)))[0]

    changed = [not torch.equal(a, b) for a, b in zip(logits(seen), logits(moved), strict=True)]
    told = rounds > 1 or message_rounds > 0
    assert changed == [told, True, True, True]


def test_the_mean_over_sight_leaves_out_oneself_and_those_out_of_sight() -> None:
    controller = dec_controller(task_info(3, 1, sight=1.0))
    seen = random_state(1, 3, 1)
    seen.agent_feats[0, :, :2] = torch.tensor([[0.0, 0.0], [0.5, 0.0], [1.4, 0.0]])
    values = torch.tensor([1.0, 10.0, 100.0]).view(1, 3, 1, 1)
    found = in_sight_mean(controller.in_sight(graph_of(seen)), values)
    assert found.flatten().tolist() == [10.0, 50.5, 10.0]
    seen.agent_alive[0, 1] = False
    assert in_sight_mean(controller.in_sight(graph_of(seen)), values).flatten().tolist() == [0.0, 0.0, 0.0]


def acted(controller: DecLpmarlController, seen: Observed, steps: int, clock: Clock, test_mode: bool) -> list[Any]:
    batch = episode_of(task_info(seen.agent_alive.shape[1], seen.task_alive.shape[1]), controller, seen, steps)
    controller.begin_episodes(len(seen.agent_feats))
    return [controller.act(batch, t, ALL, clock, test_mode).extras for t in range(steps)]


def test_tests_follow_the_imitator_or_any_other_policy_of_the_same_run() -> None:
    seen, info, agent = one_place_each(60, 3), task_info(3, 3), dec_agent()
    controller = dec_controller(info, agent)
    own = agent.imitated(controller.in_sight(graph_of(seen))).argmax(-1).numpy()
    assert (acted(controller, seen, 1, START, True)[0]["assign"][..., 0] == own).all()
    lp = acted(dec_controller(info, agent, high_policy="lp"), seen, 1, START, True)[0]["assign"][..., 0]
    assert (lp == controller.assign(seen, START, None)).all()
    assert (np.sort(lp, 1) == np.arange(3)).all()
    assert (lp != own).any()


@pytest.mark.parametrize(("high_policy", "interval"), [("decentral", 2), ("lp", 4)])
def test_the_imitator_has_an_interval_of_its_own(high_policy: str, interval: int) -> None:
    controller = dec_controller(task_info(2, 2), high_policy=high_policy, decision_interval=4, decentral_interval=2)
    extras = acted(controller, one_place_each(3, 2), 8, START, True)
    assert [e["decide"].all() for e in extras] == [t % interval == 0 for t in range(8)]
    assert [e["decide"].any() for e in extras] == [t % interval == 0 for t in range(8)]


@pytest.mark.parametrize(("clock", "share"), [(START, 0.0), (Clock(600, 0, 1000), 0.25), (END, 0.5)])
def test_the_imitators_share_of_training_episodes_grows(clock: Clock, share: float) -> None:
    controller = dec_controller(task_info(2, 2), decentral_share=0.5, decentral_start=0.2, decision_interval=5)
    extras = acted(controller, one_place_each(2000, 2), 6, clock, False)
    # What the imitator decides is no decision that the high level learns from.
    assert extras[0]["decide"].mean() == pytest.approx(1 - share, abs=0.04)
    assert (extras[5]["decide"] == extras[0]["decide"]).all()
    assert not extras[1]["decide"].any()
    moved = (extras[0]["assign"] != extras[1]["assign"]).any((1, 2))
    assert not moved[extras[0]["decide"].ravel()].any()


def dec_learner(controller: DecLpmarlController, info: EnvInfo, **options: Any) -> DecLpmarlLearner:
    options_model = DecLpmarlLearnerOptions(**options)
    return DecLpmarlLearner(controller, info, options_model, np.random.default_rng(0), CPU, small_critic())


def test_imitation_learns_the_assignment_where_it_depends_on_what_is_seen() -> None:
    info = task_info(3, 3)
    agent = dec_agent()
    controller = dec_controller(info, agent)
    learner = dec_learner(controller, info)

    # A teacher with a known optimum: the LP on minus the distance.
    agent.scores = lambda graph: -graph.to_tasks.distance  # type: ignore[method-assign]
    for k in range(900):
        seen = random_state(128, 3, 3, seed=k)._replace(capacity=torch.ones(128, 3, dtype=torch.int64))
        step(learner.optimizers["imitator"], learner.imitation_loss(seen, END)[0], 10.0)
    fresh = random_state(500, 3, 3, seed=999)._replace(capacity=torch.ones(500, 3, dtype=torch.int64))
    accuracy = float(learner.imitation_loss(fresh, END)[1]["imitation_accuracy"])
    distance = graph_of(fresh).to_tasks.distance
    nearest = policies.greedy(distance, fresh.agent_alive, fresh.task_alive)
    label = controller.assign(fresh, END, None)
    # Better than what an agent can know without the others.
    assert accuracy > (nearest == label).mean() + 0.1
    assert accuracy > 0.8


def test_imitation_leaves_lpmarls_networks_alone_and_counts_living_agents_only() -> None:
    info = task_info(3, 2)
    controller = dec_controller(info)
    learner = dec_learner(controller, info)
    seen = random_state(5, 3, 2)
    seen.agent_alive[:, 0] = False
    loss, metrics = learner.imitation_loss(seen, END)
    loss.backward()
    without = {name for name, p in controller.agent.named_parameters() if p.grad is None}
    assert without == {name for name, _ in controller.agent.named_parameters() if not name.startswith("imitator")}
    fewer = Observed(*(f[:, 1:] if f.shape[1] == 3 else f for f in seen))
    same = dec_learner(controller, task_info(2, 2)).imitation_loss(fewer, END)
    assert same[0].item() == pytest.approx(loss.item(), rel=1e-4)
    assert float(same[1]["imitation_accuracy"]) == pytest.approx(float(metrics["imitation_accuracy"]))


def test_imitation_has_a_learning_rate_that_decays_with_the_others() -> None:
    info = task_info(2, 2)
    learner = dec_learner(dec_controller(info), info, imitation_lr=2e-3, lr_hold=0.0, lr_final=0.1)
    learner._decay_lr(END)
    assert learner.optimizers["imitator"].param_groups[0]["lr"] == pytest.approx(2e-4)
