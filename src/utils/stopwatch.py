"""Seconds that a run took, over all its sessions."""

from __future__ import annotations

import time
from collections.abc import Mapping


class Stopwatch:
    """Runs from the moment it is made.

    Args:
        earlier: what ``state_dict`` gave in the session that is continued.
    """

    def __init__(self, earlier: Mapping[str, float] | None = None) -> None:
        earlier = earlier or {"wall": 0.0, "cpu": 0.0, "process": 0.0}
        self._wall = earlier["wall"] - time.monotonic()
        self._cpu = earlier["cpu"] - time.process_time()
        self._process = earlier["process"]

    @property
    def wall(self) -> float:
        """Seconds of time while the stopwatch ran."""
        return self._wall + time.monotonic()

    @property
    def cpu(self) -> float:
        """Seconds of this process's CPU while the stopwatch ran."""
        return self._cpu + time.process_time()

    @property
    def process(self) -> float:
        """The same with each session's start-up: all CPU seconds of its process."""
        return self._process + time.process_time()

    def state_dict(self) -> dict[str, float]:
        """For the next session."""
        return {"wall": self.wall, "cpu": self.cpu, "process": self.process}
