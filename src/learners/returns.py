"""Returns and targets as pure functions.

Shape legend: B episodes, T transitions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def td_lambda_targets(
    rewards: Tensor, next_values: Tensor, terminated: Tensor, mask: Tensor, gamma: float, td_lambda: float
) -> Tensor:
    """TD(lambda) targets (Sutton and Barto 2018, eq. 12.18).

    y_t = r_t + gamma (1 - terminated_t) ((1 - lambda) V_{t+1} + lambda y_{t+1}),
    and y_t = r_t + gamma (1 - terminated_t) V_{t+1} where t is the episode's last transition (time limit).

    Args:
        rewards: [B, T, K], K = 1 for a team, N for independent agents.
        next_values: [B, T, K], V_{t+1}.
        terminated: [B, T, 1], 1 where the task ended the episode.
        mask: [B, T, 1], 1 where t is a transition.
        gamma: discount.
        td_lambda: 0 gives one-step targets, 1 Monte-Carlo returns.
    """
    discount = gamma * (1.0 - terminated)
    one_step = rewards + discount * next_values
    if td_lambda == 0.0:
        return one_step
    targets = one_step.clone()
    for t in range(rewards.shape[1] - 2, -1, -1):
        follows = td_lambda * mask[:, t + 1]
        targets[:, t] += discount[:, t] * follows * (targets[:, t + 1] - next_values[:, t])
    return targets


def n_step_returns(
    rewards: Tensor, next_values: Tensor, terminated: Tensor, mask: Tensor, gamma: float, n: int
) -> Tensor:
    """R_t = r_t + ... + gamma^(m-1) r_{t+m-1} + gamma^m V_{t+m}, m = n or what is left of the episode.

    No value follows where the task ended the episode within these m steps; it does at a time limit.
    Arguments and shapes as :func:`td_lambda_targets`.
    """
    discount = gamma * (1.0 - terminated)
    returns = rewards + discount * next_values
    follows = mask[:, 1:] > 0
    for _ in range(min(n, rewards.shape[1]) - 1):  # nothing is left to add after as many steps as there are
        after = torch.where(follows, returns[:, 1:], next_values[:, :-1])
        returns = rewards + discount * torch.cat([after, next_values[:, -1:]], 1)
    return returns


class Segments(NamedTuple):
    """The stretch from each decision to the next, flat over all decisions of a batch (K of them).

    Attributes:
        episode: [K] row in the batch.
        start: [K] step of the decision.
        end: [K] step of the next decision, or the step after the last transition.
        ret: [K] R_d = sum_u gamma^(u - start) r_u over the segment.
        discount: [K] gamma^tau, 0 where the episode ends with the segment, also at a time limit.
    """

    episode: Tensor
    start: Tensor
    end: Tensor
    ret: Tensor
    discount: Tensor


def segments(rewards: Tensor, decide: Tensor, lengths: Tensor, gamma: float) -> Segments:
    """Cuts episodes at their decisions (semi-MDP, eqs. 13 and 14).

    Missing the deadline is failure, so a time limit is terminal at this level.

    Args:
        rewards: [B, T] rewards of each step.
        decide: [B, T] 1 where a decision was made.
        lengths: [B] transitions of each episode.
        gamma: discount per step.
    """
    steps = torch.arange(rewards.shape[1], device=rewards.device)
    valid = steps < lengths.unsqueeze(1)
    is_decision = decide.bool() & valid
    # Step of the first decision after t, scanning backwards; the episode's length where there is none.
    marks = torch.where(is_decision, steps, lengths.unsqueeze(1))
    after = torch.cat([marks[:, 1:], lengths.unsqueeze(1)], 1).flip(1).cummin(1).values.flip(1)
    # Discounting anew from each decision keeps late segments exact: a segment's return is a difference of two sums.
    since = steps - torch.where(is_decision, steps, 0).cummax(1).values
    sums = torch.cumsum(rewards.double() * gamma ** since.to(torch.float64) * valid, 1)
    before = torch.cat([torch.zeros_like(sums[:, :1]), sums], 1)
    episode, start = torch.nonzero(is_decision, as_tuple=True)
    end = after[episode, start]
    ret = before[episode, end] - before[episode, start]
    discount = (gamma ** (end - start).to(torch.float64)) * (end < lengths[episode])
    return Segments(episode, start, end, ret.float(), discount.float())


def n_step_segments(cut: Segments, n: int) -> Segments:
    """The stretch from each decision to the n-th after it, or to the end of the episode.

    The policy's own later decisions are in it as they were made: no correction for what it would do now.
    """
    ret, discount, end = cut.ret, cut.discount, cut.end
    # Decisions are in order, so that the next row is the next decision wherever the episode goes on.
    goes_on = cut.discount > 0
    following = (torch.arange(len(end), device=end.device) + 1).clamp(max=max(len(end) - 1, 0))
    for _ in range(min(n, len(end)) - 1):
        ret = torch.where(goes_on, cut.ret + cut.discount * ret[following], cut.ret)
        end = torch.where(goes_on, end[following], cut.end)
        discount = torch.where(goes_on, cut.discount * discount[following], cut.discount)
    return cut._replace(ret=ret, discount=discount, end=end)
