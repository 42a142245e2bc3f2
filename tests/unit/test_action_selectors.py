"""Greedy, epsilon-greedy and soft selection: always available, with the stated probabilities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from components.action_selectors import Array, epsilon_greedy, greedy, soft

DRAWS = 40_000
Selector = Callable[[Array, Array, float, np.random.Generator], Array]


def shares(select: Selector, values: list[float], avail: list[int], epsilon: float) -> Array:
    """How often each action is drawn, over many rows of one agent."""
    rows = np.broadcast_to(np.array(values, dtype=np.float32), (DRAWS, 1, len(values)))
    masks = np.broadcast_to(np.array(avail, dtype=np.int32), rows.shape)
    actions = select(rows, masks, epsilon, np.random.default_rng(1))
    assert actions.shape == (DRAWS, 1)
    return np.bincount(actions[:, 0], minlength=len(values)) / DRAWS


def test_greedy_takes_the_largest_available_value_and_the_lowest_index_on_ties() -> None:
    values = np.array([[[5.0, 1.0, 3.0], [2.0, 2.0, 1.0], [-9.0, -8.0, -7.0], [0.0, -1.0, 0.0]]])
    avail = np.array([[[0, 1, 1], [1, 1, 1], [1, 0, 0], [0, 1, 0]]])
    assert greedy(values, avail).tolist() == [[2, 0, 0, 1]]


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_epsilon_greedy_mixes_the_best_and_the_uniform_action(epsilon: float) -> None:
    found = shares(epsilon_greedy, [9.0, 1.0, 3.0, 2.0], [0, 1, 1, 1], epsilon)
    expected = [0.0, epsilon / 3, 1.0 - epsilon + epsilon / 3, epsilon / 3]
    assert found == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("epsilon", [0.0, 0.4, 1.0])
def test_soft_draws_from_the_softmax_mixed_with_uniform(epsilon: float) -> None:
    logits = np.array([5.0, 0.0, 1.0, -1.0])
    weights = np.exp(logits) * [0, 1, 1, 1]
    expected = (1.0 - epsilon) * weights / weights.sum() + epsilon * np.array([0, 1, 1, 1]) / 3
    assert shares(soft, logits.tolist(), [0, 1, 1, 1], epsilon) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("select", [epsilon_greedy, soft])
def test_an_unavailable_action_is_never_drawn(select: Selector) -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(500, 4, 6)).astype(np.float32) * 50.0
    avail = rng.random((500, 4, 6)) < 0.3
    avail[..., 5] |= ~avail.any(-1)
    for epsilon in (0.0, 0.5, 1.0):
        actions = select(values, avail, epsilon, rng)
        assert np.take_along_axis(avail, actions[..., None], -1).all()


@pytest.mark.parametrize("select", [epsilon_greedy, soft])
def test_agents_explore_independently(select: Selector) -> None:
    values = np.zeros((DRAWS, 2, 2), dtype=np.float32)
    actions = select(values, np.ones_like(values), 1.0, np.random.default_rng(3))
    joint = np.bincount(2 * actions[:, 0] + actions[:, 1], minlength=4) / DRAWS
    assert joint == pytest.approx([0.25] * 4, abs=0.01)
