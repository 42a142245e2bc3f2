"""The generators that belong to nobody: Python's, NumPy's and PyTorch's own, for parts that draw from them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def global_rng_state() -> dict[str, Any]:
    """Their states."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002  third-party parts may use it
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def load_global_rng_state(state: Mapping[str, Any]) -> None:
    """Restores what ``global_rng_state`` gave; those of CUDA devices only where there are as many."""
    random.setstate(state["python"])
    np.random.set_state(dict(state["numpy"]))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
