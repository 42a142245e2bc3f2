"""reports.statistics beside rliable; needs the environment of `make check-statistics`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

library = pytest.importorskip("rliable.library", reason="make check-statistics runs it")
metrics = pytest.importorskip("rliable.metrics")

from reference import SEED, STATISTICS, cases, interval, pairs, reference  # noqa: E402
from support.rliable_resamples import resamples  # noqa: E402

from reports.statistics import bootstrap, improvement, iqm, mean  # noqa: E402

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "rliable.json"
OURS = {"iqm": iqm, "mean": mean}
MANY = 20_000


def by_environment(scores: np.ndarray) -> list[np.ndarray]:
    return list(scores.T)


@pytest.mark.parametrize("name", cases())
@pytest.mark.parametrize("key", OURS)
def test_estimates_are_equal_and_intervals_too_on_the_same_resamples(name: str, key: str) -> None:
    scores = cases()[name]
    theirs = interval(scores, STATISTICS[key])
    [indices] = resamples([scores.shape], 500, SEED)
    ours = bootstrap(by_environment(scores), OURS[key], indices=indices)
    np.testing.assert_allclose([ours.value, ours.low, ours.high], list(theirs.values()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", cases())
@pytest.mark.parametrize("key", OURS)
def test_intervals_on_other_resamples_are_close(name: str, key: str) -> None:
    scores = cases()[name]
    theirs = interval(scores, STATISTICS[key], MANY)
    ours = bootstrap(by_environment(scores), OURS[key], MANY, seed=1)
    # Few seeds have few different resamples: the bounds may lie one of their steps apart.
    width = theirs["high"] - theirs["low"]
    np.testing.assert_allclose(
        [ours.low, ours.high], [theirs["low"], theirs["high"]], rtol=0, atol=0.06 * width + 1e-12
    )


@pytest.mark.parametrize("pair", pairs())
def test_the_probability_of_improvement_is_equal(pair: tuple[str, str]) -> None:
    x, y = (cases()[name] for name in pair)
    theirs = interval([x, y], metrics.probability_of_improvement)
    indices_x, indices_y = resamples([x.shape, y.shape], 500, SEED)
    ours = improvement(by_environment(x), by_environment(y), indices=[*indices_x, *indices_y])
    np.testing.assert_allclose([ours.value, ours.low, ours.high], list(theirs.values()), rtol=0, atol=1e-12)


def test_points_of_a_curve_have_the_interval_of_their_own_scores() -> None:
    # rliable draws anew at every point, we keep the seeds of a resample together: the same distribution per point.
    curves = np.random.default_rng(0).normal(size=(5, 1, 4)).cumsum(axis=2)
    np.random.seed(SEED)  # noqa: NPY002
    values, bounds = library.get_interval_estimates(
        {"a": curves},
        lambda scores: np.array([metrics.aggregate_iqm(scores[..., point]) for point in range(4)]),
        reps=MANY,
    )
    ours = bootstrap([curves[:, 0, :].T], iqm, MANY)
    np.testing.assert_allclose(ours.value, values["a"], rtol=0, atol=1e-12)
    width = (bounds["a"][1] - bounds["a"][0]).max()
    np.testing.assert_allclose([ours.low, ours.high], bounds["a"], rtol=0, atol=0.06 * width)


def test_the_golden_file_is_what_rliable_says() -> None:
    golden, now = json.loads(GOLDEN.read_text()), reference()
    assert golden["scores"] == now["scores"]
    assert numbers(golden) == pytest.approx(numbers(now), abs=1e-12)


def numbers(golden: dict[str, Any]) -> list[float]:
    found = [estimate for case in golden["aggregates"].values() for estimate in case.values()] + golden["improvement"]
    return [estimate[key] for estimate in found for key in ("value", "low", "high")]
