"""LPMARL's losses and targets: group critic, high critic, next values, relabelling, the gate, and empty cases."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from support.small_runs import EARLY, play, small_parts, start_clock
from support.task_states import (
    TableCritic,
    graph_of,
    high_batch,
    low_batch,
    random_state,
    small_controller,
    small_learner,
    task_info,
)
from torch import Tensor

from components.episode_buffer import EpisodeBatch
from controllers.base import Clock
from controllers.task_structure import Observed
from learners.base import step
from learners.lpmarl_batches import HighBatch, LowBatch
from learners.lpmarl_learner import LpmarlLearner
from learners.returns import td_lambda_targets
from modules.assignment import make_problem, solve
from modules.mixers.vdn import VDNMixer
from parts import Parts

S, N, M = 6, 3, 3
GAMMA = 0.95


def group_learner(low_target: str = "double_q") -> LpmarlLearner:
    info = task_info(N, M, sight=0.5)
    learner = small_learner(small_controller(info), info, gamma_low=GAMMA, low_target=low_target)
    generator = torch.Generator().manual_seed(4)
    for p in learner.target.parameters():
        p.add_(torch.randn(p.shape, generator=generator), alpha=0.1)
    return learner


def next_values(learner: LpmarlLearner, low: LowBatch, low_target: str) -> Tensor:
    """[S, N] value of the next state, agent by agent and over the available actions only."""
    ahead = graph_of(low.after)
    online, target = (critic.low_values(ahead, low.assign) for critic in (learner.critic, learner.target))
    logits = learner.actor.logits(learner.controller.in_sight(ahead), low.assign)
    found = torch.zeros(S, N)
    for s in range(S):
        for i in range(N):
            may = low.avail_after[s, i] > 0
            best = online[s, i][may].argmax()
            q = target[s, i][may]
            found[s, i] = {"policy": logits[s, i][may].softmax(0) @ q, "double_q": q[best], "max": q.max()}[low_target]
    return found


def taken_and_targets(
    learner: LpmarlLearner, low: LowBatch, low_target: str, mix: VDNMixer | None
) -> tuple[Tensor, Tensor]:
    """Chosen values and targets [S, 1 or N], by the library of the Q-learner."""
    chosen = learner.critic.low_values(low.graph, low.assign).gather(-1, low.actions.unsqueeze(-1)).squeeze(-1)
    with torch.no_grad():
        future = next_values(learner, low, low_target)
    reward = low.reward
    if mix is not None:
        chosen, future, reward = mix(chosen, None), mix(future, None), mix(reward, None)
    ones = torch.ones(S, 1, 1)
    targets = td_lambda_targets(reward.unsqueeze(1), future.unsqueeze(1), 0 * ones, ones, GAMMA, 0.0).squeeze(1)
    return chosen, targets


@pytest.mark.parametrize("low_target", ["policy", "double_q", "max"])
@pytest.mark.parametrize("together", [True, False])
def test_group_critic_is_vdn_for_one_group_and_independent_learning_for_single_agents(
    together: bool, low_target: str
) -> None:
    learner = group_learner(low_target)
    assign = torch.ones(S, N, dtype=torch.int64) if together else torch.tensor([2, 0, 1]).expand(S, N)
    low = low_batch(random_state(S, N, M), random_state(S, N, M, seed=1), assign)
    _, loss, _ = learner.low_critic_loss(low)
    chosen, targets = taken_and_targets(learner, low, low_target, VDNMixer(N, 0, 0) if together else None)
    reference = (chosen - targets).square().mean()
    parameters = list(learner.critic.low.parameters())
    assert float(loss.detach()) == pytest.approx(float(reference.detach()), rel=1e-5)
    gradients = zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(reference, parameters), strict=True)
    assert all(torch.allclose(found, wanted, rtol=1e-4, atol=1e-6) for found, wanted in gradients)


def test_a_dead_agent_leaves_its_group() -> None:
    learner = group_learner()
    now, after = random_state(S, N, M), random_state(S, N, M, seed=1)
    now.agent_alive[:, 1] = after.agent_alive[:, 1] = False
    low = low_batch(now, after, torch.tensor([0, 0, 2]).expand(S, N))
    other = low._replace(reward=low.reward.index_fill(1, torch.tensor([1]), 100.0))
    assert torch.equal(learner.low_critic_loss(low)[1], learner.low_critic_loss(other)[1])


@pytest.mark.parametrize("ends", ["task_alive", "agent_alive"])
def test_a_dead_agent_and_one_without_a_task_have_no_future(ends: str) -> None:
    learner = group_learner()
    now, after = random_state(S, N, M), random_state(S, N, M, seed=1)
    getattr(after, ends)[:] = False
    low = low_batch(now, after, torch.tensor([2, 0, 1]).expand(S, N))
    expected = low.reward.mean()
    assert float(learner.low_critic_loss(low)[2]["low_target_mean"]) == pytest.approx(float(expected), rel=1e-5)


def test_an_agent_whose_task_ended_goes_on_with_the_next() -> None:
    learner = group_learner()
    now, after = random_state(S, N, M), random_state(S, N, M, seed=1)
    after.task_alive[:, 2] = False
    first, second = torch.tensor([2, 0, 2]).expand(S, N), torch.tensor([1, 0, 0]).expand(S, N)
    low = low_batch(now, after, first)._replace(next_assign=second)
    with torch.no_grad():
        future = learner._low_state_value(low_batch(now, after, second), graph_of(after))
    expected = (low.reward + GAMMA * future).sum(1).mean() / M
    assert float(learner.low_critic_loss(low)[2]["low_target_mean"]) == pytest.approx(float(expected), rel=1e-5)


def table_learner(values: Tensor, high_target: str = "feasible_max", **options: float) -> LpmarlLearner:
    info = task_info(*values.shape)
    return small_learner(
        small_controller(info), info, lambda *dims: TableCritic(values), high_target=high_target, **options
    )


def with_capacity(s: int, n: int, capacity: list[int]) -> Observed:
    return random_state(s, n, len(capacity))._replace(capacity=torch.tensor(capacity).expand(s, -1))


def test_high_critic_regresses_all_assignments_of_3_agents_to_3_tasks() -> None:
    learner = table_learner(torch.zeros(3, 3), high_critic_lr=0.05)
    assign = torch.tensor(list(permutations(range(3))))
    ret = (assign == torch.arange(3)).all(1).float()
    seen = with_capacity(6, 3, [1, 1, 1])
    high = high_batch(seen, seen, assign, ret, torch.zeros(6))
    for _ in range(500):
        step(learner.optimizers["high_critic"], learner.high.critic_loss(high)[1], 10.0)
    table = learner.high.critic_loss(high)[0][0]
    total = table[torch.arange(3), assign].sum(1)
    # Identity; then the number of agents that each assignment places as the identity does: 1 or 0.
    same = (assign == torch.arange(3)).sum(1).tolist()
    assert total.tolist() == pytest.approx([{3: 5 / 6, 1: 1 / 6, 0: -1 / 6}[k] for k in same], abs=1e-3)
    assert solve(make_problem(table[None].numpy(), [1, 1, 1]), "auto").index.tolist() == [[0, 1, 2]]
    learner.target.load_state_dict(learner.critic.state_dict())
    assert learner.high.state_value(seen).tolist() == pytest.approx([5 / 6] * 6, abs=1e-3)


def test_high_critic_bootstraps_with_the_discount_of_the_segment() -> None:
    learner = table_learner(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    seen = with_capacity(2, 2, [1, 1])
    assign = torch.tensor([[0, 1], [1, 0]])
    high = high_batch(seen, seen, assign, torch.tensor([0.5, 0.5]), torch.tensor([0.9**4, 0.0]))
    _, loss, metrics = learner.high.critic_loss(high)
    targets = [0.5 + 0.9**4 * 3.0, 0.5]
    assert float(metrics["high_target_mean"]) == pytest.approx(sum(targets) / 2)
    assert float(loss.detach()) == pytest.approx(((3.0 - targets[0]) ** 2 + (0.0 - targets[1]) ** 2) / 2)


def test_the_final_state_needs_no_places() -> None:
    learner = table_learner(torch.eye(2))
    seen = with_capacity(2, 2, [1, 1])
    final = seen._replace(capacity=torch.tensor([[1, 1], [0, 1]]))
    high = high_batch(seen, final, torch.tensor([[0, 1], [0, 1]]), torch.ones(2), torch.tensor([0.5, 0.0]))
    assert float(learner.high.critic_loss(high)[2]["high_target_mean"]) == pytest.approx((1.0 + 0.5 * 2.0 + 1.0) / 2)
    ended = high._replace(after=final._replace(capacity=torch.zeros(2, 2)), discount=torch.zeros(2))
    assert float(learner.high.critic_loss(ended)[2]["high_target_mean"]) == 1.0


@pytest.mark.parametrize(("target", "value"), [("per_agent_max", 2.0), ("feasible_max", 1.0), ("actor", 1.0)])
def test_next_value_of_two_agents_that_want_the_same_place(target: str, value: float) -> None:
    learner = table_learner(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), target)
    assert learner.high.state_value(with_capacity(2, 2, [1, 1])).tolist() == [value, value]


@pytest.mark.parametrize(("target", "value"), [("per_agent_max", 3.0), ("feasible_max", 3.0), ("actor", 3.0)])
def test_next_value_counts_living_agents_on_living_tasks(target: str, value: float) -> None:
    learner = table_learner(torch.tensor([[9.0, 3.0], [8.0, 7.0]]), target)
    seen = with_capacity(1, 2, [2, 2])
    seen.task_alive[0, 0] = seen.agent_alive[0, 1] = False
    assert learner.high.state_value(seen).tolist() == [value]


def all_losses(learner: LpmarlLearner, now: Observed, after: Observed) -> list[Tensor]:
    s, n = now.agent_alive.shape
    assign = torch.arange(n).expand(s, n) % now.task_alive.shape[1]
    low = low_batch(now, after, assign)
    values, low_critic, _ = learner.low_critic_loss(low)
    high: HighBatch = high_batch(now, after, assign, torch.ones(s), torch.full((s,), 0.5))
    high_values, high_critic, _ = learner.high.critic_loss(high)
    low_actor, _ = learner.low_actor_loss(low, values)
    high_actor, metrics = learner.high.actor_loss(high, high_values, Clock(0, 0, 1))
    assert all(math.isfinite(value) for value in metrics.values())
    return [low_critic, high_critic, low_actor, high_actor]


CASES = {
    "no agent of a group": ([False, True, True], [True, True, True]),
    "no agent": ([False, False, False], [True, True, True]),
    "no task": ([True, True, True], [False, False, False]),
    "nobody": ([False, False, False], [False, False, False]),
    "one task": ([True, True, True], [True]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("high_target", ["feasible_max", "per_agent_max", "actor"])
def test_losses_and_gradients_stay_finite(case: str, high_target: str) -> None:
    agents, tasks = CASES[case]
    info = task_info(3, len(tasks))
    learner = small_learner(small_controller(info), info, high_target=high_target)
    now, after = random_state(S, 3, len(tasks)), random_state(S, 3, len(tasks), seed=1)
    # The first half of the batch is the odd case throughout, the second half from the next step on.
    now.agent_alive[: S // 2], now.task_alive[: S // 2] = torch.tensor(agents), torch.tensor(tasks)
    after.agent_alive[:], after.task_alive[:] = torch.tensor(agents), torch.tensor(tasks)
    for start in (now, after):
        for loss in all_losses(learner, start, after):
            assert torch.isfinite(loss)
            parameters = [*learner.actor.parameters(), *learner.critic.parameters()]
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            assert all(torch.isfinite(g).all() for g in gradients if g is not None)


def lpmarl_run(*overrides: str) -> tuple[Parts, LpmarlLearner]:
    parts = small_parts("lpmarl", "constrained_navigation", *EARLY["lpmarl_learner"], *overrides)
    assert isinstance(parts.learner, LpmarlLearner)
    return parts, parts.learner


def insert_changed(parts: Parts, name: str, values: Tensor | float) -> EpisodeBatch:
    """Collects episodes, overwrites one field and stores them."""
    batch = parts.train.collect(start_clock()).batch
    batch.data[name][:] = values
    parts.buffer.insert(batch)
    return batch


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_the_scores_are_taught_only_when_the_batch_holds_a_success(reward: float) -> None:
    parts, learner = lpmarl_run("w_start=0.5")
    insert_changed(parts, "reward_high", reward)
    before = [p.clone() for p in learner.actor.cost_head.parameters()]
    metrics = learner.update(parts.buffer, Clock(200, 4, 100_000))
    assert metrics is not None
    assert ("high_actor_loss" in metrics) == (reward > 0)
    moved = any(not torch.equal(a, b) for a, b in zip(before, learner.actor.cost_head.parameters(), strict=True))
    assert moved == (reward > 0)


@pytest.mark.parametrize("relabel", [0.0, 1.0])
def test_relabelled_agents_earn_what_their_new_task_pays(relabel: float) -> None:
    parts, learner = lpmarl_run(f"relabel={relabel}", "low_reward_scale=0.5", "batch_size_low=512")
    codes = 10.0 * torch.arange(5.0).unsqueeze(1) + torch.arange(3.0)
    parts.buffer.insert(insert_changed(parts, "task_reward", codes))
    low = learner._sample_low(parts.buffer)
    assert torch.equal(low.reward, 0.5 * (10.0 * torch.arange(5) + low.assign))
    # Random tasks ignore the capacities, which sum to N: some landmark is overfull in most of the states.
    count = torch.nn.functional.one_hot(low.assign, 3).sum(1)
    overfull = (count > low.now.capacity).any(1).float().mean()
    assert (overfull > 0.5) == (relabel == 1.0)
    assert (overfull == 0.0) == (relabel == 0.0)


@pytest.mark.parametrize(("next_task", "relabel"), [("kept", 0.0), ("given", 0.0), ("given", 1.0)])
def test_what_comes_next_is_valued_for_the_task_that_the_agent_goes_on_with(next_task: str, relabel: float) -> None:
    limit = 6
    parts, learner = lpmarl_run(f"low_next_task={next_task}", f"relabel={relabel}", f"env_args.episode_limit={limit}")
    batch = parts.train.collect(start_clock()).batch
    steps = torch.arange(limit + 1).view(1, -1, 1, 1)
    # In turn, with the step as reward; nobody decides in the last state, where the field holds 0.
    batch.data["assign"][:] = (steps % 3) * (steps < limit)
    batch.data["task_reward"][:] = steps
    parts.buffer.insert(batch)
    low = learner._sample_low(parts.buffer)
    step = (low.reward / learner.options.low_reward_scale).round().long()
    last = step == (batch.lengths().max() - 1)
    assert batch.lengths().min() == limit
    assert last.any()
    if relabel:
        assert torch.equal(low.next_assign, low.assign)
    else:
        assert torch.equal(low.assign, step % 3)
        follows = (next_task == "given") & ~last
        assert torch.equal(low.next_assign, torch.where(follows, (step + 1) % 3, low.assign))


def test_the_actor_learns_the_low_level_alone_with_a_fixed_assignment_rule() -> None:
    parts, learner = lpmarl_run("high_policy=lp_distance")
    before = [p.clone() for p in learner.actor.cost_head.parameters()]
    _, logged = play(parts, start_clock(), 2)
    assert logged[-1] is not None
    assert "high_critic_loss" not in logged[-1]
    assert all(torch.equal(a, b) for a, b in zip(before, learner.actor.cost_head.parameters(), strict=True))
