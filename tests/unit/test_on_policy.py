"""On-policy batches: every new episode once, in order; n-step returns against loops; value statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.q_learning import INFO, episodes

from components.episode_buffer import ReplayBuffer, episode_fields
from controllers.base import Clock
from learners.on_policy import NewEpisodes, entropy_of, has_choice, parts_of
from learners.returns import n_step_returns
from modules.value_norm import ValueNorm

GAMMA = 0.9


def buffer(capacity: int) -> ReplayBuffer:
    fields = episode_fields(INFO, ("obs", "state", "avail_actions"), (), {})
    return ReplayBuffer(fields, capacity, INFO.episode_limit + 1, INFO.n_actions, np.random.default_rng(0))


def insert(into: ReplayBuffer, first: int, count: int) -> None:
    """Episodes that carry their number as their first reward."""
    batch = episodes([2 + (first + b) % 5 for b in range(count)], [True] * count)
    batch.data["reward"][:, 0, 0] = torch.arange(first, first + count).float()
    into.insert(batch)


def numbers(batch) -> list[int]:
    return batch["reward"][:, 0, 0].int().tolist()


def test_the_newest_episodes_come_oldest_first_also_around_the_end_of_the_storage() -> None:
    stored = buffer(7)
    insert(stored, 0, 5)
    assert numbers(stored.newest(3)) == [2, 3, 4]
    insert(stored, 5, 5)
    assert numbers(stored.newest(4)) == [6, 7, 8, 9]
    assert numbers(stored.newest(99)) == [3, 4, 5, 6, 7, 8, 9]
    newest = stored.newest(2)
    assert newest.max_seq_length == int(newest.lengths().max()) + 1
    assert len(stored.drawn) == 2


def test_every_episode_is_learned_from_once_and_not_before_there_are_enough() -> None:
    stored, new = buffer(8), NewEpisodes(at_least=4)
    taken: list[list[int] | None] = []
    seen = 0
    for count in (3, 2, 3, 1, 4):
        insert(stored, seen, count)
        seen += count
        batch = new.take(stored, Clock(0, seen, 1))
        taken.append(None if batch is None else numbers(batch))
    assert taken == [None, [0, 1, 2, 3, 4], None, [5, 6, 7, 8], [9, 10, 11, 12]]
    again = NewEpisodes(at_least=4)
    again.load_state_dict(new.state_dict())
    assert again.take(stored, Clock(0, seen, 1)) is None


@pytest.mark.parametrize(("count", "size"), [(10, 3), (10, 10), (3, 5), (9, 3), (1, 1)])
def test_parts_hold_everything_once_and_none_is_small(count: int, size: int) -> None:
    parts = list(parts_of(count, size, np.random.default_rng(0)))
    assert sorted(torch.cat(parts).tolist()) == list(range(count))
    assert all(min(size, count) <= len(part) < 2 * size for part in parts)


def brute_force(r: list[float], v: list[float], terminated: bool, n: int, t: int) -> float:
    """v[t] is V(s_{t+1})."""
    steps = min(n, len(r) - t)
    total = sum(GAMMA**k * r[t + k] for k in range(steps))
    ended = terminated and t + steps == len(r)
    return total if ended else total + GAMMA**steps * v[t + steps - 1]


@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_n_step_returns_with_an_end_at_every_position(n: int) -> None:
    generator = torch.Generator().manual_seed(3)
    lengths = [*range(1, 10), *range(1, 10)]
    ends = [True] * 9 + [False] * 9
    shape = (len(lengths), 9, 2)
    # Steps behind an episode's end hold junk, a termination flag among it.
    rewards, values = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    mask, terminated = torch.zeros(*shape[:2], 1), torch.ones(*shape[:2], 1)
    for b, (length, end) in enumerate(zip(lengths, ends, strict=True)):
        mask[b, :length] = 1.0
        terminated[b, :length] = 0.0
        terminated[b, length - 1] = float(end)
    returns = n_step_returns(rewards, values, terminated, mask, GAMMA, n)
    for b, (length, end) in enumerate(zip(lengths, ends, strict=True)):
        for k in range(2):
            r, v = rewards[b, :length, k].tolist(), values[b, :length, k].tolist()
            for t in range(length):
                assert float(returns[b, t, k]) == pytest.approx(brute_force(r, v, end, n, t), rel=1e-4, abs=1e-5)


def test_who_has_a_choice() -> None:
    avail = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 0]])
    assert has_choice(avail).tolist() == [0, 0, 1, 0]


def test_entropy() -> None:
    log_pi = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]).clamp(min=1e-38).log()
    log_pi[0, 2] = log_pi[1, 1:] = -1e10
    assert entropy_of(log_pi) == pytest.approx(torch.tensor([np.log(2), 0.0]))


def test_value_statistics_are_those_of_the_targets_under_the_mask() -> None:
    norm, generator = ValueNorm(), torch.Generator().manual_seed(0)
    before = torch.randn(4, 3, 1, generator=generator)
    assert torch.equal(norm.normalize(before), before)
    targets = 5.0 + 3.0 * torch.randn(200, 50, 1, generator=generator)
    mask = (torch.rand(targets.shape, generator=generator) < 0.5).float()
    junk = torch.where(mask > 0, targets, torch.full_like(targets, 1e4))
    norm.update(junk[:100], mask[:100])
    norm.update(junk[100:], mask[100:])
    inside = norm.normalize(targets)[mask > 0]
    assert float(inside.mean()) == pytest.approx(0.0, abs=0.01)
    assert float(inside.std()) == pytest.approx(1.0, abs=0.01)
    assert torch.allclose(norm.denormalize(norm.normalize(targets)), targets, atol=1e-4)


def test_constant_targets_are_not_blown_up() -> None:
    norm = ValueNorm()
    norm.update(torch.full((4, 5, 1), 7.0), torch.ones(4, 5, 1))
    assert norm.normalize(torch.tensor([7.0, 7.1])) == pytest.approx(torch.tensor([0.0, 1.0]), abs=1e-4)
