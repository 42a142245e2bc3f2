"""Random streams of a run: one NumPy generator per user, all derived from the run's seed, all checkpointable."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np


def stream(seed: int, name: str) -> np.random.Generator:
    """The run's random stream of that name; streams of different names are independent."""
    key = zlib.crc32(name.encode())
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, key])))


def rng_state(rng: np.random.Generator) -> dict[str, Any]:
    """Plain integers that restore the generator exactly."""
    return dict(rng.bit_generator.state)


def load_rng_state(rng: np.random.Generator, state: Mapping[str, Any]) -> None:
    """Restores what ``rng_state`` gave."""
    rng.bit_generator.state = dict(state)
