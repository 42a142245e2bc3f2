"""The resamples that rliable draws from NumPy's global generator, in the form of reports.statistics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def resamples(shapes: Sequence[tuple[int, ...]], repetitions: int, seed: int) -> list[list[np.ndarray]]:
    """Indices of resampled runs.

    Args:
        shapes: [runs, environments] of each algorithm.
        repetitions: resamples.
        seed: of the global generator before the first one.

    Returns:
        For each algorithm one array [repetitions, runs] per environment.
    """
    state = np.random.RandomState(seed)
    drawn = [[state.choice(shape[0], shape, replace=True) for shape in shapes] for _ in range(repetitions)]
    stacked = [np.stack(found) for found in zip(*drawn, strict=True)]
    return [[found[:, :, task] for task in range(found.shape[2])] for found in stacked]
