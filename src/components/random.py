"""Random streams of a run: one NumPy generator per user, all derived from the run's seed, all checkpointable."""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


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


def global_rng_state() -> dict[str, Any]:
    """State of the generators that belong to nobody: Python's, NumPy's and PyTorch's, for parts that draw from them."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002  third-party parts may use it
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def load_global_rng_state(state: Mapping[str, Any]) -> None:
    """Restores what ``global_rng_state`` gave; the devices' only where there are as many."""
    random.setstate(state["python"])
    np.random.set_state(dict(state["numpy"]))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
