"""Everything that exists only for third-party PyMARL files."""

from __future__ import annotations

import importlib
import sys


def install() -> bool:
    """Makes ``import tensorboard_logger`` work where the original package is missing or broken.

    Returns:
        Whether our replacement now answers to that name.
    """
    try:
        importlib.import_module("tensorboard_logger")
    except Exception:  # the last release fails on import with many kinds of error
        sys.modules["tensorboard_logger"] = importlib.import_module("compat.tensorboard_logger")
    return sys.modules["tensorboard_logger"].__name__ == "compat.tensorboard_logger"
