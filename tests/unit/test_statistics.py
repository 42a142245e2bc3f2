"""Statistics over seeds: hand-worked values, rliable's numbers, and what must hold for any scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rliable_resamples import resamples

from reports.statistics import (
    bootstrap,
    improvement,
    iqm,
    mean,
    on_grid,
    probability_of_improvement,
    resampled_runs,
    standard_deviation,
)

GOLDEN = json.loads((Path(__file__).resolve().parents[1] / "golden" / "rliable.json").read_text())
STATISTICS = {"iqm": iqm, "mean": mean}
SHARES = st.integers(0, 50).map(lambda count: count / 50)
RUNS = st.lists(SHARES, min_size=1, max_size=8).map(np.array)
STRATA = st.lists(RUNS, min_size=1, max_size=3)


def golden_scores(name: str) -> list[np.ndarray]:
    return list(np.array(GOLDEN["scores"][name]).T)


def shape(strata: list[np.ndarray]) -> tuple[int, int]:
    return len(strata[0]), len(strata)


@pytest.mark.parametrize("name", GOLDEN["scores"])
@pytest.mark.parametrize("key", STATISTICS)
def test_estimate_and_interval_equal_those_of_rliable_on_the_same_resamples(name, key):
    strata, expected = golden_scores(name), GOLDEN["aggregates"][name][key]
    [indices] = resamples([shape(strata)], GOLDEN["repetitions"], GOLDEN["seed"])
    found = bootstrap(strata, STATISTICS[key], indices=indices)
    assert [found.value, found.low, found.high] == pytest.approx(
        [expected[k] for k in ("value", "low", "high")], abs=1e-12
    )


@pytest.mark.parametrize("expected", GOLDEN["improvement"])
def test_the_probability_of_improvement_equals_that_of_rliable(expected):
    x, y = golden_scores(expected["x"]), golden_scores(expected["y"])
    indices_x, indices_y = resamples([shape(x), shape(y)], GOLDEN["repetitions"], GOLDEN["seed"])
    found = improvement(x, y, indices=[*indices_x, *indices_y])
    assert [found.value, found.low, found.high] == pytest.approx(
        [expected[k] for k in ("value", "low", "high")], abs=1e-12
    )


def test_hand_worked_aggregates():
    scores = np.array([0.0, 1.0, 2.0, 6.0, 100.0])
    assert iqm([scores]) == pytest.approx(3.0)
    assert mean([scores]) == pytest.approx(21.8)
    assert iqm([scores[:3]]) == pytest.approx(1.0), "fewer than four: nothing is cut"
    assert iqm([np.array([0.0, 10.0]), np.array([1.0, 2.0])]) == pytest.approx(1.5), "pooled over environments"
    assert mean([np.array([0.0, 0.0, 0.0]), np.array([1.0])]) == pytest.approx(0.5), "each environment counts once"
    assert standard_deviation(np.array([1.0, 3.0])) == pytest.approx(2**0.5)
    assert np.isnan(standard_deviation(np.array([1.0])))


def test_hand_worked_probability_of_improvement():
    x, y = np.array([1.0, 2.0]), np.array([0.0, 2.0, 3.0])
    # Pairs won: 1>0, 2>0; tied: 2=2.
    assert probability_of_improvement([x], [y]) == pytest.approx(2.5 / 6)
    assert probability_of_improvement([x, x], [y, y - 10]) == pytest.approx((2.5 / 6 + 1) / 2)


@given(STRATA, st.randoms(use_true_random=False))
def test_estimates_do_not_depend_on_the_order_of_runs(strata, random):
    shuffled = [np.array(random.sample(list(scores), len(scores))) for scores in strata]
    for statistic in STATISTICS.values():
        assert statistic(shuffled) == pytest.approx(statistic(strata))


@given(SHARES, st.integers(1, 9))
def test_the_interval_of_equal_scores_is_a_point(value, runs):
    for statistic in STATISTICS.values():
        found = bootstrap([np.full(runs, value)], statistic, 50)
        assert [found.value, found.low, found.high] == pytest.approx([value] * 3)


@given(RUNS)
def test_the_interval_contains_the_estimate_and_lies_within_the_scores(scores):
    for statistic in STATISTICS.values():
        found = bootstrap([scores], statistic, 2000)
        assert scores.min() - 1e-9 <= found.low <= found.value + 1e-9
        assert found.value - 1e-9 <= found.high <= scores.max() + 1e-9


@given(STRATA, STRATA)
def test_improvement_over_each_other_sums_to_one(x, y):
    both = list(zip(x, y, strict=False))
    there = probability_of_improvement([a for a, _ in both], [b for _, b in both])
    back = probability_of_improvement([b for _, b in both], [a for a, _ in both])
    assert 0 <= there <= 1
    assert there + back == pytest.approx(1)


def test_runs_are_resampled_within_their_environment_only():
    # Each environment is constant: any resample that respects them gives the same mean.
    found = bootstrap([np.zeros(5), np.ones(5)], mean, 500)
    assert (found.low, found.value, found.high) == (0.5, 0.5, 0.5)
    pooled = bootstrap([np.concatenate([np.zeros(5), np.ones(5)])], mean, 500)
    assert pooled.low < 0.4


def test_the_same_seed_gives_the_same_interval_and_another_one_a_different():
    scores = [np.random.default_rng(0).normal(size=10)]
    first, again, other = (bootstrap(scores, mean, 200, seed=seed) for seed in (1, 1, 2))
    assert (first.low, first.high) == (again.low, again.high)
    assert (first.low, first.high) != (other.low, other.high)


def test_blocks_of_resamples_change_nothing(monkeypatch):
    scores = [np.random.default_rng(0).normal(size=(3, 7)), np.random.default_rng(1).normal(size=(3, 5))]
    whole = bootstrap(scores, iqm, 1000)
    monkeypatch.setattr("reports.statistics._BLOCK", 7)
    np.testing.assert_array_equal(bootstrap(scores, iqm, 1000).low, whole.low)


def test_five_runs_have_126_different_resamples():
    [indices] = resampled_runs([5], 20_000)
    assert len(np.unique(np.sort(indices, axis=1), axis=0)) == 126


def test_more_seeds_narrow_the_interval():
    scores = np.linspace(0, 1, 5)
    few, many = (bootstrap([np.tile(scores, times)], mean, 2000) for times in (1, 16))
    assert many.high - many.low == pytest.approx((few.high - few.low) / 4, rel=0.1)


@pytest.mark.parametrize("strata", [[], [np.array([])], [np.array([0.5, np.nan])]])
def test_scores_without_a_value_are_refused(strata):
    with pytest.raises(ValueError, match="finite"):
        bootstrap(strata, mean, 10)


def test_curves_meet_on_the_multiples_of_the_test_interval():
    steps, values = on_grid([[(0, 0.0), (120, 1.2), (205, 2.05)], [(0, 1.0), (210, 1.0)]], 100)
    np.testing.assert_array_equal(steps, [0, 100, 200])
    np.testing.assert_allclose(values, [[0, 1], [1, 1], [2, 1]])


def test_a_curve_is_not_extended_beyond_its_tests():
    steps, values = on_grid([[(0, 0.0), (300, 3.0)], [(110, 1.0), (200, 1.0), (320, np.nan)]], 100)
    np.testing.assert_array_equal(steps, [200])
    np.testing.assert_allclose(values, [[2, 1]])


def test_a_last_test_far_from_the_grid_is_kept():
    steps, values = on_grid([[(0, 0.0), (80, 0.8)], [(0, 0.0), (70, 0.7)]], 100)
    np.testing.assert_array_equal(steps, [0, 70])
    np.testing.assert_allclose(values[-1], 0.7)


@pytest.mark.parametrize("curves", [[], [[]], [[(0, 1.0)], [(5, np.nan)]], [[(0, 1.0), (10, 1.0)], [(20, 1.0)]]])
def test_curves_that_do_not_overlap_give_no_points(curves):
    steps, values = on_grid(curves, 10)
    assert len(steps) == len(values) == 0
