"""Statistics over seeds: aggregates, stratified percentile bootstrap, probability of improvement, curves.

One value per run: the mean over its test episodes. Episodes are never resampled, since those of one trained policy
say nothing about the next training. Scores come as strata, one array [..., n] per environment with its n runs last;
runs are resampled with replacement within each environment. The conventions are those of rliable (Agarwal et al. 2021,
"Deep Reinforcement Learning at the Edge of the Statistical Precipice"); tests/rliable compares.

n runs have only C(2n - 1, n) different resamples, 126 for five: intervals of few seeds are coarse and too narrow
(docs/statistics.md has measured coverages), and more repetitions do not help.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Strata = Sequence[FloatArray]
Statistic = Callable[[Strata], FloatArray]

CONFIDENCE = 0.95
REPETITIONS = 50_000
CURVE_REPETITIONS = 2_000  # per point of a curve, where a pixel is all that can be seen
SEED = 0
_BLOCK = 2_000  # resamples at a time, for the memory's sake


@dataclass(frozen=True)
class Estimate:
    """A statistic with its interval; arrays of one shape, that of the leading dimensions of the scores."""

    value: FloatArray
    low: FloatArray
    high: FloatArray


def mean(strata: Strata) -> FloatArray:
    """Mean over environments of the mean over runs: [..., n] each -> [...]."""
    return np.mean([scores.mean(axis=-1) for scores in strata], axis=0)


def iqm(strata: Strata) -> FloatArray:
    """Interquartile mean of all runs of all environments together: [..., n] each -> [...].

    The floor(n / 4) smallest and as many largest values are left out; of five runs, one each.
    """
    pooled = np.sort(np.concatenate(list(strata), axis=-1), axis=-1)
    cut = pooled.shape[-1] // 4
    return pooled[..., cut : pooled.shape[-1] - cut].mean(axis=-1)


def standard_deviation(scores: FloatArray) -> FloatArray:
    """Sample standard deviation (n - 1) over the runs, [..., n] -> [...]; NaN for a single run."""
    if scores.shape[-1] < 2:
        return np.full(scores.shape[:-1], np.nan)
    return scores.std(axis=-1, ddof=1)


def probability_of_improvement(x: Strata, y: Strata) -> FloatArray:
    """Probability that a run of x has a larger value than one of y, mean over environments.

    Over all pairs within an environment, a tie counting as half (Mann-Whitney's U over the number of pairs).

    Args:
        x: one array [..., n] per environment.
        y: one array [..., m] per environment, in the same order.
    """
    pairs = [(a[..., :, None], b[..., None, :]) for a, b in zip(x, y, strict=True)]
    return np.mean([((a > b) + 0.5 * (a == b)).mean(axis=(-2, -1)) for a, b in pairs], axis=0)


def resampled_runs(sizes: Sequence[int], repetitions: int, seed: int = SEED) -> list[NDArray[np.int64]]:
    """Indices of the runs in each resample, drawn with replacement: one array [repetitions, n] per stratum."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, size, (repetitions, size)) for size in sizes]


def bootstrap(
    strata: Strata,
    statistic: Statistic,
    repetitions: int = REPETITIONS,
    seed: int = SEED,
    confidence: float = CONFIDENCE,
    indices: Sequence[NDArray[Any]] | None = None,
) -> Estimate:
    """A statistic and its percentile interval (linear quantiles of the resampled statistic).

    Args:
        strata: one array [..., n] per environment; leading dimensions, such as the points of a curve, share the
            resampled runs.
        statistic: reduces the last dimension of every stratum.
        repetitions: resamples.
        seed: of the resamples: the same seed, scores and order give the same interval.
        confidence: coverage that is asked for.
        indices: the resamples, instead of drawing them.

    Raises:
        ValueError: an environment without runs, or scores that are not finite.
    """
    if not strata or any(scores.shape[-1] == 0 or not np.isfinite(scores).all() for scores in strata):
        raise ValueError("every environment needs at least one run, and every run a finite score")
    if indices is None:
        indices = resampled_runs([scores.shape[-1] for scores in strata], repetitions, seed)
    resampled = np.concatenate(
        [
            statistic(
                [scores[..., chosen[start : start + _BLOCK]] for scores, chosen in zip(strata, indices, strict=True)]
            )
            for start in range(0, len(indices[0]), _BLOCK)
        ],
        axis=-1,
    )
    outside = (1.0 - confidence) / 2.0
    low, high = np.quantile(resampled, [outside, 1.0 - outside], axis=-1)
    return Estimate(statistic(strata), low, high)


def improvement(x: Strata, y: Strata, **options: Any) -> Estimate:
    """:func:`probability_of_improvement` with its interval; the runs of x and of y are resampled independently.

    Args:
        x: one array [..., n] per environment.
        y: one array [..., m] per environment, in the same order.
        options: those of :func:`bootstrap`; ``indices`` are those of x, then those of y.
    """
    return bootstrap([*x, *y], lambda both: probability_of_improvement(both[: len(x)], both[len(x) :]), **options)


def on_grid(curves: Sequence[Sequence[tuple[int, float]]], spacing: int) -> tuple[NDArray[np.int64], FloatArray]:
    """Curves of several seeds at common environment steps.

    Args:
        curves: one list of (environment steps, value) per seed, in order of steps; entries that are not finite are
            left out.
        spacing: environment steps between two points, > 0; the test interval keeps as many points as were measured.

    Returns:
        The multiples of ``spacing`` [P] that lie within every curve, then the common end where it lies far from the
        last of them; and the values [P, n], linear between two tests. P is 0 where the curves do not overlap.
    """
    points = [np.array([(t, value) for t, value in curve if np.isfinite(value)]) for curve in curves]
    if not points or any(len(found) == 0 for found in points):
        return np.empty(0, np.int64), np.empty((0, len(points)))
    first, last = max(found[0, 0] for found in points), min(found[-1, 0] for found in points)
    grid = np.arange(np.ceil(first / spacing) * spacing, last + 1, spacing)
    if first <= last and (len(grid) == 0 or last - grid[-1] > spacing / 2):
        grid = np.append(grid, last)
    values = np.array([np.interp(grid, found[:, 0], found[:, 1]) for found in points]).T
    return grid.astype(np.int64), values.reshape(len(grid), len(points))
