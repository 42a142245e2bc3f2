"""Numba where it is installed; otherwise a decorator that changes nothing.

Numba keeps compiled functions until the file that they stand in changes. Ours also call and read what stands in other
files of their folder, so that here any change in the folder compiles them anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

try:
    import numba
    from numba.core import caching

    HAVE_NUMBA = True
except ImportError:
    HAVE_NUMBA = False

    def njit(**_options: Any) -> Callable[[Any], Any]:
        """Leaves the function as it is."""
        return lambda function: function

else:

    class _FolderStamp:
        """Says that a function is as fresh as all Python files beside it."""

        _py_file: str

        def get_source_stamp(self) -> bytes:
            """A hash of their content."""
            return _hash_of(Path(self._py_file).parent)

    class GivenFolder(_FolderStamp, caching.UserProvidedCacheLocator):
        """Compiled functions in ``NUMBA_CACHE_DIR``, if it is set."""

    class BesideSource(_FolderStamp, caching.InTreeCacheLocator):
        """Compiled functions in ``__pycache__``, if it can be written to."""

    class UserFolder(_FolderStamp, caching.UserWideCacheLocator):
        """Compiled functions in the user's cache folder."""

    # Numba's own setting, which mypy does not see.
    config: Any = numba.config
    _LOCATORS = ",".join(f"{kind.__module__}.{kind.__name__}" for kind in (GivenFolder, BesideSource, UserFolder))

    @lru_cache
    def _hash_of(folder: Path) -> bytes:
        found = hashlib.sha256()
        for path in sorted(folder.glob("*.py")):
            found.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        return found.digest()

    def njit(**options: Any) -> Callable[[Any], Any]:
        """``numba.njit`` whose cache knows the whole folder of the function."""

        def decorate(function: Any) -> Any:
            before = config.CACHE_LOCATOR_CLASSES
            config.CACHE_LOCATOR_CLASSES = _LOCATORS
            try:
                return numba.njit(**options)(function)
            finally:
                config.CACHE_LOCATOR_CLASSES = before

        return decorate


__all__ = ["HAVE_NUMBA", "njit"]
