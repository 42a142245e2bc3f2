"""TD(lambda) targets and the segments of the high level against loops that follow the definitions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from learners.returns import n_step_returns, n_step_segments, segments, td_lambda_targets

GAMMA = 0.9


def forward_view(r: list[float], v: list[float], terminated: bool, gamma: float, lam: float, t: int) -> float:
    """Weighted mean of the n-step returns from t (Sutton and Barto 2018, eq. 12.3); v[t] is V(s_{t+1})."""
    horizon = len(r) - t
    total = 0.0
    for n in range(1, horizon + 1):
        n_step = sum(gamma**k * r[t + k] for k in range(n))
        if not (terminated and n == horizon):
            n_step += gamma**n * v[t + n - 1]
        weight = lam ** (n - 1) * (1.0 if n == horizon else 1.0 - lam)
        total += weight * n_step
    return total


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("per_agent", [1, 3])
def test_td_lambda_is_the_weighted_mean_of_n_step_returns(lam: float, per_agent: int) -> None:
    generator = torch.Generator().manual_seed(3)
    lengths, ends = [7, 4, 1, 7, 5, 1], [True, True, True, False, False, False]
    shape = (len(lengths), 7, per_agent)
    # Steps behind an episode's end hold junk, a termination flag among it.
    rewards, values = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    mask, terminated = torch.zeros(*shape[:2], 1), torch.ones(*shape[:2], 1)
    for b, (length, end) in enumerate(zip(lengths, ends, strict=True)):
        mask[b, :length] = 1.0
        terminated[b, :length] = 0.0
        terminated[b, length - 1] = float(end)
    targets = td_lambda_targets(rewards, values, terminated, mask, GAMMA, lam)
    for b, (length, end) in enumerate(zip(lengths, ends, strict=True)):
        for k in range(per_agent):
            r, v = rewards[b, :length, k].tolist(), values[b, :length, k].tolist()
            for t in range(length):
                expected = forward_view(r, v, end, GAMMA, lam, t)
                assert float(targets[b, t, k]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_more_steps_than_an_episode_has_are_its_whole_return_and_take_no_longer() -> None:
    generator = torch.Generator().manual_seed(4)
    rewards, values = torch.randn(2, 5, 1, generator=generator), torch.randn(2, 5, 1, generator=generator)
    mask = torch.tensor([[1.0] * 5, [1.0, 1.0, 1.0, 0.0, 0.0]]).unsqueeze(-1)
    terminated = torch.zeros(2, 5, 1)
    terminated[1, 2] = 1.0
    found = n_step_returns(rewards, values, terminated, mask, GAMMA, 10**18)
    assert torch.equal(found, n_step_returns(rewards, values, terminated, mask, GAMMA, 5))
    expected = forward_view(rewards[1, :3, 0].tolist(), values[1, :3, 0].tolist(), True, GAMMA, 1.0, 0)
    assert float(found[1, 0, 0]) == pytest.approx(expected, rel=1e-5)


def test_td_lambda_does_not_write_into_its_inputs() -> None:
    rewards, values = torch.ones(1, 3, 1), torch.ones(1, 3, 1)
    td_lambda_targets(rewards, values, torch.zeros(1, 3, 1), torch.ones(1, 3, 1), GAMMA, 0.6)
    assert torch.equal(rewards, torch.ones(1, 3, 1))
    assert torch.equal(values, torch.ones(1, 3, 1))


Row = tuple[int, int, int, float, float]


def cut_by_loop(rewards: Tensor, decide: Tensor, lengths: Tensor, gamma: float) -> list[Row]:
    """(episode, start, end, R, gamma^tau or 0) of every decision, step by step."""
    rows = []
    for b, length in enumerate(lengths.tolist()):
        starts = [t for t in range(length) if decide[b, t]]
        for start, end in zip(starts, [*starts[1:], length], strict=True):
            ret = sum(gamma ** (u - start) * float(rewards[b, u]) for u in range(start, end))
            rows.append((b, start, end, ret, 0.0 if end == length else gamma ** (end - start)))
    return rows


def check_segments(rewards: Tensor, decide: Tensor, lengths: Tensor, gamma: float) -> list[Row]:
    cut = segments(rewards, decide, lengths, gamma)
    rows = list(zip(*(field.tolist() for field in cut), strict=True))
    expected = cut_by_loop(rewards, decide, lengths, gamma)
    assert [row[:3] for row in rows] == [row[:3] for row in expected]
    for row, wanted in zip(rows, expected, strict=True):
        assert row[3:] == pytest.approx(wanted[3:], rel=1e-5, abs=1e-6)
    return expected


def test_segments_of_decisions_at_0_4_9_with_end_13() -> None:
    rewards = torch.arange(1.0, 17.0).unsqueeze(0)
    decide = torch.zeros(1, 16)
    decide[0, [0, 4, 9]] = 1
    rows = check_segments(rewards, decide, torch.tensor([13]), GAMMA)
    assert [(start, end) for _, start, end, _, _ in rows] == [(0, 4), (4, 9), (9, 13)]
    assert [end - start for _, start, end, _, _ in rows] == [4, 5, 4]
    # The deadline ends the last segment: no future at the high level, terminated or not.
    assert [row[4] for row in rows] == pytest.approx([GAMMA**4, GAMMA**5, 0.0])


@pytest.mark.parametrize("gamma", [1.0, 0.9, 0.3, 0.0])
def test_segments_of_random_decisions(gamma: float) -> None:
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(1, 21, (40,), generator=generator)
    rewards = torch.randn((40, 21), generator=generator)
    # Decisions and rewards behind the end are junk and count for nothing.
    decide = (torch.rand((40, 21), generator=generator) < 0.3).to(torch.uint8)
    decide[:, 0] = 1
    check_segments(rewards, decide, lengths, gamma)


def test_segments_stay_exact_late_in_long_episodes() -> None:
    decide = torch.zeros(1, 1000)
    decide[0, ::10] = 1
    check_segments(torch.ones(1, 1000), decide, torch.tensor([995]), 0.9)


def test_segments_of_an_episode_without_decisions_are_none() -> None:
    assert segments(torch.ones(1, 5), torch.zeros(1, 5), torch.tensor([4]), GAMMA).start.numel() == 0


def test_n_step_segments_add_up_what_follows_until_the_episode_ends() -> None:
    rewards = torch.arange(1.0, 17.0).expand(2, -1)
    decide = torch.zeros(2, 16)
    decide[0, [0, 4, 9]] = 1
    decide[1, [0, 2]] = 1
    one = segments(rewards, decide, torch.tensor([13, 3]), GAMMA)
    two = n_step_segments(one, 2)

    def earned(start: int, end: int) -> float:
        return sum(GAMMA ** (t - start) * (t + 1) for t in range(start, end))

    assert two.start.tolist() == [0, 4, 9, 0, 2]
    # The last decision of an episode knows nothing of the next episode in the batch.
    assert two.end.tolist() == [9, 13, 13, 3, 3]
    assert two.ret.tolist() == pytest.approx([earned(0, 9), earned(4, 13), earned(9, 13), earned(0, 3), earned(2, 3)])
    assert two.discount.tolist() == pytest.approx([GAMMA**9, 0.0, 0.0, 0.0, 0.0])


def test_n_step_segments_of_one_step_are_the_segments_and_of_many_steps_whole_returns() -> None:
    generator = torch.Generator().manual_seed(6)
    lengths = torch.randint(1, 21, (40,), generator=generator)
    rewards = torch.randn((40, 21), generator=generator)
    decide = (torch.rand((40, 21), generator=generator) < 0.3).to(torch.uint8)
    one = segments(rewards, decide, lengths, 0.9)
    assert all(torch.equal(a, b) for a, b in zip(n_step_segments(one, 1), one, strict=True))
    whole = n_step_segments(one, 25)
    for row, start, end, ret, discount in zip(*(field.tolist() for field in whole), strict=True):
        length = int(lengths[row])
        assert (end, discount) == (length, 0.0)
        assert ret == pytest.approx(
            sum(0.9 ** (t - start) * rewards[row, t].item() for t in range(start, length)), abs=1e-5
        )
    none = segments(torch.ones(1, 5), torch.zeros(1, 5), torch.tensor([4]), GAMMA)
    assert n_step_segments(none, 3).start.numel() == 0
