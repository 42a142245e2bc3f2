"""Numba where it is installed; otherwise a decorator that changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    from numba import njit

    HAVE_NUMBA = True
except ImportError:
    HAVE_NUMBA = False

    def njit(**_options: Any) -> Callable[[Any], Any]:  # type: ignore[no-redef]
        """Leaves the function as it is."""
        return lambda function: function


__all__ = ["HAVE_NUMBA", "njit"]
