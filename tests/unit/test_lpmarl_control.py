"""LPMARL's controller: low-level actions of combat maps, when it decides, and capacities that are too small."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from support.task_states import episode_of, random_state, small_controller, task_info

from components.episode_buffer import EpisodeBatch
from components.errors import UserError
from controllers.base import Array, Clock, numpy_rows
from controllers.lpmarl_controller import LpmarlController
from controllers.task_structure import Observed, env_actions, low_availability, network_dims, task_structure
from envs.base import EnvInfo

START = Clock(0, 0, 1000)
ALL = slice(None)
# SMAC: 0 no-op (dead agents only), 1 stop, 2 to 5 moves, 6 + j attack enemy j.
ATTACK = 6


def test_low_level_actions_of_a_combat_map() -> None:
    avail = torch.tensor(
        [
            [1, 0, 0, 0, 0, 0, 0, 0, 0],  # dead
            [0, 1, 1, 0, 1, 1, 1, 0, 1],  # may attack 0 and 2
            [0, 1, 1, 1, 1, 1, 0, 0, 1],  # may attack 2
        ]
    )
    low_mask = {
        # (agent, target) -> the own mask: no-op, stop, four moves, attack my target
        (0, 0): [1, 0, 0, 0, 0, 0, 0],
        (0, 2): [1, 0, 0, 0, 0, 0, 0],
        (1, 0): [0, 1, 1, 0, 1, 1, 1],
        (1, 1): [0, 1, 1, 0, 1, 1, 0],
        (2, 2): [0, 1, 1, 1, 1, 1, 1],
        (2, 0): [0, 1, 1, 1, 1, 1, 0],
    }
    for (agent, target), expected in low_mask.items():
        found = low_availability(avail[agent].view(1, 1, -1), torch.tensor([[target]]), ATTACK)
        assert found.flatten().tolist() == expected
    low = np.array([[0, 1, 5, 6, 6, 6]])
    targets = np.array([[2, 2, 2, 0, 1, 2]])
    assert env_actions(low, targets, ATTACK).tolist() == [[0, 1, 5, 6, 7, 8]]


def test_without_task_actions_the_low_level_takes_the_environments() -> None:
    avail, low = torch.ones(2, 3, 5), np.array([[4, 0, 1]])
    assert low_availability(avail, torch.zeros(2, 3, dtype=torch.int64), None) is avail
    assert env_actions(low, np.array([[1, 1, 1]]), None) is low


@pytest.mark.parametrize("test_mode", [True, False])
def test_a_dead_agent_does_nothing_and_attacks_go_to_the_own_target(test_mode: bool) -> None:
    info = task_info(3, 3, first_task_action=ATTACK)
    controller = small_controller(info)
    seen = random_state(8, 3, 3)
    seen.agent_alive[:, 0] = False
    batch = episode_of(info, controller, seen, 2)
    batch.data["avail_actions"][:, :, 0] = torch.tensor([1, 0, 0, 0, 0, 0, 0, 0, 0])
    batch.data["avail_actions"][:, :, 1:, :ATTACK] = 0
    controller.begin_episodes(8)
    decision = controller.act(batch, 0, ALL, START, test_mode)
    assign = decision.extras["assign"][..., 0]
    assert (decision.actions[:, 0] == 0).all()
    assert (decision.actions[:, 1:] == ATTACK + assign[:, 1:]).all()
    assert (decision.extras["low_actions"][:, 1:] == ATTACK).all()


def decided(controller: LpmarlController, info: EnvInfo, agent_alive: list[list[bool]]) -> list[bool]:
    """Whether a new assignment is made at each step of a script of living agents; a second row never changes."""
    seen = random_state(2, 2, 2)
    batch = episode_of(info, controller, seen, len(agent_alive))
    batch.data["agent_alive"][0] = torch.tensor(agent_alive)
    controller.begin_episodes(2)
    steps = range(len(agent_alive))
    rows = [controller.act(batch, t, ALL, START, test_mode=True).extras["decide"][:, 0].tolist() for t in steps]
    assert controller.options.redecide != "event" or [row[1] for row in rows] == [True] + [False] * (len(rows) - 1)
    return [row[0] for row in rows]


def test_when_assignments_are_made() -> None:
    info = task_info(2, 2)
    both, one = [True, True], [True, False]
    script = [both, both, one, one, both, both, both]

    def run(**options: Any) -> list[int]:
        return np.flatnonzero(decided(small_controller(info, **options), info, script)).tolist()

    assert run(redecide="start") == [0]
    assert run(redecide="every_k", decision_interval=3) == [0, 3, 6]
    assert run(redecide="every_k", decision_interval=1) == list(range(7))
    assert run(redecide="event") == [0, 2, 4]


def test_an_event_is_also_the_death_of_a_task() -> None:
    info = task_info(2, 2)
    controller = small_controller(info, redecide="event", high_policy="random_feasible")
    batch = episode_of(info, controller, random_state(1, 2, 2), 5)
    batch.data["task_alive"][0, 3:, 0] = False
    controller.begin_episodes(1)
    decisions = [controller.act(batch, t, ALL, START, True) for t in range(5)]
    assert [bool(d.extras["decide"][0, 0]) for d in decisions] == [True, False, False, True, False]
    assert decisions[3].extras["assign"].flatten().tolist() == [1, 1]


def test_an_event_is_also_the_first_time_that_a_task_can_be_acted_on() -> None:
    info = task_info(2, 2, first_task_action=5)
    controller = small_controller(info, redecide="event", high_policy="random_feasible")
    batch = episode_of(info, controller, random_state(1, 2, 2), 6)
    batch.data["avail_actions"][0, :, :, 5:] = 0
    for t in (2, 3, 5):
        batch.data["avail_actions"][0, t, 1, 6] = 1
    for _ in range(2):
        controller.begin_episodes(1)
        decisions = [bool(controller.act(batch, t, ALL, START, True).extras["decide"][0, 0]) for t in range(6)]
        assert decisions == [True, False, True, False, False, False]


def test_between_decisions_everybody_keeps_the_task() -> None:
    info = task_info(2, 2)
    controller = small_controller(info, redecide="every_k", decision_interval=3, high_policy="random_feasible")
    batch = episode_of(info, controller, random_state(30, 2, 2), 6)
    controller.begin_episodes(30)
    kept = []
    for t in range(6):
        # Environments end meanwhile; the rows that stay keep theirs.
        rows = ALL if t < 2 else torch.arange(t, 30, 2)
        kept.append(np.full((30, 2), -1))
        kept[-1][numpy_rows(rows)] = controller.act(batch, t, rows, START, False).extras["assign"][..., 0]
    assert (kept[0] == kept[1]).all()
    assert (kept[2][2::2] == kept[0][2::2]).all()
    assert (kept[5][5::2] == kept[3][5::2]).all()
    assert (kept[3][3::2] != kept[0][3::2]).any()


def test_the_high_level_learns_from_the_episodes_that_are_played_as_tests() -> None:
    info = task_info(2, 2)
    controller = small_controller(info, low_greedy_share=0.3, decision_interval=2, score_noise_start=0.0)
    batch = episode_of(info, controller, random_state(2000, 2, 2), 4)

    def low_actions(test_mode: bool) -> tuple[Array, list[tuple[Array, Array]]]:
        controller.begin_episodes(2000)
        # Copies: the controller goes on with its own assignments.
        extras = [deepcopy(controller.act(batch, t, ALL, START, test_mode).extras) for t in range(4)]
        played = [(e["low_actions"][..., 0], e["assign"][..., 0]) for e in extras]
        return np.array([e["decide"][:, 0] for e in extras]), played

    decided_in_tests, tests = low_actions(test_mode=True)
    assert decided_in_tests.all(1).tolist() == [True, False, True, False]
    decides, played = low_actions(test_mode=False)
    as_tests = decides[0]
    assert as_tests.mean() == pytest.approx(0.3, abs=0.04)
    assert (decides[2] == as_tests).all()
    assert not decides[[1, 3]].any()
    for (low, assign), (low_in_tests, assign_in_tests) in zip(played, tests, strict=True):
        same_task = (assign == assign_in_tests).all(1)
        assert (low == low_in_tests)[as_tests & same_task].all()
        # The others draw all of their actions: epsilon is 1 at the start.
        assert (low == low_in_tests)[~as_tests & same_task].mean() == pytest.approx(0.2, abs=0.04)


def crowded(rule: str) -> tuple[LpmarlController, EpisodeBatch]:
    info = task_info(5, 2)
    controller = small_controller(info, capacity_rule=rule)
    seen: Observed = random_state(1, 5, 2)._replace(capacity=torch.tensor([[1, 2]]))
    controller.begin_episodes(1)
    return controller, episode_of(info, controller, seen, 1)


def test_too_few_places_stop_the_run_with_the_numbers_and_the_remedy() -> None:
    controller, batch = crowded("error")
    with pytest.raises(UserError) as caught:
        controller.act(batch, 0, ALL, START, test_mode=True)
    message = str(caught.value)
    assert "5 living agents" in message
    assert "sum k = 3" in message
    assert "capacity_rule" in message
    assert "relax" in message


@pytest.mark.parametrize("test_mode", [True, False])
def test_relax_raises_the_capacities_to_the_least_that_holds_everybody(test_mode: bool) -> None:
    controller, batch = crowded("relax")
    assign = controller.act(batch, 0, ALL, START, test_mode).extras["assign"].flatten()
    assert max(np.bincount(assign, minlength=2)) == 3


@pytest.mark.parametrize("policy", ["lp", "lp_distance", "greedy", "random_feasible"])
@pytest.mark.parametrize("nobody", ["agents", "tasks"])
def test_acting_needs_neither_living_agents_nor_living_tasks(policy: str, nobody: str) -> None:
    info = task_info(3, 2)
    controller = small_controller(info, high_policy=policy)
    seen = random_state(2, 3, 2)
    (seen.agent_alive if nobody == "agents" else seen.task_alive)[0] = False
    controller.begin_episodes(2)
    decision = controller.act(episode_of(info, controller, seen, 1), 0, ALL, START, test_mode=False)
    assert ((decision.actions >= 0) & (decision.actions < 5)).all()
    assert ((decision.extras["assign"] >= 0) & (decision.extras["assign"] < 2)).all()


def test_one_task_takes_everybody() -> None:
    info = task_info(3, 1)
    controller = small_controller(info)
    controller.begin_episodes(2)
    decision = controller.act(episode_of(info, controller, random_state(2, 3, 1), 1), 0, ALL, START, test_mode=False)
    assert (decision.extras["assign"] == 0).all()


def test_an_environment_without_tasks_is_refused_with_a_way_out() -> None:
    flat = EnvInfo(n_agents=2, n_actions=3, obs_shape=1, state_shape=1, episode_limit=1)
    with pytest.raises(UserError, match="needs an environment with tasks"):
        task_structure(flat)
    assert network_dims(task_info(2, 2)) == (2, 1, 5)
    assert network_dims(task_info(2, 2, first_task_action=ATTACK)) == (2, 1, 7)
