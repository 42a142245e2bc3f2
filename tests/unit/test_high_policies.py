"""High-level policies beside the LP on learned scores: costs that are known, and agents that choose for themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.small_runs import small_parts
from support.task_states import (
    TableCritic,
    episode_of,
    graph_of,
    high_batch,
    random_state,
    small_controller,
    small_learner,
    task_info,
)
from torch import Tensor, nn

from components.errors import UserError
from controllers.base import Clock
from controllers.high_policies import HIGH_POLICIES, gumbel
from controllers.lpmarl_controller import LpmarlOptions
from controllers.task_structure import Observed
from envs.base import EnvInfo
from learners.lpmarl_batches import living_task
from learners.lpmarl_high import HIGH_LEVELS, ChosenByEach

START = Clock(0, 0, 1000)
ALL = slice(None)


def first_tasks(
    info: EnvInfo, seen: Observed, cost: Tensor | None = None, test_mode: bool = True, **options: Any
) -> np.ndarray:
    controller = small_controller(info, **options)
    batch = episode_of(info, controller, seen, 1)
    if cost is not None:
        batch.data["time"] = cost.unsqueeze(1)
    controller.begin_episodes(len(seen.agent_feats))
    found: np.ndarray = controller.act(batch, 0, ALL, START, test_mode).extras["assign"][..., 0]
    return found


def with_costs(n: int, m: int) -> EnvInfo:
    info = task_info(n, m)
    assert info.tasks is not None
    tasks = type(info.tasks)(**{**vars(info.tasks), "costs": ("time",)})
    return type(info)(**{**vars(info), "tasks": tasks})


def test_every_policy_of_the_options_is_one_of_the_table_and_those_that_learn_have_a_learner() -> None:
    offered = LpmarlOptions.model_fields["high_policy"].annotation
    assert set(offered.__args__) == set(HIGH_POLICIES)  # type: ignore[union-attr]
    assert {name for name, policy in HIGH_POLICIES.items() if policy.learns} == set(HIGH_LEVELS)


@pytest.mark.parametrize("policy", sorted(HIGH_POLICIES))
def test_against_one_enemy_every_policy_gives_it_to_both_agents(policy: str) -> None:
    # Half of one enemy is one agent: without the raised capacity the LP has no solution and stops the run.
    parts = small_parts("lpmarl", "skirmish", "env_args.map_name=2m_vs_1z", f"high_policy={policy}")
    batch = parts.train.collect(START).batch
    parts.close()
    assert (batch["capacity"][:, 0] == 2).all()
    assert (batch["assign"] == 0).all()


def test_gumbel_noise_samples_the_softmax() -> None:
    logits = np.log([0.1, 0.3, 0.6])
    draws = logits + gumbel(np.random.default_rng(0).standard_normal((100_000, 3)))
    assert np.isfinite(gumbel(np.array([-38.0, 0.0, 8.0]))).all()
    assert np.bincount(draws.argmax(1)) / 100_000 == pytest.approx([0.1, 0.3, 0.6], abs=0.006)


def test_lp_cost_minimizes_the_given_cost_within_the_capacities() -> None:
    # Total 1 + 10 against 6 + 6: the sum takes the first, a high power avoids the latest arrival.
    cost = torch.tensor([[[1.0, 6.0], [6.0, 10.0]]])
    seen = random_state(1, 2, 2)._replace(capacity=torch.tensor([[1, 1]]))
    info = with_costs(2, 2)
    given = {"high_policy": "lp_cost", "assignment_cost": "time"}
    assert first_tasks(info, seen, cost, **given).tolist() == [[0, 1]]
    assert first_tasks(info, seen, cost, **given, cost_power=3.0).tolist() == [[1, 0]]


def test_lp_cost_of_distance_is_lp_distance() -> None:
    seen = random_state(50, 4, 4)._replace(capacity=torch.ones(50, 4, dtype=torch.int64))
    info = task_info(4, 4)
    plain = first_tasks(info, seen, high_policy="lp_distance")
    assert (first_tasks(info, seen, high_policy="lp_cost") == plain).all()
    assert (first_tasks(info, seen, high_policy="lp_cost", cost_power=8.0) != plain).any()


def test_a_cost_that_the_environment_does_not_know_is_refused_with_those_it_knows() -> None:
    with pytest.raises(UserError, match=r"assignment_cost = 'tme'.*did you mean 'time'.*distance, time"):
        small_controller(with_costs(2, 2), high_policy="lp_cost", assignment_cost="tme")
    assert "time" not in small_controller(with_costs(2, 2), assignment_cost="time").fields


def test_softmax_takes_everybodys_best_score_in_tests_whatever_the_capacities() -> None:
    seen = random_state(40, 3, 2)._replace(capacity=torch.ones(40, 2, dtype=torch.int64))
    controller = small_controller(task_info(3, 2), high_policy="softmax")
    best = controller.agent.scores(graph_of(seen)).argmax(-1)
    assert (first_tasks(task_info(3, 2), seen, high_policy="softmax") == best.numpy()).all()


def test_softmax_samples_in_training() -> None:
    seen = random_state(1, 3, 2)
    many = Observed(*(field.expand(4000, *field.shape[1:]) for field in seen))
    controller = small_controller(task_info(3, 2), high_policy="softmax")
    pi = controller.agent.score_logits(graph_of(seen)).softmax(-1)[0, :, 1].detach().numpy()
    tasks = first_tasks(task_info(3, 2), many, test_mode=False, high_policy="softmax", random_assignment=0.0)
    assert tasks.mean(0) == pytest.approx(pi, abs=0.03)


class TableAgent(nn.Module):
    """One free logit per (agent, task), whatever the state."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(logits)

    def score_logits(self, graph: Any) -> Tensor:
        return self.table.expand(len(graph.agents), -1, -1)


def no_lp(logits: Tensor, values: Tensor) -> ChosenByEach:
    info = task_info(*logits.shape)
    learner = small_learner(
        small_controller(info, high_policy="softmax"), info, critic=lambda *dims: TableCritic(values)
    )
    assert isinstance(learner.high, ChosenByEach)
    learner.high.actor = TableAgent(logits)  # type: ignore[assignment]
    return learner.high


def test_no_lp_values_a_state_by_the_expected_choice_of_living_agents_among_living_tasks() -> None:
    high = no_lp(torch.tensor([[0.0, float(np.log(3.0))], [0.0, 0.0]]), torch.tensor([[4.0, 8.0], [2.0, 6.0]]))
    seen = random_state(3, 2, 2)
    seen.agent_alive[1, 1] = seen.task_alive[2, 0] = False
    assert high.state_value(seen).tolist() == pytest.approx([0.25 * 4 + 0.75 * 8 + 4.0, 7.0, 8.0 + 6.0])


def test_no_lp_climbs_to_the_better_task_of_each_living_agent() -> None:
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    high = no_lp(torch.zeros(3, 2), values)
    now = random_state(4, 3, 2)
    now.agent_alive[:, 2] = False
    batch = high_batch(now, now, torch.zeros(4, 3, dtype=torch.int64), torch.ones(4), torch.zeros(4))
    loss, _ = high.actor_loss(batch, values.expand(4, -1, -1), START)
    loss.backward()
    gradient = high.actor.table.grad  # type: ignore[union-attr,attr-defined]
    assert gradient[2].tolist() == [0.0, 0.0]
    assert (-gradient[:2].sign()).tolist() == [[1.0, -1.0], [-1.0, 1.0]]
    # A softmax at its middle: dJ/dlogit = pi (1 - pi) (A_0 - A_1), A centered and of spread 1.
    assert -gradient[0, 0].item() == pytest.approx(0.25 * 2.0, rel=1e-4)


def test_relabelled_tasks_are_living_ones() -> None:
    drawn = np.array([[0, 1, 2, 3], [0, 1, 2, 3], [3, 2, 1, 0]])
    alive = np.array([[True] * 4, [False, True, False, True], [False] * 4])
    assert living_task(drawn, alive).tolist() == [[0, 1, 2, 3], [1, 3, 1, 3], [3, 2, 1, 0]]
