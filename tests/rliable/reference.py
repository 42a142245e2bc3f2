"""What rliable says of fixed scores: the numbers of tests/golden/rliable.json.

    .venv-rliable/bin/python tests/rliable/reference.py > tests/golden/rliable.json

rliable resamples with NumPy's global generator, so that its resamples can be repeated.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import Any

import numpy as np
from rliable import library, metrics

REPETITIONS = 500
SEED = 7
STATISTICS = {"iqm": metrics.aggregate_iqm, "mean": metrics.aggregate_mean}


def cases() -> dict[str, np.ndarray]:
    """Scores [runs, environments]."""
    rng = np.random.default_rng(3)
    shares = rng.binomial(50, (0.9, 0.5, 0.2), (5, 3)) / 50  # with ties
    return {
        "five runs, one environment": rng.normal(0.7, 0.1, (5, 1)).round(6),
        "five runs, three environments": shares,
        "seven runs, three environments": (shares.mean() + rng.normal(0.0, 0.2, (7, 3))).round(6),
        "three runs, two environments": rng.exponential(10.0, (3, 2)).round(6),
        "constant": np.full((6, 2), 0.25),
    }


def pairs() -> list[tuple[str, str]]:
    """Cases with equally many environments, compared by the probability of improvement."""
    return [
        ("seven runs, three environments", "five runs, three environments"),
        ("five runs, three environments", "five runs, three environments"),
    ]


def interval(scores: Any, statistic: Any, repetitions: int = REPETITIONS) -> dict[str, float]:
    """rliable's estimate and interval, with its resamples seeded."""
    np.random.seed(SEED)  # noqa: NPY002
    values, bounds = library.get_interval_estimates(
        {"scores": scores}, lambda *arrays: np.array([statistic(*arrays)]), reps=repetitions
    )
    low, high = bounds["scores"].ravel()
    return {"value": float(values["scores"][0]), "low": float(low), "high": float(high)}


def reference() -> dict[str, Any]:
    """Everything that the golden file holds."""
    scores = cases()
    return {
        "command": ".venv-rliable/bin/python tests/rliable/reference.py > tests/golden/rliable.json",
        "versions": {name: version(name) for name in ("rliable", "arch", "numpy")},
        "repetitions": REPETITIONS,
        "seed": SEED,
        "scores": {name: array.tolist() for name, array in scores.items()},
        "aggregates": {
            name: {key: interval(array, statistic) for key, statistic in STATISTICS.items()}
            for name, array in scores.items()
        },
        "improvement": [
            {"x": x, "y": y, **interval([scores[x], scores[y]], metrics.probability_of_improvement)} for x, y in pairs()
        ],
    }


if __name__ == "__main__":
    json.dump(reference(), sys.stdout, indent=1)
    sys.stdout.write("\n")
